"""Scenes: a part, its flaws, the light and the sensor; one seeded picture with exact masks.

In: a `World` and an index. Out: `Scene` with a uint8 picture (h, w, 3) and a mask (h, w) bool per visual
family. The same world and index give the same scene on every machine of one numpy version.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import uniform_filter1d

from dapo.pretraining.fields import (
    REFERENCE_SIDE,
    Rgb,
    Rng,
    blur,
    noise,
    rotated,
    smooth,
    strokes,
    unit,
    walk,
)
from dapo.pretraining.flaws import BOARD_FLAWS, EDGE_FLAWS, FABRIC_FLAWS, FLAWS, LEAST_AREA, Canvas, draw_flaw
from dapo.pretraining.marks import figure, squiggle
from dapo.pretraining.parts import Part, draw_part
from dapo.pretraining.surfaces import Textures, is_metal

FABRICS = frozenset({"woven fabric", "knitted fabric", "carpet", "leather", "fabric", "net", "mesh"})
# How often a family is drawn against the rest (1): finishes and edges come in the most guises.
WEIGHTS = {
    **dict.fromkeys(("fray", "discoloration"), 2.0),
    **dict.fromkeys(("scale", "patch", "chip", "crack", "scratch", "pit"), 1.6),
    "break": 2.4,
}
FINISH_FLAWS = frozenset({"fray"})  # of a ground or brushed face above all
MASKED_FROM = 0.35  # coverage from which a pixel belongs to a flaw
BLOWN, BLACK = 253, 5  # grey levels of 255 from which, and up to which, a pixel tells nothing
ATTEMPTS = 4  # at drawing a flaw that suits the part and is seen on it, each
LUMA = np.array([0.3, 0.59, 0.11], np.float32)  # what a monochrome camera makes of red, green, blue


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

    @property
    def flawed(self) -> NDArray[np.bool_]:
        """Pixels (h, w) of any flaw."""
        return np.any([np.zeros(self.image.shape[:2], bool), *self.masks.values()], axis=0)


@dataclass(frozen=True)
class World:
    """What may be drawn. `seed` and an index name a scene; `other` takes the parts kept from the first world.

    `normal` is the share of good parts, `families` the visual families of flaws (default: all). With `twins`
    scenes 2i and 2i + 1 show one part, each under its own light, as a rule one good and one flawed: what they
    share cannot be the flaw.
    """

    seed: int = 0
    other: bool = False
    normal: float = 0.3
    families: tuple[str, ...] = tuple(FLAWS)
    twins: bool = False
    textures: Textures = field(default_factory=lambda: Textures(None), compare=False)
    _last: dict[tuple[int, int, int], Part] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def scene(self, index: int, h: int = REFERENCE_SIDE, w: int = REFERENCE_SIDE) -> Scene:
        """Scene number `index` of this world at (h, w) pixels."""
        rng = np.random.default_rng([self.seed, int(self.other), index])
        if self.twins:
            part = self._shared(index // 2, h, w)
            # all of the first twins are good before any of the second is
            normal = 2 * self.normal - index % 2
        else:
            part, normal = draw_part(rng, h, w, self.textures, other=self.other), self.normal
        image = part.image
        masks: dict[str, NDArray[np.bool_]] = {}
        if rng.random() >= normal:
            image, masks = self._flawed(rng, part)
        image = _light(rng, image)
        if rng.random() < 0.35:
            image = _distract(rng, image)
        gray = rng.random() < 0.4
        pixels = _sense(rng, image, gray)
        return Scene(pixels, _not_blinded(masks, pixels), part.name, part.surface, gray)

    def _shared(self, pair: int, h: int, w: int) -> Part:
        """The part of two twins, drawn once."""
        if (pair, h, w) not in self._last:
            self._last.clear()
            rng = np.random.default_rng([self.seed, int(self.other), pair, 2])
            self._last[pair, h, w] = draw_part(rng, h, w, self.textures, other=self.other)
        return self._last[pair, h, w]

    def _flawed(self, rng: Rng, part: Part) -> tuple[Rgb, dict[str, NDArray[np.bool_]]]:
        """The part with one to three flaws, and their masks, where two overlap the later one's; both
        unchanged where none could be seen.
        """
        image = part.image
        masks: dict[str, NDArray[np.bool_]] = {}
        count = 1 if rng.random() < 0.72 else 2 if rng.random() < 0.8 else 3
        count = min(count, len(self.families))
        odds = _odds(self.families, part)
        for _ in range(ATTEMPTS * count):
            if len(masks) == count:
                break
            name = str(rng.choice(self.families, p=odds))
            if not _plausible(rng, name, part):
                continue
            drawn = draw_flaw(name, Canvas(image, part.support, part.background, part.upright), rng)
            if drawn is None:
                continue
            mask = drawn[1] > MASKED_FROM
            if mask.sum() < LEAST_AREA:
                continue
            image = drawn[0]
            for other in masks.values():
                other &= ~mask
            masks[name] = masks[name] | mask if name in masks else mask
        return image, {name: mask for name, mask in masks.items() if mask.sum() >= LEAST_AREA}


def _odds(families: tuple[str, ...], part: Part) -> NDArray[np.float64]:
    """Probability of each family on this part: `WEIGHTS`; board flaws ten times as often on a board, a
    lost finish twice as often on metal.
    """
    board, metal = 10.0 if _is_board(part) else 1.0, 2.0 if is_metal(part.surface) else 1.0
    odds = np.array([WEIGHTS.get(name, 1.0) for name in families])
    odds *= [board if name in BOARD_FLAWS else metal if name in FINISH_FLAWS else 1.0 for name in families]
    return np.asarray(odds / odds.sum(), np.float64)


def _is_board(part: Part) -> bool:
    """Whether there are traces: a surface of that name, not the bare board among the shapes."""
    return "board" in part.surface.split()


def _plausible(rng: Rng, name: str, part: Part) -> bool:
    """Keep families where they occur: board flaws on boards, weaving faults on fabrics, edge flaws mostly
    on edges.
    """
    if name in BOARD_FLAWS:
        return _is_board(part)
    if _is_board(part) and rng.random() < 0.5:
        return False
    if name in FABRIC_FLAWS:
        return part.surface in FABRICS or rng.random() < 0.35
    if name in EDGE_FLAWS:
        return part.name != "surface" or rng.random() < 0.15
    return True


def _light(rng: Rng, image: Rgb) -> Rgb:
    """Illumination: gradients, soft clouds, vignettes, bright bands along or across, saturated highlights,
    the hard edge of a shadow. All of it normal.
    """
    h, w = image.shape[:2]
    scale = unit(h, w)
    gain = np.ones((h, w), np.float32)
    if rng.random() < 0.7:
        gain = gain + np.float32(rng.uniform(0.05, 0.45)) * smooth(rng, h, w, int(rng.integers(2, 6)))
    if rng.random() < 0.3:
        v, u = rotated(h, w, h * rng.uniform(0.3, 0.7), w * rng.uniform(0.3, 0.7), 0.0)
        gain = gain * (
            1 - np.float32(rng.uniform(0.2, 0.7)) * (v * v + u * u) / np.float32(h * h / 2 + w * w / 2) * 2
        )
    if rng.random() < 0.3:
        turn = rng.choice([0, np.pi / 2, rng.uniform(0, np.pi)])
        v, _ = rotated(h, w, rng.uniform(0, h), rng.uniform(0, w), turn)
        for _ in range(int(rng.integers(1, 3))):
            width = np.float32(rng.uniform(4, 30) * scale)
            at = np.float32(rng.normal(0, 25) * scale)
            gain = gain + np.float32(rng.uniform(-0.25, 0.6)) * np.exp(-(((v - at) / width) ** 2))
    if rng.random() < 0.06:  # the edge of a fixture's shadow
        v, _ = rotated(h, w, rng.uniform(0, h), rng.uniform(0, w), rng.uniform(0, 2 * np.pi))
        gain = gain * (1 - np.float32(rng.uniform(0.15, 0.5)) * np.clip(v / np.float32(scale), 0, 1))
    image = image * np.clip(gain, 0.08, 2.5)[..., None]
    if rng.random() < 0.08:  # the mirror image of a lamp, saturated in its middle
        v, u = rotated(
            h, w, rng.uniform(0, h), rng.uniform(0, w), rng.choice([0, np.pi / 2, rng.uniform(0, 3)])
        )
        across, along = np.float32(rng.uniform(4, 14) * scale), np.float32(rng.uniform(8, 50) * scale)
        lamp = np.exp(-((v / across) ** 2) - (u / along) ** 2)
        image = image + np.float32(rng.uniform(0.2, 1.0)) * lamp[..., None]
    return image


def _distract(rng: Rng, image: Rgb) -> Rgb:
    """Harmless things: chalk or marker figures, faint squiggles, a cast shadow's soft edge, faint
    reflections.
    """
    h, w = image.shape[:2]
    scale = unit(h, w)
    kind = rng.integers(4)
    if kind == 0:
        return figure(rng, image)
    if kind == 1:
        return squiggle(rng, image)
    if kind == 2:
        v, _ = rotated(h, w, rng.uniform(0, h), rng.uniform(0, w), rng.uniform(0, np.pi))
        soft = np.float32(rng.uniform(3, 12) * scale)
        edge = 1 / (1 + np.exp(-np.clip(v / soft, -20, 20)))
        return image * (1 - np.float32(rng.uniform(0.05, 0.3)) * edge[..., None])
    path = walk(rng, rng.uniform(0, h), rng.uniform(0, w), rng.uniform(0.3, 1.2) * min(h, w), turn=0.1)
    glow = blur(strokes(h, w, [path], [rng.uniform(3, 9) * scale]), 4.0 * scale)
    return image + (glow * np.float32(rng.uniform(0.04, 0.2)))[..., None]


def _sense(rng: Rng, image: Rgb, gray: bool) -> NDArray[np.uint8]:
    """Camera: exposure, gamma, blur, motion, noise, monochrome, now and then an inverted polarity; files
    saved with loss.
    """
    h, w = image.shape[:2]
    if gray:
        image = np.repeat((image @ LUMA)[..., None], 3, 2)
    if rng.random() < 0.08:
        image = 1 - np.clip(image, 0, 1)
    gain = np.exp(rng.normal(0, 0.25))
    if rng.random() < 0.95:  # a camera set up to see its part
        bright = float(np.quantile(image[::4, ::4], 0.9))
        gain = np.clip(gain * bright, 0.25, 0.95) / max(bright, 0.03)
    image = np.clip(image * np.float32(gain), 0, 1) ** np.float32(np.exp(rng.normal(0, 0.2)))
    if rng.random() < 0.45:
        image = blur(image, rng.uniform(0.2, 0.9) * unit(h, w))
    if rng.random() < 0.06:  # the part moved during the exposure
        size = max(2, round(rng.uniform(1.5, 4) * unit(h, w)))
        image = uniform_filter1d(image, size, axis=int(rng.integers(2)), mode="nearest")
    grain = np.float32(rng.choice([0.0, rng.uniform(0.003, 0.015), rng.uniform(0.01, 0.035)]))
    if grain:
        plane = noise(rng, h, w, 0.3, grain=1.0)[..., None]  # of the pixels, not of the part
        image = image + grain * plane
    pixels = (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
    return _compressed(pixels, int(rng.integers(30, 86)), gray) if rng.random() < 0.14 else pixels


def _not_blinded(
    masks: dict[str, NDArray[np.bool_]], pixels: NDArray[np.uint8]
) -> dict[str, NDArray[np.bool_]]:
    """The flaws that the picture still shows: not those where all about is overexposed or black."""
    if not masks:
        return masks
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    lost = (red >= BLOWN) & (green >= BLOWN) & (blue >= BLOWN)
    lost |= (red <= BLACK) & (green <= BLACK) & (blue <= BLACK)
    return {name: mask for name, mask in masks.items() if not _lost(mask, lost)}


def _lost(mask: NDArray[np.bool_], lost: NDArray[np.bool_]) -> bool:
    """Whether nearly all pixels of the rectangle about a mask, with a margin, tell nothing."""
    h, w = mask.shape
    margin = round(3 * unit(h, w))
    rows, cols = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    about = lost[
        max(0, rows[0] - margin) : rows[-1] + margin + 1, max(0, cols[0] - margin) : cols[-1] + margin + 1
    ]
    return bool(about.mean() > 0.9) or bool(lost[mask].mean() > 0.7 and about.mean() > 0.7)


def _compressed(pixels: NDArray[np.uint8], quality: int, gray: bool) -> NDArray[np.uint8]:
    """The picture as a JPEG file of `quality` gives it back, with its blocks and ringing."""
    file = BytesIO()
    Image.fromarray(pixels[..., 0] if gray else pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file).convert("RGB"))
