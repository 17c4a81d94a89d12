"""How much the distance to good parts weighs beside the words, chosen on generated product lines.

In: a detector and product lines. Out: `Weights`, the numbers of `dapo.config.References`, `dapo.model.memory`
and `dapo.model.crowd` that say how much a distance counts. Every line is seen with 1, 4 and 20 good parts,
and as a folder of unlabelled pictures; a line's figures are its own, averaged over lines, then over k.

- map_weight, image_weight: the smallest whose figure (AUPRO; image AUROC) is within SLACK of the best. The
  figures are flat there, and real parts differ more from one another than generated ones do.
- doubt: c of k / (k + c), the share of the image weight that k parts get, where a logistic regression of
  flawed parts over all lines and k loses least. A part has thousands of patches but one largest distance, so
  of k parts its spread is poorly known.
- usual: USUAL of the crowd, the smallest at which the share found less that of false alarms is within SLACK
  of the best, at the model's own threshold.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit

from dapo.config import Fusion
from dapo.images import restore_map
from dapo.metrics import image_metrics, pixel_metrics
from dapo.model.crowd import Crowd, gather
from dapo.model.detector import CERTAIN, Detector
from dapo.model.features import Features
from dapo.model.memory import Memory, layers_of, remember
from dapo.pretraining.defaults import DEFECTS, fit_fusion, fuse
from dapo.pretraining.lines import Line
from dapo.pretraining.looking import pixels_for
from dapo.pretraining.scenes import Scene
from dapo.vocabulary import Vocabulary

LINES_WORLD = 610  # seed of the world of the lines
SHOTS = (1, 4, 20)
DRAWS = 2
GOOD, FLAWED = 32, 8  # pictures of a line
COARSE = 4  # px of a picture for one of the maps whose AUPRO is taken
WEIGHTS = (0.0, 0.15, 0.3, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
DOUBTS = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)  # good parts
USUALS = (0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0)  # standard deviations
SLACK = 0.01

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Evidence:
    """What speaks for a flaw in n pictures of a line: words in log-odds, distances in standard deviations.

    parts: how many good ones were remembered, None = the pictures were compared with one another. truths:
    (n, h, w). words, far: on the patch grid (n, gh, gw). overall, farthest: of the image (n,).
    """

    parts: int | None
    truths: NDArray[np.bool_]
    words: Floats
    far: Floats
    overall: Floats
    farthest: Floats

    @property
    def flawed(self) -> NDArray[np.bool_]:
        return np.asarray(self.truths.any((1, 2)))


@dataclass(frozen=True)
class Weights:
    """The choice, and {what: {value: its figure}}."""

    map_weight: float
    image_weight: float
    doubt: float
    usual: float
    figures: dict[str, dict[float, float]]

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@torch.inference_mode()
def evidence_of(
    detector: Detector, line: Line, defects: Sequence[str] = DEFECTS, shots: Sequence[int] = SHOTS
) -> Iterator[Evidence]:
    """What is seen of a line with each number of good parts, DRAWS times, and by mutual comparison."""
    detector = detector.changed(image_score="global").eval()
    states, layers = detector.text_features(Vocabulary.of(list(defects))), layers_of(detector)
    device = states.device

    scenes = [line.scene(i, good=i >= FLAWED) for i in range(GOOD + FLAWED)]
    truths = np.stack([_truth(scene, COARSE) for scene in scenes])
    seen: list[list[Features]] = [
        detector.looks(pixels_for(detector, scene.image).to(device), layers) for scene in scenes
    ]
    told = [detector.judge(looks, states) for looks in seen]
    words = torch.cat([scores.binary for scores in told]).logit(CERTAIN).float().cpu().numpy()
    overall = torch.cat([scores.image for scores in told]).logit(CERTAIN).float().cpu().numpy()

    def compared(parts: int | None, memory: Memory | Crowd) -> Evidence:
        distance = torch.cat([memory.distance(looks) for looks in seen])
        far = memory.patch.units(distance).float().cpu().numpy()
        farthest = memory.peak.units(distance.flatten(1).amax(1)).float().cpu().numpy()
        return Evidence(parts, truths, words, far, overall, farthest)

    for draw in range(DRAWS):
        good = [
            pixels_for(detector, line.scene(1000 * (draw + 1) + i, good=True).image)[0]
            for i in range(max(shots))
        ]
        for k in shots:
            yield compared(k, remember(detector, [[picture] for picture in good[:k]]))
    yield compared(None, gather(detector, [pixels_for(detector, scene.image)[0] for scene in scenes]))


def _truth(scene: Scene, step: int) -> NDArray[np.bool_]:
    """Where the flaws are, in squares of `step` px of which they cover half."""
    h, w = scene.image.shape[:2]
    squares = scene.flawed[: h // step * step, : w // step * step].reshape(h // step, step, w // step, step)
    return np.asarray(squares.mean((1, 3)) >= 0.5)


def choose_references(found: Sequence[Evidence], fusion: Fusion, threshold: float) -> Weights:
    """The choice. fusion, threshold: of the model's image score."""
    referred = [one for one in found if one.parts is not None]
    doubt = {c: _loss(referred, c) for c in DOUBTS}
    best_doubt = min(doubt, key=lambda c: doubt[c])
    aupro = {w: _over_shots(referred, [_aupro(one, w) for one in referred]) for w in WEIGHTS}
    shares = [_share(one, best_doubt) for one in referred]
    auroc = {
        w: _over_shots(
            referred,
            [
                image_metrics(one.overall + w * share * one.farthest, one.flawed)["auroc"]
                for one, share in zip(referred, shares, strict=True)
            ],
        )
        for w in WEIGHTS
    }
    image_weight = smallest(auroc)
    folders = [one for one in found if one.parts is None]
    usual = {u: _lead(folders, image_weight, u, fusion, threshold) for u in USUALS}
    return Weights(
        map_weight=smallest(aupro),
        image_weight=image_weight,
        doubt=best_doubt,
        usual=smallest(usual),
        figures={"map_weight": aupro, "image_weight": auroc, "doubt": doubt, "usual": usual},
    )


