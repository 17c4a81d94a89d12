"""Captions: one sentence for one scene, in many wordings. Torch-free.

In: a `Scene`, the lexicon, a seeded generator. Out: text that names the part, the surface and each flaw (by
a taught phrase of its visual family), sometimes its place and size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dapo.pretraining.fields import Rng
from dapo.pretraining.lexicon import Lexicon
from dapo.pretraining.scenes import Scene

GOOD = (
    "a {normal} {surface} {part}",
    "{surface} {part}, {normal}",
    "{normal}",
    "a photo of a {normal} {part}",
    "{part} of {surface}, nothing wrong: {normal}",
)
BAD = (
    "a {surface} {part} with {flaws}",
    "{flaws} on a {surface} {part}",
    "{flaws}",
    "a photo of a {part} with {flaws}",
    "{surface}: {flaws}",
    "defective {part}, {flaws}",
)


def caption(scene: Scene, lexicon: Lexicon, rng: Rng) -> str:
    """A sentence about `scene`; only taught phrases are used, so that held-out ones stay unseen."""
    part = "surface" if scene.part == "edge" else scene.part
    if not scene.masks:
        normal = str(rng.choice(lexicon.train_phrases("normal")))
        return str(rng.choice(GOOD)).format(normal=normal, surface=scene.surface, part=part)
    named = [_named(family, mask, lexicon, rng) for family, mask in scene.masks.items()]
    flaws = " and ".join(named)
    text = str(rng.choice(BAD)).format(flaws=flaws, surface=scene.surface, part=part)
    return f"gray photo: {text}" if scene.gray and rng.random() < 0.1 else text


def _named(family: str, mask: NDArray[np.bool_], lexicon: Lexicon, rng: Rng) -> str:
    types = lexicon.by_visual(family)
    phrase = (
        str(rng.choice(lexicon.train_phrases(types[rng.integers(len(types))].id)))
        if types
        else family.replace("_", " ")
    )
    if rng.random() < 0.12:
        share = float(mask.mean())
        phrase = f"{'small' if share < 0.01 else 'large' if share > 0.12 else 'medium'} {phrase}"
    if rng.random() < 0.12:
        rows, columns = np.nonzero(mask)
        h, w = mask.shape
        vertical = ("top", "middle", "bottom")[min(2, int(rows.mean() / h * 3))]
        across = ("left", "centre", "right")[min(2, int(columns.mean() / w * 3))]
        phrase = f"{phrase} at the {vertical} {across}"
    return phrase
