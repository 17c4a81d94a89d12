"""Multi-type pixel figures (the paper's protocol): one-vs-rest ranking of each class, and F1 of the argmax.

Classes are the states: index 0 = normal, then the defect types. All pixels of all images are pooled.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dapo.errors import DataError
from dapo.metrics.curves import Counts, as_scores, auroc, average_precision, rank
from dapo.metrics.overlap import Maps

IGNORE = 255
NORMAL = "normal"
FIGURES = ("auroc", "ap", "f1")


def type_metrics(type_maps: Maps, label_maps: Maps, names: Sequence[str]) -> dict[str, Any]:
    """{"auroc", "ap", "f1", "classes": {name: {"auroc", "ap", "f1", "pixels"}}, "absent": [names]}, exact.

    type_maps: real (n, t, h, w), one map for each state, normal first. label_maps: integers (n, h, w): the
    state, 0 = normal, or 255 = ignore. Images of different sizes: sequences of (t, h, w) and (h, w) arrays.
    names: the t - 1 defect types, or all t states with normal first.

    A class's auroc and ap rank its own map over all pixels, this class against the rest; its f1 is that of
    the argmax (the first of equal maps wins). "pixels" is how many it has in the truth. The means are
    unweighted over the classes, normal included.

    Degenerate input gives NaN, never a made-up number: a class without a pixel in the truth has NaN figures,
    is listed in "absent" and left out of the means; auroc is NaN when the truth holds one class only; a NaN
    score makes the figures of its class NaN, and every f1, since the argmax is lost. No pixel at all: all
    NaN, all absent. Raises DataError when shapes or names do not fit, or a label is no state.
    """
    maps, labels = flattened(type_maps, label_maps)
    states = state_names(names, len(maps) if maps.size else len(names) + 1)
    if labels.size and (labels.min() < 0 or labels.max() >= len(states)):
        raise DataError(
            f"label_maps expected 0 (normal) to {len(states) - 1} or 255 (ignore); got {labels.min()} to "
            f"{labels.max()}. Number the types in the order of the names, from 1."
        )
    truth = np.bincount(labels, minlength=len(states))
    lost = bool(np.isnan(maps).any())
    f1 = argmax_f1(maps, labels, len(states))
    classes: dict[str, dict[str, float]] = {}
    for index, name in enumerate(states):
        classes[name] = dict.fromkeys(FIGURES, math.nan) | {"pixels": int(truth[index])}
        if truth[index]:
            classes[name] |= one_vs_rest(maps[index], labels == index)
            classes[name]["f1"] = math.nan if lost else f1[index]
    return {
        **{figure: mean_of(row[figure] for row in classes.values()) for figure in FIGURES},
        "classes": classes,
        "absent": [name for name, row in classes.items() if not row["pixels"]],
    }


def one_vs_rest(scores: NDArray[np.generic], truth: NDArray[np.bool_]) -> dict[str, float]:
    """{"auroc", "ap"} of one class: scores (p,), truth (p,)."""
    if np.isnan(scores).any():
        return {"auroc": math.nan, "ap": math.nan}
    steps, _ = rank(np.sort(scores[truth]), np.sort(scores[~truth]))
    return {"auroc": auroc(steps), "ap": average_precision(steps)}


def argmax_f1(maps: NDArray[np.generic], labels: NDArray[np.int64], states: int) -> list[float]:
    """F1 of each state for the argmax over maps (t, p) against labels (p,)."""
    if not labels.size:
        return [math.nan] * states
    counts: Counts = np.bincount(labels * states + np.argmax(maps, axis=0), minlength=states * states)
    return f1_of_confusion(counts.reshape(states, states))


def f1_of_confusion(counts: Counts) -> list[float]:
    """F1 of each class from counts (truth, call); NaN for a class that is neither in the truth nor called."""
    hits, size = np.diag(counts), counts.sum(axis=0) + counts.sum(axis=1)
    return [float(2 * hit / total) if total else math.nan for hit, total in zip(hits, size, strict=True)]


def mean_of(values: Iterable[float]) -> float:
    """Unweighted mean of those that exist; NaN when none does."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def state_names(names: Sequence[str], states: int) -> list[str]:
    """One name for each state: normal is put first when only the defect types are named."""
    found = [NORMAL, *names] if len(names) == states - 1 else list(names)
    if len(found) != states or len(set(found)) != states:
        raise DataError(
            f"names expected the {states - 1} defect types, or all {states} states with normal first, no two "
            f"alike; got {len(names)}: {', '.join(names)}. Name each map after the first."
        )
    return found


def flattened(type_maps: Maps, label_maps: Maps) -> tuple[NDArray[np.generic], NDArray[np.int64]]:
    """Maps (t, p) and labels (p,) of all pixels that count, of all images."""
    if len(type_maps) != len(label_maps):
        raise DataError(
            f"expected one label map for each image; got {len(type_maps)} images and "
            f"{len(label_maps)} label maps. A good image needs one too, all 0."
        )
    scores, truths = [], []
    for index, (maps, labels) in enumerate(zip(type_maps, label_maps, strict=True)):
        values, truth = as_scores(maps, f"type_maps[{index}]"), np.asarray(labels)
        if values.ndim != 3 or values.shape[1:] != truth.shape or truth.dtype.kind not in "iub":
            raise DataError(
                f"expected type_maps[{index}] (t, h, w) and integers label_maps[{index}] (h, w); "
                f"got {values.shape} and {truth.dtype} {truth.shape}. Bring both to one size."
            )
        known = truth != IGNORE
        scores.append(values[:, known])
        truths.append(truth[known].astype(np.int64))
    if not scores:
        return np.empty((0, 0)), np.empty(0, dtype=np.int64)
    if len({len(values) for values in scores}) > 1:
        raise DataError(
            "expected the same states in every image; got different numbers of maps. "
            "Evaluate each product by itself."
        )
    return np.concatenate(scores, axis=1), np.concatenate(truths)
