"""Ranking figures (AUROC, AP, F1max) from scores and true/false labels: exact, one sort.

Between two neighbouring scores of positives a curve of rates only collects false positives, so the whole
curve is known at the distinct scores that hold a positive. Negatives are therefore sorted as plain values
(numpy's vectorised sort) and only counted; nothing of their size is ever indexed.

In: scores of any real dtype, labels of bool, same shape. Out: `Steps`, and the figures read from it.
AP is the step sum of the precision (no interpolation), as scikit-learn's `average_precision_score`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dapo.errors import DataError

Floats = NDArray[np.float64]
Counts = NDArray[np.int64]


@dataclass(frozen=True)
class Steps:
    """The ranking, read at each of the s distinct scores that hold a positive, best score first.

    true: (s,) positives at or above the score. above, false: (s,) negatives strictly above it, and at or
    above it. positives, negatives: how many there are in all. Negatives below the last positive appear in
    `negatives` only.
    """

    true: Counts
    above: Counts
    false: Counts
    positives: int
    negatives: int

    @property
    def gained(self) -> Counts:
        """(s,) positives that hold exactly this score."""
        return np.diff(self.true, prepend=0)


def rank(positive: NDArray[np.generic], negative: NDArray[np.generic]) -> tuple[Steps, NDArray[np.intp]]:
    """Steps of a descending sort, and the index of the last positive of each step in that sort.

    positive: (p,) and negative: (q,) scores of one dtype, each sorted ascending IN ADVANCE, without NaN.
    """
    descending = positive[::-1]
    changes = np.ones(len(descending), dtype=np.bool_)  # True at the last positive of each step
    np.not_equal(descending[1:], descending[:-1], out=changes[:-1])
    last = np.flatnonzero(changes)
    levels = descending[last]
    above = np.searchsorted(negative, levels, side="right")
    false = np.searchsorted(negative, levels, side="left")
    for counts in (above, false):
        np.subtract(len(negative), counts, out=counts)
    return Steps(last + 1, above, false, len(positive), len(negative)), last


def auroc(steps: Steps) -> float:
    """P(score of a positive > score of a negative), ties count one half. NaN without either class."""
    if not steps.positives or not steps.negatives:
        return math.nan
    beaten = steps.negatives - 0.5 * (steps.above + steps.false)
    return min(1.0, float(np.dot(steps.gained, beaten) / steps.positives / steps.negatives))


def average_precision(steps: Steps) -> float:
    """Sum over steps of (recall gained) x (precision there). NaN without a positive; 1 without a negative."""
    if not steps.positives:
        return math.nan
    precision = steps.true / (steps.true + steps.false)
    return min(1.0, float(np.dot(steps.gained, precision) / steps.positives))


def f1_max(steps: Steps) -> float:
    """Best F1 over all thresholds. NaN without a positive; 1 without a negative.

    The best threshold is always the score of a positive: a lower one only adds false positives.
    """
    if not steps.positives:
        return math.nan
    return float(np.max(2 * steps.true / (steps.positives + steps.true + steps.false)))


def curve(steps: Steps, points: int = 200) -> dict[str, Floats]:
    """{"fpr", "recall", "precision"}, each (n,), n <= points + 2: ROC and precision-recall curve to draw.

    From the strictest threshold to calling everything defective; thinned evenly along the recall. Empty
    without a positive; without a negative fpr is NaN.
    """
    if not steps.positives:
        return {name: np.empty(0) for name in ("fpr", "recall", "precision")}
    rows = np.unique(np.searchsorted(steps.true, np.linspace(1, steps.positives, points)))
    true, false = steps.true[rows], steps.false[rows]
    fpr = false / steps.negatives if steps.negatives else np.full(len(rows), np.nan)
    precision = true / (true + false)
    share = steps.positives / (steps.positives + steps.negatives)
    return {
        "fpr": np.concatenate([[0.0], fpr, [1.0]]),
        "recall": np.concatenate([[0.0], true / steps.positives, [1.0]]),
        "precision": np.concatenate([precision[:1], precision, [share]]),
    }


def image_metrics(scores: ArrayLike, labels: ArrayLike) -> dict[str, float]:
    """{"auroc", "ap", "f1_max"} of image scores (b,), higher = more likely defective, and labels (b,).

    Labels are bool, True = defective (0 and 1 also pass). Degenerate input gives NaN, never a made-up number:
    no defective image: all NaN. Only defective images: auroc NaN; ap and f1_max 1 (every call is right).
    All scores equal: auroc 0.5, ap = the share of defective images. A NaN score cannot be ranked: all NaN.
    Raises DataError when lengths differ or labels are not true/false.
    """
    values, truth = np.asarray(scores), as_truth(labels, "labels")
    if values.shape != truth.shape or values.ndim != 1:
        raise DataError(
            "image_metrics expected one score and one label for each image; got shapes "
            f"{values.shape} and {truth.shape}. Pass two lists of one length."
        )
    values = as_scores(values, "scores")
    if np.isnan(values).any():
        return dict.fromkeys(("auroc", "ap", "f1_max"), math.nan)
    steps, _ = rank(np.sort(values[truth]), np.sort(values[~truth]))
    return {"auroc": auroc(steps), "ap": average_precision(steps), "f1_max": f1_max(steps)}


def as_scores(values: ArrayLike, name: str) -> NDArray[np.generic]:
    """The array as real numbers (floats and integers pass untouched; anything else raises DataError)."""
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise DataError(
            f"{name} expected real numbers; got dtype {array.dtype}. Convert the scores to float32."
        )
    return array


def as_truth(values: ArrayLike, name: str) -> NDArray[np.bool_]:
    """The array as bool; integers and floats are taken when they are only 0 and 1, otherwise DataError."""
    array = np.asarray(values)
    if array.dtype == np.bool_:
        return array
    if array.dtype.kind not in "iuf" or not bool(((array == 0) | (array == 1)).all()):
        raise DataError(
            f"{name} expected bool, or only 0 and 1; got dtype {array.dtype} with other values. "
            "Binarise first (for mask files of 0 and 255: mask > 127)."
        )
    return array.astype(np.bool_)