def smallest(figures: dict[float, float], slack: float = SLACK) -> float:
    """The smallest value whose figure is within `slack` of the best."""
    best = max(figures.values())
    return min(value for value, figure in figures.items() if figure >= best - slack)


def _share(one: Evidence, doubt: float) -> float:
    assert one.parts is not None
    return one.parts / (one.parts + doubt)


def _over_shots(found: Sequence[Evidence], figures: Sequence[float]) -> float:
    """Mean over k of the mean over lines and draws."""
    kinds = sorted({one.parts for one in found if one.parts is not None})
    means = [np.mean([f for one, f in zip(found, figures, strict=True) if one.parts == k]) for k in kinds]
    return round(float(np.mean(means)), 4)


def _aupro(one: Evidence, weight: float) -> float:
    maps = expit(one.words + weight * one.far)
    return pixel_metrics([restore_map(m, *one.truths.shape[1:]) for m in maps], one.truths)["aupro"]


def _loss(found: Sequence[Evidence], doubt: float) -> float:
    """Mean log-loss of the logistic regression of flawed pictures, all lines and k together."""
    features = np.concatenate(
        [np.column_stack([one.overall, _share(one, doubt) * one.farthest]) for one in found]
    )
    flawed = np.concatenate([one.flawed for one in found])
    said = np.clip(fuse(features, fit_fusion(features, flawed)), CERTAIN, 1 - CERTAIN)
    return round(float(-np.log(np.where(flawed, said, 1 - said)).mean()), 4)


def _lead(found: Sequence[Evidence], weight: float, usual: float, fusion: Fusion, threshold: float) -> float:
    """Share of flawed pictures found less that of good ones called defective."""
    called = [
        expit(fusion.global_weight * (one.overall + weight * (one.farthest - usual)) + fusion.bias)
        >= threshold
        for one in found
    ]
    flawed = np.concatenate([one.flawed for one in found])
    defective = np.concatenate(called)
    return round(float(defective[flawed].mean() - defective[~flawed].mean()), 4)
