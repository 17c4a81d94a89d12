"""Normal surfaces: what a part is made of, before anything is wrong with it.

In: a seeded generator and a size. Out: `Surface` with reflectance (h, w, 3) float32 in [0, 1], a name for
captions and the direction of its grain. Procedural families (`dapo.pretraining.materials` and
`dapo.pretraining.patterns`), and crops of real textures from a folder (`Textures`). Regular holes, seams,
pores, grain and markings belong to a normal surface: they are the hard negatives a detector must learn to
leave alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dapo.pretraining import patterns  # noqa: F401  # its families join FAMILIES
from dapo.pretraining.fields import Field, Rgb, Rng, log_uniform
from dapo.pretraining.materials import FAMILIES

# Worn or soiled by nature, or too ragged to call any patch of them normal: never used as a normal surface.
WORN_TEXTURES = frozenset(
    {
        "rust",
        "scatteredleaves",
        "pineneedles",
        "tiretracks",
        "woodchips",
        "moss",
        "ground",
        "road",
        "logs",
        "rocks",
        "bark",
    }
)
METAL_TEXTURES = frozenset({"chainmail", "foil", "diamondplate"})  # besides those that say so in their name
WEIGHTS = {"circuit board": 4.0}  # among the families; metals 2, the rest 1: what is inspected most
# The brick and the gravel photograph of the demonstration: nothing may have been learned from them.
SHOWN_IN_THE_DEMO = frozenset({("gravel", "004"), ("bricks", "025")})


@dataclass(frozen=True)
class Surface:
    """Reflectance `image` (h, w, 3) in [0, 1]; `name` for captions; `upright`: the grain runs along y."""

    image: Rgb
    name: str
    upright: bool


class Textures:
    """Real textures of a folder (one sub-folder a material), kept as uint8 arrays; worn materials are left
    out.

    White or black padding of preview sheets is trimmed. An empty or missing folder gives a falsy collection.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self.items: list[tuple[str, NDArray[np.uint8]]] = []
        if folder is None:
            return
        for path in sorted(Path(folder).glob("*/*.jpg")):
            if path.parent.name in WORN_TEXTURES or (path.parent.name, path.stem) in SHOWN_IN_THE_DEMO:
                continue
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            pixels = _trimmed(pixels)
            if min(pixels.shape[:2]) >= 48 and not _has_cutout(pixels):
                self.items.append((path.parent.name, pixels))

    def __len__(self) -> int:
        return len(self.items)

    def draw(self, rng: Rng, h: int, w: int) -> tuple[str, Rgb]:
        """A random crop of one texture at 0.45 to 1.0 of its side, enlarged to (h, w); sometimes turned by a
        right angle, recoloured or grey.
        """
        name, pixels = self.items[rng.integers(len(self.items))]
        ph, pw = pixels.shape[:2]
        part = rng.uniform(0.45, 1.0)
        side_y, side_x = min(ph, max(24, round(ph * part))), min(pw, max(24, round(pw * part)))
        y, x = int(rng.integers(ph - side_y + 1)), int(rng.integers(pw - side_x + 1))
        crop = Image.fromarray(pixels[y : y + side_y, x : x + side_x]).resize(
            (w, h), Image.Resampling.BICUBIC
        )
        image = np.asarray(crop, np.float32) / np.float32(255)
        if rng.random() < 0.5:
            image = image[:, ::-1]
        if h == w and rng.random() < 0.5:
            image = np.swapaxes(image, 0, 1)
        tone = rng.random()
        if tone < 0.15:
            image = np.repeat(image.mean(2, keepdims=True), 3, 2)
        elif tone < 0.4:  # another dye or another lamp
            image = np.clip(image * rng.uniform(0.75, 1.25, 3).astype(np.float32), 0, 1)
        elif tone < 0.5:
            image = image[..., rng.permutation(3)]
        return name, image


def _trimmed(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Without the white or black padding around it, and one pixel more for the loss of compression."""
    plain = (pixels.min(2) > 250) | (pixels.max(2) < 5)
    rows = plain.mean(1) < 0.9
    cols = plain.mean(0) < 0.9
    if not rows.any() or not cols.any():
        return pixels
    y = np.flatnonzero(rows)
    x = np.flatnonzero(cols)
    return pixels[y[0] + 1 : y[-1], x[0] + 1 : x[-1]]


def _has_cutout(pixels: NDArray[np.uint8]) -> bool:
    """Whether much of the picture is pure black or white: a cut-out material, not a surface."""
    return bool(((pixels.max(2) < 3).mean() > 0.15) or ((pixels.min(2) > 252).mean() > 0.5))


def draw_surface(rng: Rng, h: int, w: int, textures: Textures | None = None, share: float = 0.4) -> Surface:
    """One normal surface of size (h, w); real textures with probability `share` where there are any."""
    if textures and rng.random() < share:
        name, image = textures.draw(rng, h, w)
        gain = rng.uniform(0.5, 1.3)
        mean = image.mean((0, 1), keepdims=True)
        image = np.clip(mean + (image - mean) * np.float32(gain), 0, 1)
        return Surface(image, name, False)
    odds = np.array([WEIGHTS.get(family, 2.0 if is_metal(family) else 1.0) for family in FAMILIES])
    name = str(rng.choice(list(FAMILIES), p=odds / odds.sum()))
    upright = bool(rng.random() < 0.5)
    field = FAMILIES[name](rng, w, h) if upright else FAMILIES[name](rng, h, w)
    if upright:
        field = np.swapaxes(field, 0, 1)
    if field.ndim == 2:
        field = coloured(rng, field, grey=is_metal(name))
    return Surface(np.ascontiguousarray(field, np.float32), name, upright)


def is_metal(surface: str) -> bool:
    """Whether a surface of this name is bare metal or metal under paint."""
    return surface.endswith(("metal", "steel")) or surface in METAL_TEXTURES


def coloured(rng: Rng, field: Field, *, grey: bool = False) -> Rgb:
    """Luminance variation (h, w) -> reflectance (h, w, 3): a base colour, contrast 0.01 to 0.16 per unit of
    the field. Metals are `grey`, with at most the cast of brass, copper or blued steel.
    """
    level = rng.uniform(0.12, 0.88)
    tint = rng.normal(0, rng.choice([0.0, 0.03, 0.12]), 3)
    if grey:
        tint = tint * 0.2 + rng.choice([0.0, 0.0, rng.uniform(-0.06, 0.14)]) * np.array([1.0, 0.4, -0.6])
    base = np.clip(level + tint, 0.04, 0.96).astype(np.float32)
    contrast = np.float32(log_uniform(rng, 0.01, 0.16))
    return np.clip(base * (1 + field[..., None] * contrast / np.float32(max(level, 0.25))), 0, 1)
