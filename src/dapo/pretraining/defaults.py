"""Thresholds a model ships with, read off generated scenes that it never saw.

Goes in: a detector and a `World`. Comes out: `Defaults`: the weights of the fused image score, the image
score from which a part counts as defective at a stated share of false alarms among generated good parts, and
the anomaly value from which a region is drawn. They are honest for generated parts only: calibrate on your
own good parts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dapo.config import Fusion
from dapo.images import restore_map
from dapo.metrics import image_metrics, pixel_metrics
from dapo.model.detector import CERTAIN, Detector
from dapo.model.grid import top_mean
from dapo.pretraining.looking import pixels_for
from dapo.pretraining.scenes import World
from dapo.vocabulary import Vocabulary

# What the embedded model looks for when it is given no names.
DEFECTS = (
    "scratch", "crack", "dent", "hole", "pit", "stain", "spot", "discoloration", "rust", "burn", "bubble",
    "bump", "chip", "broken", "burr", "cut", "wrinkle", "abrasion", "peeling", "glue", "foreign particle",
    "thread", "missing", "uneven surface",
)  # fmt: skip
COARSE = 2  # px of a picture for one of the maps whose figures are taken
BINS = 1000  # of the anomaly value, when the region threshold is chosen

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Defaults:
    """What goes into a model's `config.json`, and the generated figures it was read off."""

    fusion: Fusion
    threshold: float
    map_threshold: float
    figures: dict[str, Any]


@torch.inference_mode()
def choose_defaults(
    detector: Detector,
    world: World,
    *,
    count: int = 600,
    side: int = 224,
    false_alarm: float = 0.05,
    defects: tuple[str, ...] = DEFECTS,
) -> Defaults:
    """Score `count` scenes of `world` at `side` px, fit the fusion, then place both thresholds.

    The image threshold is the order statistic that keeps the expected share of false alarms among good scenes
    at `false_alarm`; the region threshold maximises F1 over pixels. A detector with anchors gets no weight
    for its map.
    """
    detector = detector.changed(image_score="global").eval()
    vocabulary = Vocabulary.of(list(defects))
    states = detector.text_features(vocabulary)
    overall, local, maps, truths = [], [], [], []
    for i in range(count):
        scene = world.scene(i, side, side)
        scores = detector(pixels_for(detector, scene.image), states)
        overall.append(float(scores.image.logit(CERTAIN)))
        local.append(float(top_mean(scores.binary, detector.settings.top).logit(CERTAIN)))
        maps.append(restore_map(scores.binary[0].float().numpy(), side, side))
        truths.append(scene.flawed)
    # Anchors are there so that the list of names does not move the score: nor may its map.
    features = np.column_stack([overall, np.zeros(count) if detector.settings.anchors else local])
    flawed = np.array([truth.any() for truth in truths])
    fusion = fit_fusion(features, flawed)
    fused = fuse(features, fusion)
    good = np.sort(fused[~flawed])
    rank = math.ceil((len(good) + 1) * (1 - false_alarm))
    threshold = float(good[min(rank, len(good)) - 1])
    stacked, masks = np.stack(maps), np.stack(truths)
    located = pixel_metrics(stacked[:, ::COARSE, ::COARSE], masks[:, ::COARSE, ::COARSE])
    map_threshold = best_f1(stacked, masks)
    figures = {
        "scenes": count,
        "side": side,
        "image_auroc": round(image_metrics(fused, flawed)["auroc"], 4),
        "image_auroc_global": round(image_metrics(features[:, 0], flawed)["auroc"], 4),
        "image_auroc_map": round(image_metrics(np.array(local), flawed)["auroc"], 4),
        "pixel_auroc": round(located["auroc"], 4),
        "aupro": round(located["aupro"], 4),
        "false_alarm": false_alarm,
        "found_at_threshold": round(float((fused[flawed] > threshold).mean()), 4),
    }
    return Defaults(fusion, round(threshold + 1e-4, 4), map_threshold, figures)


def fit_fusion(features: Floats, flawed: NDArray[np.bool_], *, ridge: float = 1.0, steps: int = 50) -> Fusion:
    """Logistic regression of `flawed` (n,) on (global logit, map logit) (n, 2), by Newton's method; weights
    >= 0.
    """
    columns = np.column_stack([features, np.ones(len(features))])
    use = [0, 1, 2]
    for _ in range(2):  # a negative weight is a feature that does not help: fit again without it
        x, weights = columns[:, use], np.zeros(len(use))
        penalty = np.diag([ridge if column < 2 else 0.0 for column in use])
        for _step in range(steps):
            p = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
            gradient = x.T @ (p - flawed) + penalty @ weights
            curvature = (x * (p * (1 - p))[:, None]).T @ x + penalty + 1e-9 * np.eye(len(use))
            weights = weights - np.linalg.solve(curvature, gradient)
        fitted = dict(zip(use, weights, strict=True))
        negative = [column for column in use if column < 2 and fitted[column] < 0]
        if not negative:
            break
        use = [column for column in use if column not in negative]
    values = [round(float(fitted.get(column, 0.0)), 4) for column in range(3)]
    return Fusion(global_weight=max(0.0, values[0]), map_weight=max(0.0, values[1]), bias=values[2])


def fuse(features: Floats, fusion: Fusion) -> Floats:
    """Fused image score of (global logit, map logit), as `Detector` computes it."""
    logit = fusion.global_weight * features[:, 0] + fusion.map_weight * features[:, 1] + fusion.bias
    return np.asarray(1 / (1 + np.exp(-np.clip(logit, -60, 60))))


def best_f1(maps: NDArray[np.float32], masks: NDArray[np.bool_]) -> float:
    """The anomaly value, of `BINS` equal steps in [0, 1], at which F1 over all pixels is highest."""
    place = np.minimum((maps * BINS).astype(np.int64), BINS - 1).ravel()
    hits = np.bincount(place, masks.ravel(), BINS)[::-1].cumsum()[::-1]
    drawn = np.bincount(place, minlength=BINS)[::-1].cumsum()[::-1]
    f1 = 2 * hits / np.maximum(drawn + masks.sum(), 1)
    return float(f1.argmax()) / BINS
