"""Flaws: what goes wrong with a surface, one drawing function a visual family, each with its exact mask.

In: a `Canvas` (picture, coverage of the part, background, grain) and a seeded generator. Out: the picture
with the flaw, and the coverage of the flaw (h, w) in [0, 1]. The physics tells the families apart: a
scratch scatters light along a line, a dent shades, a hole shows what is behind, a stain multiplies colour,
a fray changes the texture. Sizes are relative to `canvas.unit` = min(h, w) / 112.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps

import numpy as np
from scipy.ndimage import uniform_filter

from dapo.pretraining.fields import Field, Rgb, Rng, blend, blob, blur, grid, log_uniform, noise, unit

RIM_STEEPNESS = 4.0  # a flaw is whole from a coverage of the part of one over this
LEAST_CHANGE = 0.02  # of full scale, of a pixel that belongs to a trimmed mask
LEAST_AREA = 4  # px, of a flaw that counts
LARGEST_SHARE = 0.6  # of the picture that one flaw may cover
COVERED_FROM = 0.3  # coverage from which a pixel tells whether a flaw is seen
AREA_SEEN_AS_ONE = 120  # square units, from which an eye averages over a flaw


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
        """One pixel of a picture of 112 px, in pixels of this one."""
        return unit(*self.size)

    @property
    def grain(self) -> float:
        """Angle of the grain in radians."""
        return np.pi / 2 if self.upright else 0.0

    @property
    def along(self) -> tuple[Field, Field]:
        """Coordinates (along, across) the grain in pixels, each (h, w)."""
        y, x = grid(*self.size)
        return (y, x) if self.upright else (x, y)

    @property
    def colour(self) -> np.ndarray:
        """Mean colour (3,) of the part, without the background."""
        weight = self.support / np.float32(max(float(self.support.sum()), 1e-3))
        return np.einsum("hw,hwc->c", weight, self.image)

    def colour_under(self, cover: Field) -> np.ndarray:
        """Mean colour (3,) where `cover` is; of the part where it is nowhere."""
        inside = cover > 0.5
        return self.image[inside].mean(0) if inside.any() else self.colour

    @property
    def grey(self) -> Field:
        """Luminance (h, w)."""
        return _luminance(self.image)


def change(before: Rgb, after: Rgb) -> Field:
    """Largest change of a channel, at each pixel: (..., 3) -> (...)."""
    step = np.abs(after - before)
    return np.maximum(np.maximum(step[..., 0], step[..., 1]), step[..., 2]).astype(np.float32)


def _luminance(image: Rgb) -> Field:
    """Mean of the channels (h, w)."""
    return (image[..., 0] + image[..., 1] + image[..., 2]) / np.float32(3)


Flaw = Callable[[Canvas, Rng], tuple[Rgb, Field]]
FLAWS: dict[str, Flaw] = {}


def flaw(name: str, *, beyond: bool = False, trimmed: bool = False) -> Callable[[Flaw], Flaw]:
    """Register the drawing function of one visual family.

    What it draws and its mask end where the part ends, unless it may reach `beyond`: what lies on the part
    or sticks out of it. With `trimmed` the mask leaves out what did not change: there the flaw happens to
    look like what it lies on.
    """

    def keep(draw: Flaw) -> Flaw:
        drawn = draw if beyond else _kept_within(draw)
        FLAWS[name] = _trimmed(drawn) if trimmed else drawn
        return draw

    return keep


def _kept_within(draw: Flaw) -> Flaw:
    """The same flaw, its change and its coverage cut off where the part's coverage runs out."""

    @wraps(draw)
    def drawn(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
        image, cover = draw(canvas, rng)
        if float(canvas.support.min()) * RIM_STEEPNESS >= 1:
            return image, cover
        within = np.minimum(canvas.support * np.float32(RIM_STEEPNESS), 1)
        return blend(canvas.image, image, within), cover * within

    return drawn


def _trimmed(draw: Flaw) -> Flaw:
    """The same flaw, its coverage cut back to where the picture changed."""

    @wraps(draw)
    def drawn(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
        image, cover = draw(canvas, rng)
        near = blur(change(canvas.image, image), canvas.unit)
        return image, cover * (near > LEAST_CHANGE)

    return drawn


def draw_flaw(name: str, canvas: Canvas, rng: Rng, *, seen: float = 0.018) -> tuple[Rgb, Field] | None:
    """Draw flaw `name`; None if it came out invisible, too small or too large.

    A flaw is seen where its mean change beats `seen` of full scale plus 0.6 of the part's roughness. A large
    one is also seen by a step of its mean or of its roughness, as an eye averages over an area. What lies on
    the part or sticks out of it (a hair, a burr, loose fibres) may reach beyond the part.
    """
    image, cover = FLAWS[name](canvas, rng)
    image = np.clip(image, 0, 1).astype(np.float32)
    inside = cover > COVERED_FROM
    area = int(inside.sum())
    if area < LEAST_AREA or area > LARGEST_SHARE * cover.size:
        return None
    before = canvas.grey
    step = float(change(canvas.image[inside], image[inside]).mean())
    rough = float(np.abs(np.diff(before, axis=1)).mean() + np.abs(np.diff(before, axis=0)).mean()) / 2
    if step >= seen + 0.6 * rough:
        return image, cover
    large = area > AREA_SEEN_AS_ONE * canvas.unit**2
    return (image, cover) if large and _steps(before, _luminance(image), inside, seen, rough) else None


def _steps(before: Field, after: Field, inside: np.ndarray, seen: float, rough: float) -> bool:
    """Whether an area's mean or its roughness (either axis) changed enough to be seen as an area."""
    busy = float(before[inside].std())
    if abs(float((after - before)[inside].mean())) >= 0.8 * seen + 0.12 * rough + 0.08 * busy:
        return True
    for axis in (0, 1):
        at = inside[1:] if axis == 0 else inside[:, 1:]
        if not at.any():  # all of it lies in the first line of a tiny picture
            continue
        was = float(np.abs(np.diff(before, axis=axis))[at].mean())
        now = float(np.abs(np.diff(after, axis=axis))[at].mean())
        if abs(now - was) >= 0.4 * seen + 0.05 * busy and not 0.7 < (now + 1e-3) / (was + 1e-3) < 1.4:
            return True
    return False


def place(canvas: Canvas, rng: Rng, rim: float = 0.15) -> tuple[float, float]:
    """A place on the part; near its rim with probability `rim`."""
    h, w = canvas.size
    if rng.random() < rim:
        y, x, inward = rim_place(canvas, rng)
        step = scaled(canvas, rng, 2, 12)
        y, x = y + step * np.sin(inward), x + step * np.cos(inward)
        return float(np.clip(y, 0, h - 1)), float(np.clip(x, 0, w - 1))
    for _ in range(8):
        y, x = rng.uniform(0.03, 0.97) * h, rng.uniform(0.03, 0.97) * w
        if canvas.support[int(y), int(x)] > 0.9:
            return float(y), float(x)
    inside = np.argwhere(canvas.support > 0.5)
    if len(inside) == 0:
        return h / 2, w / 2
    y, x = inside[rng.integers(len(inside))]
    return float(y), float(x)


def rim_place(canvas: Canvas, rng: Rng, corner: float = 0.0) -> tuple[float, float, float]:
    """(y, x, direction inward) on the edge of the part: its outline, or the border of the picture where the
    part fills it; with probability `corner` the sharpest of a handful of places.
    """
    h, w = canvas.size
    keen = rng.random() < corner
    rim = np.argwhere((canvas.support > 0.2) & (canvas.support < 0.8))
    if len(rim) <= 12:
        return _border_place(h, w, rng, keen)
    picks = rim[rng.integers(len(rim), size=40 if keen else 1)]
    reach = max(3, round(6 * canvas.unit))
    if keen:  # where the least of the part is near
        near = uniform_filter(canvas.support, 2 * reach + 1, mode="nearest")
        picks = picks[[int(near[picks[:, 0], picks[:, 1]].argmin())]]
    y, x = (int(v) for v in picks[0])
    window = canvas.support[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1]
    wy, wx = np.arange(window.shape[0]) - min(y, reach), np.arange(window.shape[1]) - min(x, reach)
    return float(y), float(x), float(np.arctan2(float(wy @ window.sum(1)), float(window.sum(0) @ wx)))


def _border_place(h: int, w: int, rng: Rng, corner: bool) -> tuple[float, float, float]:
    """(y, x, direction inward) on the border of the picture, or in one of its corners."""
    if corner:
        y, x = (h - 1.0) * int(rng.integers(2)), (w - 1.0) * int(rng.integers(2))
        return y, x, float(np.arctan2(h / 2 - y, w / 2 - x))
    along = rng.uniform(0.05, 0.95)
    sides = (
        (0.0, along * w, np.pi / 2),
        (h - 1.0, along * w, -np.pi / 2),
        (along * h, 0.0, 0.0),
        (along * h, w - 1.0, np.pi),
    )
    return sides[rng.integers(4)]


def scaled(canvas: Canvas, rng: Rng, low: float, high: float) -> float:
    """Log-uniform size in pixels between `low` and `high` units."""
    return log_uniform(rng, low, high) * canvas.unit


def spread(
    canvas: Canvas,
    rng: Rng,
    cy: float,
    cx: float,
    sizes: tuple[float, float],
    *,
    wobble: float,
    longest: float,
    soft: float = 1.2,
) -> Field:
    """Coverage of a blob of a size drawn between `sizes`, in units, up to `longest` times as long as wide."""
    h, w = canvas.size
    radius = scaled(canvas, rng, *sizes)
    return blob(rng, h, w, cy, cx, radius, wobble=wobble, aspect=rng.uniform(1, longest), soft=soft)


def polarity(rng: Rng, dark: float = 0.5) -> float:
    """-1 with probability `dark`, else 1."""
    return -1.0 if rng.random() < dark else 1.0


def add_light(canvas: Canvas, cover: Field, amount: Field | float) -> Rgb:
    """Add `amount` (luminance) where `cover` is."""
    return canvas.image + (cover * amount)[..., None]


def multiply(canvas: Canvas, cover: Field, colour: np.ndarray, keep: float = 1.0) -> Rgb:
    """Multiply by `colour` (3,) where `cover` is; `keep` < 1 also flattens the texture below."""
    c = cover[..., None]
    under = canvas.image
    if keep < 1:
        under = under.mean((0, 1), keepdims=True) * np.float32(1 - keep) + under * np.float32(keep)
    return canvas.image * (1 - c) + under * colour.astype(np.float32) * c


def random_colour(rng: Rng, low: float = 0.0, high: float = 1.0, chroma: float = 0.15) -> np.ndarray:
    """A colour (3,) about a level between `low` and `high`, its channels apart by `chroma`."""
    return np.clip(rng.uniform(low, high) + rng.normal(0, chroma, 3), 0, 1).astype(np.float32)


def contrasting(canvas: Canvas, rng: Rng, least: float = 0.15) -> np.ndarray:
    """A colour that stands off the part's mean by at least `least` of full scale."""
    mean = canvas.colour
    level = float(mean.mean())
    side = 1.0 if level < 0.3 else -1.0 if level > 0.7 else polarity(rng)
    return np.clip(mean + side * rng.uniform(least, 0.6) + rng.normal(0, 0.06, 3), 0, 1).astype(np.float32)


def patchy(rng: Rng, canvas: Canvas, cover: Field, amount: float) -> Field:
    """Break a cover into patches: `amount` of its area goes."""
    h, w = canvas.size
    field = blur(noise(rng, h, w, 1.5), 0.6 * canvas.unit)
    level = np.quantile(field, amount)
    return cover * np.clip((field - np.float32(level)) * 4 + 0.5, 0, 1)


def coarseness(canvas: Canvas) -> float:
    """Deviation of the part's fine texture: what a thin thing must stand out from."""
    inside = canvas.support > 0.5
    return float(canvas.grey[inside].std()) if inside.any() else 0.0
