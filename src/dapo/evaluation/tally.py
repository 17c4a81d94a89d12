"""ProductTally: inspected images of one product in, its figures out. Memory does not grow with the pixels.

An image counts once in the confusion: under the type it was called when that is one of its types, else under
its first; so does a pixel of overlapping types. The state normal of a pixel is what the type maps leave over
of 1. Images whose types nobody drew apart count for the pixel figures, not for those of the types. A figure
that does not exist is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dapo.data.sample import Sample
from dapo.metrics import StreamingPixelMetrics, image_metrics
from dapo.metrics.curves import Counts, curve, rank
from dapo.metrics.intervals import GroupHistogram, auroc_draws, percentile_interval, recall_draws
from dapo.metrics.streaming import codes
from dapo.metrics.types import NORMAL, f1_of_confusion, mean_of

CLUSTERS = 1000  # groups beyond this share clusters in turn: the memory of the intervals stays bounded
INTERVAL_BITS = 18  # resolution of the pixel interval, 1 part in 512; the figure itself is finer
TYPE_BITS = 18  # 2 x 6 MiB a type
DRAWN = ("image_auroc", "pixel_auroc", "top1", "balanced_accuracy")

Figures = dict[str, Any]
Map = NDArray[np.float32]
Draws = dict[str, NDArray[np.float64]]

NOTHING: Figures = dict.fromkeys(("auroc", "ap", "f1"), math.nan)  # of a product without a defect type


class Result(Protocol):
    """What is read of an Inspection."""

    @property
    def raw_score(self) -> float: ...
    @property
    def anomaly_map(self) -> NDArray[np.float32] | None: ...
    @property
    def types(self) -> dict[str, float]: ...
    @property
    def type_maps(self) -> dict[str, NDArray[np.float32]]: ...


@dataclass(frozen=True)
class ImageRow:
    """One inspected image: its truth, its raw score and the type it was called (None: nothing was named)."""

    image: str
    product: str
    types: tuple[str, ...]
    score: float
    called: str | None


class ProductTally:
    """types: the product's own defect types. max_fpr: the bound of AUPRO."""

    def __init__(self, types: Sequence[str], max_fpr: float) -> None:
        self.types = tuple(types)
        self.rows: list[ImageRow] = []
        self.clusters: list[int] = []
        self.masked = 0  # images with a map and known masks
        self.apart = 0  # of these, images whose types were drawn apart
        self.unmarked = 0  # defective images whose mask marks nothing
        self._groups: dict[str, int] = {}
        self._pixel = StreamingPixelMetrics(max_fpr)
        # of normal and each type its own map over all images; of each type the anomaly map over its images
        self._own = {name: StreamingPixelMetrics(max_fpr, TYPE_BITS) for name in (NORMAL, *self.types)}
        self._found = {name: StreamingPixelMetrics(max_fpr, TYPE_BITS) for name in self.types}
        self._calls: Counts = np.zeros((len(self.types) + 1,) * 2, dtype=np.int64)  # pixels (truth, call)
        self._histogram = GroupHistogram(CLUSTERS, 1 << INTERVAL_BITS)

    def add(self, sample: Sample, result: Result) -> None:
        """Count one inspected image. Raises DataError, before anything is counted, for a mask that cannot be
        read or differs in size from the map.
        """
        mask, masks = truth_of(sample, result.anomaly_map)
        group = sample.group if sample.group is not None else str(sample.image)
        cluster = self._groups.setdefault(group, len(self._groups)) % CLUSTERS
        names = {name: result.types[name] for name in self.types if name in result.types}
        called = max(names, key=names.__getitem__) if names else None
        score = float(result.raw_score)
        self.rows.append(ImageRow(str(sample.image), sample.product, sample.types, score, called))
        self.clusters.append(cluster)
        if result.anomaly_map is None or mask is None:
            return
        self.masked += 1
        self.unmarked += sample.defective and not mask.any()
        self._pixel.update([result.anomaly_map], [mask])
        if not np.isnan(result.anomaly_map).any():
            self._histogram.add(cluster, codes(result.anomaly_map, INTERVAL_BITS), mask)
        if masks is not None:
            self.apart += 1
            self._add_types(result.anomaly_map, result.type_maps, masks, mask)

    def _add_types(
        self,
        anomaly_map: Map,
        type_maps: Mapping[str, Map],
        masks: Mapping[str, NDArray[np.bool_]],
        mask: NDArray[np.bool_],
    ) -> None:
        """Count the maps of the types on an image whose types were drawn apart."""
        for name in masks:
            if name in self._found:
                self._found[name].update([anomaly_map], [mask])
        if not type_maps:
            return
        normal = np.ones(mask.shape, dtype=np.float32)
        for type_map in type_maps.values():
            normal -= type_map
        self._own[NORMAL].update([normal], [~mask])
        best, call = normal, np.zeros(mask.shape, dtype=np.int64)
        truth = np.zeros(mask.shape, dtype=np.int64)
        nothing = np.zeros(mask.shape, dtype=np.bool_)
        for number, name in enumerate(self.types, start=1):
            if name not in type_maps:
                continue
            type_map, own = type_maps[name], masks.get(name, nothing)
            self._own[name].update([type_map], [own])
            call = np.where(type_map > best, number, call)
            best = np.maximum(best, type_map)
            truth[own & (truth == 0)] = number
        for number, name in enumerate(self.types, start=1):
            truth[masks.get(name, nothing) & (call == number)] = number
        states = len(self.types) + 1
        pairs = np.bincount((truth * states + call).ravel(), minlength=states**2)
        self._calls += pairs.reshape(states, states)

    @property
    def scores(self) -> list[float]:
        return [row.score for row in self.rows]

    def curves(self) -> dict[str, dict[str, NDArray[np.float64]]]:
        """{"image", "pixel"}: the ROC and precision-recall curves, as `metrics.curves.curve`."""
        scores, truth = (
            np.array(self.scores),
            np.array([bool(row.types) for row in self.rows], dtype=np.bool_),
        )
        steps, _ = rank(np.sort(scores[truth]), np.sort(scores[~truth]))
        return {"image": curve(steps), "pixel": self._pixel.curve()}

    def figures(self) -> Figures:
        """{"image", "pixel", "pixel_bounds", "types", "per_type", "normal", "confusion", "counts"}."""
        labels = [bool(row.types) for row in self.rows]
        per_type = self._per_type()
        image = image_metrics(self.scores, labels)
        if all(labels):  # nothing to tell the defective from
            image = dict.fromkeys(image, math.nan)
        found: Figures = {"image": image, "pixel": self._pixel.compute()}
        found["pixel_bounds"] = {name: list(pair) for name, pair in self._pixel.bounds().items()}
        found["types"] = {
            "top1": self._share(self._correct()),
            "balanced_accuracy": mean_of(row["recall"] for row in per_type.values()),
            "f1_macro": mean_of(row["f1"] for row in per_type.values()),
        }
        told = bool(self._calls[1:].any())  # normal alone, without a pixel of any type, is no task
        states = [self._normal(), *(row["pixel"] for row in per_type.values())] if told else [NOTHING]
        for key in ("auroc", "ap", "f1"):
            found["types"][f"pixel_{key}"] = mean_of(row[key] for row in states)
        found["per_type"], found["normal"] = per_type, states[0]
        found["confusion"] = self._confusion()
        found["counts"] = {
            "images": len(labels),
            "good": labels.count(False),
            "defective": labels.count(True),
            "with_masks": self.masked,
            "types_apart": self.apart,
            "empty_masks": self.unmarked,
            "groups": len(self._groups),
        }
        return found

    def draws(self, count: int, seed: int) -> Draws:
        """{"image_auroc", "pixel_auroc", "top1", "balanced_accuracy"}: each figure in `count` resamples of
        the groups. NaN where the figure does not exist.
        """
        groups = min(len(self._groups), CLUSTERS)
        if not groups:
            return dict.fromkeys(DRAWN, np.full(count, math.nan))
        correct = self._correct()
        sizes, hits = np.zeros((groups, len(self.types))), np.zeros((groups, len(self.types)))
        for cluster, name, right in correct:
            sizes[cluster, self.types.index(name)] += 1
            hits[cluster, self.types.index(name)] += right
        positive, negative = (part[:groups] for part in self._histogram.counts())
        return {
            "image_auroc": self._image_draws(groups, count, seed),
            "pixel_auroc": auroc_draws(positive, negative, count, seed),
            "top1": recall_draws(
                hits.sum(axis=1, keepdims=True), sizes.sum(axis=1, keepdims=True), count, seed
            ),
            "balanced_accuracy": recall_draws(hits, sizes, count, seed),
        }

    def _image_draws(self, groups: int, count: int, seed: int) -> NDArray[np.float64]:
        """Image AUROC of each resample."""
        scores, rows = np.array(self.scores), np.array(self.clusters)
        if np.isnan(scores).any():
            return np.full(count, math.nan)
        defective = np.array([bool(row.types) for row in self.rows])
        levels, column = np.unique(scores, return_inverse=True)
        flawed, good = (
            sparse.csr_array((np.ones(int(own.sum())), (rows[own], column[own])), shape=(groups, len(levels)))
            for own in (defective, ~defective)
        )
        return auroc_draws(flawed, good, count, seed)

    def _correct(self) -> list[tuple[int, str, bool]]:
        """(cluster, the type it counts under, named right) of each defective image; empty when nothing was
        named.
        """
        if not any(row.called is not None for row in self.rows):
            return []
        rows = zip(self.clusters, self.rows, strict=True)
        return [
            (cluster, counted_as(row.types, row.called), row.called in row.types)
            for cluster, row in rows
            if row.types
        ]

    def _normal(self) -> Figures:
        """{"auroc", "ap", "f1"} of the state normal over all pixels."""
        own = self._own[NORMAL].compute()
        return {"auroc": own["auroc"], "ap": own["ap"], "f1": self._pixel_f1()[0]}

    def _pixel_f1(self) -> list[float]:
        """F1 of the argmax of each state, normal first; NaN where the truth has no pixel of it."""
        found = f1_of_confusion(self._calls)
        return [f1 if pixels else math.nan for f1, pixels in zip(found, self._calls.sum(axis=1), strict=True)]

    def _per_type(self) -> Figures:
        """{type: {"images", "recall", "f1", "image_auroc", "localisation_auroc", "pixel"}}."""
        correct, pixel_f1 = self._correct(), self._pixel_f1()
        found: Figures = {}
        for number, name in enumerate(self.types, start=1):
            own = [row for row in correct if row[1] == name]
            calls = sum(bool(row.types) and row.called == name for row in self.rows)
            hits = sum(right for _, _, right in own)
            found[name] = {
                "images": sum(name in row.types for row in self.rows),
                "recall": self._share(own),
                "f1": 2 * hits / (len(own) + calls) if own else math.nan,
                "image_auroc": self._auroc_against_good(name),
                "localisation_auroc": self._found[name].compute()["auroc"],
                "pixel": self._own[name].compute() | {"f1": pixel_f1[number]},
            }
        return found

    def _share(self, rows: Sequence[tuple[int, str, bool]]) -> float:
        """The share that was named right; NaN of nothing."""
        return sum(right for _, _, right in rows) / len(rows) if rows else math.nan

    def _confusion(self) -> dict[str, dict[str, int]] | None:
        """{type: {call: images}} over the defective images that got a name; None when nothing was named."""
        if not self._correct():
            return None
        counts = {name: dict.fromkeys(self.types, 0) for name in self.types}
        for row in self.rows:
            if row.types and row.called is not None:
                counts[counted_as(row.types, row.called)][row.called] += 1
        return counts

    def _auroc_against_good(self, name: str) -> float:
        """AUROC of the image scores: images of this type against the good ones."""
        chosen = [row for row in self.rows if not row.types or name in row.types]
        return image_metrics([row.score for row in chosen], [bool(row.types) for row in chosen])["auroc"]


def truth_of(
    sample: Sample, anomaly_map: NDArray[np.float32] | None
) -> tuple[NDArray[np.bool_] | None, dict[str, NDArray[np.bool_]] | None]:
    """(all types together, {type: mask}) at the size of the map, each None when unknown."""
    if anomaly_map is None:
        return None, None
    height, width = anomaly_map.shape
    masks = sample.load_masks(height, width)
    if masks is None:
        return sample.load_mask(height, width), None
    return np.any([np.zeros((height, width), np.bool_), *masks.values()], axis=0), masks


def counted_as(truth: Sequence[str], call: str | None) -> str:
    """The type an image counts under: the one it was called when that is right, else its first."""
    return call if call is not None and call in truth else truth[0]


def intervals_of(draws: Draws) -> dict[str, list[float]]:
    """{figure: [low, high]}, 95 %."""
    return {name: list(percentile_interval(values)) for name, values in draws.items()}
