"""From which lead of the background a region is of an unknown type, chosen where the truth is known.

Goes in: a detector and pictures with masks, each told as if its user had given only some of the names. Comes
out: `Trial`s, one for each region on a labelled flaw: how far the background was ahead there, and whether the
flaw was one of the names. `choose_unknown` draws such lists for generated scenes and places the value so that
a stated share of the flaws that do have a name lose it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dapo.images import restore_map
from dapo.inspection import Region
from dapo.metrics import image_metrics
from dapo.model.detector import Detector
from dapo.pretraining.lexicon import Lexicon
from dapo.pretraining.looking import pixels_for
from dapo.pretraining.scenes import World
from dapo.regions import find_regions
from dapo.vocabulary import Defect, Vocabulary, builtin

LISTS = {3: 5, 5: 5, 10: 5}  # names in a list: how many lists are drawn
LOST = 0.05  # of the regions whose flaw has a name: called unknown all the same
ON_A_FLAW = 0.25  # of the smaller of region and flaw: so much of it they share

Mask = NDArray[np.bool_]
Masks = Mapping[str, Mask]
Asked = tuple[Vocabulary, torch.Tensor, torch.Tensor]  # names, their states, their background


@dataclass(frozen=True)
class Trial:
    """A region on a flaw of type `flaw`, when a user had given so many `names`, it among them or not.

    What speaks for unknown, each a mean over the region weighted by the anomaly map: `ahead` is
    `Scores.unknown`; the two that need no background are `doubt`, one minus the lead of the best name over
    the next, and `rest`, the share of the anomaly that the best name does not explain.
    """

    names: int
    flaw: str
    known: bool
    ahead: float
    doubt: float
    rest: float


def choose_unknown(
    detector: Detector,
    world: World,
    *,
    map_threshold: float,
    min_area: float,
    count: int = 450,
    side: int = 224,
    lost: float = LOST,
    lists: Mapping[int, int] = LISTS,
) -> tuple[float | None, dict[str, Any]]:
    """The value at which `lost` of the regions with a name become unknown, and the generated figures.

    None where no region lies on a named flaw, or none on another: nothing can be read off then.
    """
    asked = [ask(detector, names) for names in drawn_lists(world.families, lists, world.seed)]
    scenes = (world.scene(i, side, side) for i in range(count))
    pictures = ((scene.image, scene.masks) for scene in scenes if scene.masks)
    found = list(trials(detector, pictures, asked, map_threshold=map_threshold, min_area=min_area))
    known = np.sort([trial.ahead for trial in found if trial.known])
    if not 0 < known.size < len(found):
        return None, {"regions": len(found)}
    value = float(np.quantile(known, 1 - lost))
    return round(value, 4), figures(found, value)


def drawn_lists(families: Sequence[str], lists: Mapping[int, int], seed: int) -> list[Vocabulary]:
    """Random lists of the families, each described by its type's plain name."""
    lexicon = Lexicon.builtin()
    named = sorted(family for family in families if lexicon.by_visual(family))
    drawn = []
    for length, times in lists.items():
        for number in range(times):
            rng = np.random.default_rng([seed, length, number])
            chosen = sorted(map(str, rng.choice(named, min(length, len(named)), replace=False)))
            kinds = [Defect(family, (lexicon.by_visual(family)[0].name,)) for family in chosen]
            drawn.append(Vocabulary.of(kinds))
    return drawn


def ask(detector: Detector, names: Vocabulary, common: Vocabulary | None = None) -> Asked:
    """Names with what the detector needs of them; the background: by default, the built-in types' names."""
    common = Vocabulary.of(list(builtin().names)) if common is None else common
    with torch.inference_mode():
        states = detector.text_features(names)
        return names, states, detector.background(states, common)


@torch.inference_mode()
def trials(
    detector: Detector,
    pictures: Iterable[tuple[NDArray[np.uint8], Masks]],
    asked: Sequence[Asked],
    *,
    map_threshold: float,
    min_area: float,
) -> Iterator[Trial]:
    """A trial for each region, found with each of the lists, that lies on a flaw.

    pictures: uint8 (h, w, 3), and a mask (h, w) for each type of flaw, called as the lists call it.
    """
    for image, masks in pictures:
        seen = detector.looks(pixels_for(detector, image))
        for names, states, background in asked:
            scores = detector.judge(seen, states, background=background)
            assert scores.unknown is not None  # a background was given
            binary, types, unknown = (
                restore_map(one[0].float().numpy(), *image.shape[:2])
                for one in (scores.binary, scores.types, scores.unknown)
            )
            found = find_regions(
                binary,
                dict(zip(names.names, types, strict=True)),
                threshold=map_threshold,
                min_area_px=max(1, round(min_area * binary.size)),
            )
            for region in found:
                if flaw := flaw_under(region, masks):
                    inside = region.mask
                    weights = binary[inside] / binary[inside].sum()
                    best, anomaly = (types[:, inside] @ weights).max(), binary[inside] @ weights
                    yield Trial(
                        names=len(names),
                        flaw=flaw,
                        known=flaw in names.names,
                        ahead=float(unknown[inside] @ weights),
                        doubt=1 - region.margin,
                        rest=1 - float(best / anomaly),
                    )


def flaw_under(region: Region, masks: Masks) -> str | None:
    """The type of which most lies under the region; None if no flaw does to a fair part."""
    mask = region.mask
    shared = {
        name: int((mask & flaw).sum())
        for name, flaw in masks.items()
        if (mask & flaw).sum() >= ON_A_FLAW * max(1, min(region.area_px, int(flaw.sum())))
    }
    return max(shared, key=lambda name: shared[name]) if shared else None


def figures(
    found: Sequence[Trial], value: float, evidence: Callable[[Trial], float] = attrgetter("ahead")
) -> dict[str, Any]:
    """How often regions on flaws without a name come out unknown at `value`, and on flaws with one."""
    ahead = np.array([evidence(trial) for trial in found])
    nameless = np.array([not trial.known for trial in found], dtype=bool)
    both = 0 < nameless.sum() < nameless.size
    return {
        "known": int((~nameless).sum()),
        "held_out": int(nameless.sum()),
        "auroc": round(float(image_metrics(ahead, nameless)["auroc"]), 4) if both else None,
        "found_unknown": _share(ahead[nameless] >= value),
        "known_lost": _share(ahead[~nameless] >= value),
    }


def _share(hits: Mask) -> float | None:
    return round(float(hits.mean()), 4) if hits.size else None
