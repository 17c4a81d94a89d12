"""Flaws: what goes wrong with a surface, one drawing function a visual family, each with its exact mask.

In: a `Canvas` (picture, coverage of the part, background, grain) and a seeded generator. Out: the picture
with the flaw, and the coverage of the flaw (h, w) in [0, 1]. The physics tells the families apart: a
scratch scatters light along a line, a dent shades, a hole shows what is behind, a stain multiplies colour,
a fray changes the texture. Sizes are relative to `canvas.unit` = min(h, w) / 112.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dapo.pretraining.fields import (
    Field,
    Rng,
    blur,
    noise,
)
from dapo.pretraining.surfaces import Rgb


@dataclass(frozen=True)
class Canvas:
    """What a flaw is drawn on. `image` (h, w, 3), `support` (h, w), `background` (h, w, 3); `upright`:
    grain along y.
    """

    image: Rgb
    support: Field
    background: Rgb
    upright: bool

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) in pixels."""
        return self.support.shape[0], self.support.shape[1]

    @property
    def unit(self) -> float:
        """One pixel of a 112 px picture, in pixels of this one."""
        return min(self.size) / 112.0

    @property
    def grain(self) -> float:
        """Angle of the grain in radians."""
        return np.pi / 2 if self.upright else 0.0


Flaw = Callable[[Canvas, Rng], tuple[Rgb, Field]]
FLAWS: dict[str, Flaw] = {}


def flaw(name: str) -> Callable[[Flaw], Flaw]:
    """Register the drawing function of one visual family."""

    def keep(draw: Flaw) -> Flaw:
        FLAWS[name] = draw
        return draw

    return keep


def draw_flaw(name: str, canvas: Canvas, rng: Rng, *, seen: float = 0.018) -> tuple[Rgb, Field] | None:
    """Draw flaw `name`; None if it came out invisible (mean change under `seen` of full scale, or under 4
    px of area).

    The coverage returned counts only where the part is (a burr or an extra piece may reach beyond it).
    """
    image, cover = FLAWS[name](canvas, rng)
    image = np.clip(image, 0, 1).astype(np.float32)
    inside = cover > 0.3
    area = int(inside.sum())
    if area < 4 or area > 0.6 * cover.size:
        return None
    change = np.abs(image - canvas.image).max(2)[inside]
    roughness = np.abs(np.diff(canvas.image.mean(2), axis=1)).mean()
    if float(change.mean()) < seen + 0.5 * float(roughness):
        return None
    return image, cover


def place(canvas: Canvas, rng: Rng) -> tuple[float, float]:
    """A place well inside the part."""
    h, w = canvas.size
    for _ in range(8):
        y, x = rng.uniform(0.03, 0.97) * h, rng.uniform(0.03, 0.97) * w
        if canvas.support[int(y), int(x)] > 0.9:
            return float(y), float(x)
    inside = np.argwhere(canvas.support > 0.5)
    if len(inside) == 0:
        return h / 2, w / 2
    y, x = inside[rng.integers(len(inside))]
    return float(y), float(x)


def edge_place(canvas: Canvas, rng: Rng) -> tuple[float, float]:
    """A place on the edge of the part: its outline, or the border of the picture when the part fills it."""
    h, w = canvas.size
    rim = np.argwhere((canvas.support > 0.2) & (canvas.support < 0.8))
    if len(rim) > 12:
        y, x = rim[rng.integers(len(rim))]
        return float(y), float(x)
    along = rng.uniform(0.05, 0.95)
    return [(0.0, along * w), (h - 1.0, along * w), (along * h, 0.0), (along * h, w - 1.0)][rng.integers(4)]


def scaled(canvas: Canvas, rng: Rng, low: float, high: float) -> float:
    """Log-uniform size in pixels between `low` and `high` units."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))) * canvas.unit)


def polarity(rng: Rng, dark: float = 0.5) -> float:
    return -1.0 if rng.random() < dark else 1.0


def add_light(canvas: Canvas, cover: Field, amount: Field | float) -> Rgb:
    """Add `amount` (luminance) where `cover` is."""
    return canvas.image + (cover * np.float32(1) * amount)[..., None]


def multiply(canvas: Canvas, cover: Field, colour: np.ndarray, keep: float = 1.0) -> Rgb:
    """Multiply by `colour` (3,) where `cover` is; `keep` < 1 also flattens the texture below."""
    c = cover[..., None]
    under = canvas.image
    if keep < 1:
        under = under.mean((0, 1), keepdims=True) * np.float32(1 - keep) + under * np.float32(keep)
    return canvas.image * (1 - c) + under * colour.astype(np.float32) * c


def paint(canvas: Canvas, cover: Field, colour: np.ndarray) -> Rgb:
    """Opaque colour (3,) or picture (h, w, 3) where `cover` is."""
    c = cover[..., None]
    return canvas.image * (1 - c) + colour.astype(np.float32) * c


def random_colour(rng: Rng, low: float = 0.0, high: float = 1.0, chroma: float = 0.15) -> np.ndarray:
    return np.clip(rng.uniform(low, high) + rng.normal(0, chroma, 3), 0, 1).astype(np.float32)


def contrasting(canvas: Canvas, rng: Rng, least: float = 0.15) -> np.ndarray:
    """A colour that stands off the part's mean by at least `least` of full scale."""
    mean = canvas.image.mean((0, 1))
    level = float(mean.mean())
    side = 1.0 if level < 0.3 else -1.0 if level > 0.7 else polarity(rng)
    return np.clip(mean + side * rng.uniform(least, 0.6) + rng.normal(0, 0.06, 3), 0, 1).astype(np.float32)


def patchy(rng: Rng, canvas: Canvas, cover: Field, amount: float) -> Field:
    """Break a cover into patches: `amount` of its area goes."""
    h, w = canvas.size
    field = blur(noise(rng, h, w, 1.5), 0.6)
    level = np.quantile(field, amount)
    return cover * np.clip((field - np.float32(level)) * 4 + 0.5, 0, 1)
