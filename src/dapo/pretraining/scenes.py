"""Scenes: a part, its flaws, the light and the sensor; one seeded picture with exact masks.

In: a `World` and an index. Out: `Scene` with a uint8 picture (h, w, 3) and a mask (h, w) bool per visual
family. The same world and index give the same scene on every machine of one numpy version.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dapo.pretraining.fields import Rng, blur, noise, rotated, smooth, strokes, walk
from dapo.pretraining.flaws import BOARD_FLAWS, EDGE_FLAWS, FABRIC_FLAWS, FLAWS, Canvas, draw_flaw
from dapo.pretraining.parts import Part, draw_part
from dapo.pretraining.surfaces import Rgb, Textures

FABRICS = frozenset({"woven fabric", "knitted fabric", "carpet", "leather", "fabric", "net", "mesh"})
BOARDS = frozenset({"circuit board", "printed label", "mesh"})


@dataclass(frozen=True)
class Scene:
    """A generated picture: `image` (h, w, 3) uint8; `masks` {family: (h, w) bool}, empty for a good part;
    names for captions.
    """

    image: NDArray[np.uint8]
    masks: dict[str, NDArray[np.bool_]]
    part: str
    surface: str
    gray: bool


@dataclass(frozen=True)
class World:
    """What may be drawn. `seed` and an index name a scene; `other` takes the parts kept from the first world.

    `normal` is the share of good parts, `families` the visual families of flaws (default: all).
    """

    seed: int = 0
    other: bool = False
    normal: float = 0.3
    families: tuple[str, ...] = tuple(FLAWS)
    textures: Textures = field(default_factory=lambda: Textures(None), compare=False)

    def scene(self, index: int, h: int = 112, w: int = 112) -> Scene:
        """Scene number `index` of this world at (h, w) pixels."""
        rng = np.random.default_rng([self.seed, int(self.other), index])
        part = draw_part(rng, h, w, self.textures, other=self.other)
        image = part.image
        masks: dict[str, NDArray[np.bool_]] = {}
        if rng.random() >= self.normal:
            image, masks = self._flawed(rng, part)
        image = _light(rng, image)
        if rng.random() < 0.35:
            image = _distract(rng, image)
        gray = rng.random() < 0.4
        return Scene(_sense(rng, image, gray), masks, part.name, part.surface, gray)

    def _flawed(self, rng: Rng, part: Part) -> tuple[Rgb, dict[str, NDArray[np.bool_]]]:
        image = part.image
        masks: dict[str, NDArray[np.bool_]] = {}
        count = 1 if rng.random() < 0.72 else 2 if rng.random() < 0.8 else 3
        count = min(count, len(self.families))
        for _ in range(4 * count):
            if len(masks) == count:
                break
            name = str(rng.choice(self.families))
            if not _plausible(rng, name, part):
                continue
            drawn = draw_flaw(name, Canvas(image, part.support, part.background, part.upright), rng)
            if drawn is None:
                continue
            image, cover = drawn
            mask = cover > 0.35
            for other in masks.values():
                other &= ~mask
            masks[name] = masks[name] | mask if name in masks else mask
        return image, {name: mask for name, mask in masks.items() if mask.sum() >= 4}


def _plausible(rng: Rng, name: str, part: Part) -> bool:
    """Keep families where they occur: board flaws on boards, weaving faults on fabrics, edge flaws mostly
    on edges.
    """
    if name in BOARD_FLAWS:
        return part.surface in BOARDS
    if part.surface == "circuit board" and rng.random() < 0.5:
        return False
    if name in FABRIC_FLAWS:
        return part.surface in FABRICS or rng.random() < 0.35
    if name in EDGE_FLAWS:
        return part.name != "surface" or rng.random() < 0.3
    return True


def _light(rng: Rng, image: Rgb) -> Rgb:
    """Illumination: gradients, vignettes, soft bright bands, hard-edged shadows now and then. All of it
    normal.
    """
    h, w = image.shape[:2]
    gain = np.ones((h, w), np.float32)
    if rng.random() < 0.7:
        gain = gain + np.float32(rng.uniform(0.05, 0.45)) * smooth(rng, h, w, int(rng.integers(2, 4)))
    if rng.random() < 0.3:
        v, u = rotated(h, w, h * rng.uniform(0.3, 0.7), w * rng.uniform(0.3, 0.7), 0.0)
        gain = gain * (
            1 - np.float32(rng.uniform(0.2, 0.7)) * (v * v + u * u) / np.float32(h * h / 2 + w * w / 2) * 2
        )
    if rng.random() < 0.3:
        v, _ = rotated(
            h, w, rng.uniform(0, h), rng.uniform(0, w), rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
        )
        gain = gain + np.float32(rng.uniform(0.1, 0.6)) * np.exp(
            -((v / np.float32(rng.uniform(4, 30) * h / 112)) ** 2)
        )
    return image * np.clip(gain, 0.08, 2.5)[..., None]


def _distract(rng: Rng, image: Rgb) -> Rgb:
    """Harmless things: chalk or marker figures, a cast shadow's soft edge, faint reflections."""
    h, w = image.shape[:2]
    kind = rng.integers(3)
    if kind == 0:
        size = rng.uniform(0.05, 0.14) * min(h, w)
        x0, y0 = rng.uniform(0, w), rng.uniform(0, h)
        paths = []
        for i in range(int(rng.integers(1, 5))):
            pts = rng.uniform(0, 1, (4, 2)) * (size * 0.7, size) + (x0 + i * size, y0)
            paths.append([(float(a), float(b)) for a, b in pts])
        ink = strokes(h, w, paths, [max(0.7, size * 0.08)] * len(paths))
        return image * (1 - np.float32(rng.uniform(0.15, 0.5)) * ink[..., None])
    if kind == 1:
        v, _ = rotated(h, w, rng.uniform(0, h), rng.uniform(0, w), rng.uniform(0, np.pi))
        edge = 1 / (1 + np.exp(-np.clip(v / np.float32(rng.uniform(3, 12)), -20, 20)))
        return image * (1 - np.float32(rng.uniform(0.05, 0.3)) * edge[..., None])
    path = walk(rng, rng.uniform(0, h), rng.uniform(0, w), rng.uniform(0.3, 1.2) * h, turn=0.1)
    glow = blur(strokes(h, w, [path], [rng.uniform(3, 9) * h / 112]), 4.0 * h / 112)
    return image + (glow * np.float32(rng.uniform(0.04, 0.2)))[..., None]


def _sense(rng: Rng, image: Rgb, gray: bool) -> NDArray[np.uint8]:
    """Camera: exposure, gamma, blur, noise, monochrome, now and then an inverted polarity."""
    h, w = image.shape[:2]
    if gray:
        weights = np.array([0.3, 0.59, 0.11], np.float32)
        image = np.repeat((image @ weights)[..., None], 3, 2)
    if rng.random() < 0.08:
        image = 1 - np.clip(image, 0, 1)
    image = np.clip(image * np.float32(np.exp(rng.normal(0, 0.25))), 0, 1) ** np.float32(
        np.exp(rng.normal(0, 0.2))
    )
    if rng.random() < 0.45:
        image = blur(image, rng.uniform(0.2, 0.9) * h / 112)
    grain = np.float32(rng.choice([0.0, rng.uniform(0.003, 0.015), rng.uniform(0.01, 0.035)]))
    if grain:
        plane = noise(rng, h, w, 0.3)[..., None]
        image = image + grain * plane
    return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
