"""ProductTally: inspected images of one product in, its figures out. Memory does not grow with the pixels.

An image counts once in the confusion: under the type it was called when that is one of its types, else under
its first. A figure that does not exist is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dapo.data.sample import Sample
from dapo.metrics import StreamingPixelMetrics, image_metrics
from dapo.metrics.intervals import GroupHistogram, auroc_draws, percentile_interval, recall_draws
from dapo.metrics.overlap import NAMES
from dapo.metrics.streaming import codes
from dapo.metrics.types import mean_of

CLUSTERS = 1000  # groups beyond this share clusters in turn: the memory of the intervals stays bounded
INTERVAL_BITS = 18  # resolution of the pixel interval, 1 part in 512; the figure itself is finer
TYPE_BITS = 18  # 2 x 6 MiB a type
DRAWN = ("image_auroc", "pixel_auroc", "top1", "balanced_accuracy")

Figures = dict[str, Any]
Draws = dict[str, NDArray[np.float64]]


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


class ProductTally:
    """types: the product's own defect types. max_fpr: the bound of AUPRO."""

    def __init__(self, types: Sequence[str], max_fpr: float) -> None:
        self.types = tuple(types)
        self.scores: list[float] = []
        self.truths: list[tuple[str, ...]] = []
        self.called: list[str | None] = []
        self.clusters: list[int] = []
        self.masked = 0  # images with a map and known masks
        self._groups: dict[str, int] = {}
        self._pixel = StreamingPixelMetrics(max_fpr)
        # of each type: its own map over all images; the anomaly map over its images
        self._own = {name: StreamingPixelMetrics(max_fpr, TYPE_BITS) for name in self.types}
        self._found = {name: StreamingPixelMetrics(max_fpr, TYPE_BITS) for name in self.types}
        self._histogram = GroupHistogram(CLUSTERS, 1 << INTERVAL_BITS)

    def add(self, sample: Sample, result: Result) -> None:
        """Count one inspected image. Raises DataError when its map and its mask differ in size."""
        group = sample.group if sample.group is not None else str(sample.image)
        cluster = self._groups.setdefault(group, len(self._groups)) % CLUSTERS
        names = {name: result.types[name] for name in self.types if name in result.types}
        self.scores.append(float(result.raw_score))
        self.truths.append(sample.types)
        self.called.append(max(names, key=names.__getitem__) if names else None)
        self.clusters.append(cluster)
        if result.anomaly_map is None or sample.masks is None:
            return
        height, width = result.anomaly_map.shape
        masks = sample.load_masks(height, width) or {}
        self.masked += 1
        nothing = np.zeros((height, width), dtype=np.bool_)
        mask = np.any(list(masks.values()), axis=0) if masks else nothing
        self._pixel.update([result.anomaly_map], [mask])
        if not np.isnan(result.anomaly_map).any():
            self._histogram.add(cluster, codes(result.anomaly_map, INTERVAL_BITS), mask)
        for name, type_map in result.type_maps.items():
            if name in self._own:
                self._own[name].update([type_map], [masks.get(name, nothing)])
        for name in masks:
            self._found[name].update([result.anomaly_map], [mask])

    def figures(self) -> Figures:
        """{"image", "pixel", "pixel_bounds", "types", "per_type", "confusion", "counts"}."""
        labels = [bool(truth) for truth in self.truths]
        per_type = self._per_type()
        found: Figures = {"image": image_metrics(self.scores, labels), "pixel": self._pixel.compute()}
        found["pixel_bounds"] = {name: list(pair) for name, pair in self._pixel.bounds().items()}
        found["types"] = {
            "top1": self._share(self._correct()),
            "balanced_accuracy": mean_of(row["recall"] for row in per_type.values()),
            "f1_macro": mean_of(row["f1"] for row in per_type.values()),
            **{f"pixel_{key}": mean_of(row["pixel"][key] for row in per_type.values()) for key in NAMES},
        }
        found["per_type"] = per_type
        found["confusion"] = self._confusion()
        found["counts"] = {
            "images": len(labels),
            "good": labels.count(False),
            "defective": labels.count(True),
            "with_masks": self.masked,
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
        defective = np.array([bool(truth) for truth in self.truths])
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
        if not any(call is not None for call in self.called):
            return []
        rows = zip(self.clusters, self.truths, self.called, strict=True)
        return [(cluster, counted_as(truth, call), call in truth) for cluster, truth, call in rows if truth]

    def _per_type(self) -> Figures:
        """{type: {"images", "recall", "f1", "image_auroc", "localisation_auroc", "pixel"}}."""
        correct = self._correct()
        found: Figures = {}
        for name in self.types:
            own = [row for row in correct if row[1] == name]
            calls = sum(
                bool(truth) and call == name for truth, call in zip(self.truths, self.called, strict=True)
            )
            hits = sum(right for _, _, right in own)
            found[name] = {
                "images": sum(name in truth for truth in self.truths),
                "recall": self._share(own),
                "f1": 2 * hits / (len(own) + calls) if own else math.nan,
                "image_auroc": self._auroc_against_good(name),
                "localisation_auroc": self._found[name].compute()["auroc"],
                "pixel": self._own[name].compute(),
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
        for truth, call in zip(self.truths, self.called, strict=True):
            if truth and call is not None:
                counts[counted_as(truth, call)][call] += 1
        return counts

    def _auroc_against_good(self, name: str) -> float:
        """AUROC of the image scores: images of this type against the good ones."""
        rows = zip(self.scores, self.truths, strict=True)
        chosen = [(score, bool(truth)) for score, truth in rows if not truth or name in truth]
        return image_metrics([score for score, _ in chosen], [label for _, label in chosen])["auroc"]


def counted_as(truth: Sequence[str], call: str | None) -> str:
    """The type an image counts under: the one it was called when that is right, else its first."""
    return call if call is not None and call in truth else truth[0]


def intervals_of(draws: Draws) -> dict[str, list[float]]:
    """{figure: [low, high]}, 95 %."""
    return {name: list(percentile_interval(values)) for name, values in draws.items()}
