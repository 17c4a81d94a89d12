"""Words never taught: do held-out phrases name what is seen as well as taught ones do?

Goes in: a detector, a `World`, the lexicon. Out: how often the flaw of a generated scene is named rightly
among all visual families, when each family is described by one taught phrase and when by one held-out phrase.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dapo.model.detector import Detector
from dapo.model.features import Features
from dapo.pretraining.lexicon import Lexicon
from dapo.pretraining.looking import pixels_for
from dapo.pretraining.scenes import World
from dapo.vocabulary import Defect, Vocabulary

DRAWS = 10  # lists of phrases of each kind


@torch.inference_mode()
def held_out_words(
    detector: Detector, world: World, lexicon: Lexicon, *, count: int = 400, side: int = 224
) -> dict[str, Any]:
    """Top-1 over all families with a held-out phrase, mean over `DRAWS` lists: taught, held out, their ratio.

    count: scenes of one flaw each, drawn from `world` (its share of good parts does not count).
    """
    families = tuple(name for name in world.families if _phrases(lexicon, name, taught=False))
    world = replace(world, normal=0.0, families=families)
    seen, truth = [], []
    for i in range(4 * count):
        scene = world.scene(i, side, side)
        if len(scene.masks) == 1:
            seen.append(detector.looks(pixels_for(detector, scene.image)))
            truth.append(families.index(next(iter(scene.masks))))
        if len(seen) == count:
            break
    shares = {
        taught: [
            _named(detector, seen, np.array(truth), words) for words in _lists(lexicon, families, taught)
        ]
        for taught in (True, False)
    }
    known, unknown = float(np.mean(shares[True])), float(np.mean(shares[False]))
    return {
        "scenes": len(seen),
        "families": len(families),
        "taught": round(known, 4),
        "held_out": round(unknown, 4),
        "ratio": round(unknown / known, 4) if known else None,
    }


def _phrases(lexicon: Lexicon, family: str, *, taught: bool) -> list[str]:
    kinds = lexicon.by_visual(family)
    pick = lexicon.train_phrases if taught else lexicon.held_out
    return [phrase for kind in kinds for phrase in pick(kind.id)]


def _lists(lexicon: Lexicon, families: Sequence[str], taught: bool) -> list[Vocabulary]:
    pools = {name: _phrases(lexicon, name, taught=taught) for name in families}
    rng = np.random.default_rng([7, int(taught)])
    return [
        Vocabulary(tuple(Defect(name, (str(rng.choice(pool)),)) for name, pool in pools.items()))
        for _ in range(DRAWS)
    ]


def _named(
    detector: Detector, seen: Sequence[list[Features]], truth: NDArray[np.int64], words: Vocabulary
) -> float:
    states = detector.text_features(words)
    named = [int(detector.judge(one, states).type_image[0].argmax()) for one in seen]
    return float((np.array(named) == truth).mean())
