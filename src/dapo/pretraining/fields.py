"""Random fields and shapes every generated image is made of.

In: a seeded `numpy` generator and a size. Out: float32 fields (h, w). Nothing here knows of surfaces or
flaws. Costs are for 112 px on one core: a cropped noise about 10 us, a smooth field 60 us, strokes 150 us.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Field = NDArray[np.float32]  # (h, w)
Rgb = NDArray[np.float32]  # (h, w, 3) or one colour (3,), in [0, 1]
Path = list[tuple[float, float]]  # a polyline of (x, y) points in pixels
Rng = np.random.Generator

REFERENCE_SIDE = 112  # px, the shorter side of the picture that sizes are stated for

BANK_SIDE = 512  # px, side of one banked noise; crops are at most this large, larger sizes tile it
BANK_COUNT = 6  # noises kept per (spectrum, stretch)
SAME_GRAIN = 0.03  # of a pixel: a grain this close to one pixel is left as it is


def unit(h: int, w: int) -> float:
    """One pixel of a picture of REFERENCE_SIDE, in pixels of this one."""
    return min(h, w) / REFERENCE_SIDE


def log_uniform(rng: Rng, low: float, high: float) -> float:
    """A number between `low` and `high`, every octave as likely as the next."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


@lru_cache(maxsize=32)
def _bank(beta: float, stretch: float) -> Field:
    """(BANK_COUNT, side, side) periodic noises of spectrum 1/f^beta, zero mean, unit deviation.

    `stretch` > 1 draws the grain out along x by that factor. Its seed is fixed: it is a table, not a draw.
    """
    rng = np.random.default_rng([20_26, int(beta * 100), int(stretch * 100)])
    fy = np.fft.fftfreq(BANK_SIDE)[:, None]
    fx = np.fft.rfftfreq(BANK_SIDE)[None, :]
    radius = np.sqrt((fx * stretch) ** 2 + fy**2)
    radius[0, 0] = 1.0
    amplitude = radius ** (-beta / 2.0)
    amplitude[radius < 2.0 / BANK_SIDE] = 0.0
    out = np.empty((BANK_COUNT, BANK_SIDE, BANK_SIDE), np.float32)
    for i in range(BANK_COUNT):
        white = np.fft.rfft2(rng.standard_normal((BANK_SIDE, BANK_SIDE)))
        noise = np.fft.irfft2(white * amplitude, s=(BANK_SIDE, BANK_SIDE))
        out[i] = (noise - noise.mean()) / noise.std()
    return out


def noise(
    rng: Rng,
    h: int,
    w: int,
    beta: float = 1.0,
    stretch: float = 1.0,
    upright: bool = False,
    grain: float | None = None,
) -> Field:
    """A crop of banked noise, unit deviation over the bank; grain along x, or along y if `upright`.

    Its finest grain is `grain` pixels wide: by default `unit(h, w)`, so that a texture keeps its share of the
    picture at every size.
    """
    if upright:
        return noise(rng, w, h, beta, stretch, grain=grain).T
    grain = unit(h, w) if grain is None else grain
    if abs(grain - 1) > SAME_GRAIN:
        coarse = noise(rng, max(1, round(h / grain)), max(1, round(w / grain)), beta, stretch, grain=1.0)
        return enlarge(np.ascontiguousarray(coarse), h, w)
    bank = _bank(beta, stretch)[rng.integers(BANK_COUNT)]
    y, x = (int(v) for v in rng.integers(BANK_SIDE, size=2))
    if y + h <= BANK_SIDE and x + w <= BANK_SIDE:
        crop = bank[y : y + h, x : x + w]
    else:
        crop = bank[np.ix_(np.arange(y, y + h) % BANK_SIDE, np.arange(x, x + w) % BANK_SIDE)]
    return crop[:: -1 if rng.random() < 0.5 else 1, :: -1 if rng.random() < 0.5 else 1]


def smooth(rng: Rng, h: int, w: int, cells: int = 4) -> Field:
    """Smooth random field in about [-1, 1]: a coarse uniform grid of `cells` per side, enlarged
    bicubically.
    """
    cells = max(2, cells)
    coarse = rng.uniform(-1.0, 1.0, (cells, cells)).astype(np.float32)
    return enlarge(coarse, h, w)


def enlarge(field: Field, h: int, w: int) -> Field:
    """Bicubic resize of one float field to (h, w)."""
    return np.asarray(Image.fromarray(field, mode=None).resize((w, h), Image.Resampling.BICUBIC), np.float32)


@lru_cache(maxsize=16)
def grid(h: int, w: int) -> tuple[Field, Field]:
    """Pixel-centre coordinates (y, x), each (h, w). Cached: do not write into them."""
    y, x = np.mgrid[0:h, 0:w].astype(np.float32)
    y.flags.writeable = x.flags.writeable = False
    return y, x


def ramp(distance: Field, soft: float = 1.0) -> Field:
    """Signed distance in pixels (negative inside) -> coverage in [0, 1], an edge `soft` pixels wide."""
    return np.clip(0.5 - distance / max(soft, 1e-3), 0.0, 1.0)


def rounded(a: Field, b: Field, corner: float) -> Field:
    """Signed distance to where both `a` and `b` are below `corner`, its corner round with that radius.

    `a` and `b` are the signed distances of two half planes at right angles, each moved inward by `corner` px.
    """
    outside = np.sqrt(np.maximum(a, 0) ** 2 + np.maximum(b, 0) ** 2)
    return outside + np.minimum(np.maximum(a, b), 0) - np.float32(corner)


def folded(u: Field, pitch: float) -> Field:
    """Coordinate within a repeat of `pitch` pixels, zero in its middle."""
    return (u + np.float32(pitch / 2)) % np.float32(pitch) - np.float32(pitch / 2)


def rotated(h: int, w: int, cy: float, cx: float, angle: float) -> tuple[Field, Field]:
    """Coordinates (v, u) about (cy, cx), turned by `angle` radians."""
    y, x = grid(h, w)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dy, dx = y - np.float32(cy), x - np.float32(cx)
    return dy * c - dx * s, dx * c + dy * s


def blob(
    rng: Rng,
    h: int,
    w: int,
    cy: float,
    cx: float,
    radius: float,
    *,
    wobble: float = 0.25,
    aspect: float = 1.0,
    angle: float | None = None,
    soft: float = 1.2,
) -> Field:
    """Coverage of a star-shaped blob: radius(theta) = radius * (1 + harmonics), stretched by `aspect` along
    u.
    """
    v, u = rotated(h, w, cy, cx, rng.uniform(0, np.pi) if angle is None else angle)
    u = u / np.float32(aspect)
    distance = np.sqrt(u * u + v * v)
    edge: Field | float = radius
    if wobble > 0:
        theta = np.arctan2(v, u)
        edge = np.full_like(theta, radius)
        for k in range(2, 6):
            a = radius * wobble * rng.normal() / k
            edge += np.float32(a) * np.cos(k * theta + np.float32(rng.uniform(0, 2 * np.pi)))
    return ramp(distance - edge, soft)


def walk(
    rng: Rng,
    cy: float,
    cx: float,
    length: float,
    *,
    turn: float = 0.15,
    steps: int = 14,
    angle: float | None = None,
) -> Path:
    """A path of (x, y) points through (cx, cy) of about `length` px whose heading drifts by `turn` radians
    a step.
    """
    heading = rng.uniform(0, 2 * np.pi) if angle is None else angle
    step = length / steps
    headings = heading + np.cumsum(rng.normal(0.0, turn, steps))
    dx, dy = np.cos(headings) * step, np.sin(headings) * step
    x, y = np.concatenate([[0], np.cumsum(dx)]), np.concatenate([[0], np.cumsum(dy)])
    return centred(x, y, cy, cx)


def centred(x: NDArray[np.float64], y: NDArray[np.float64], cy: float, cx: float) -> Path:
    """The path through these points, moved so that their mean is (cx, cy)."""
    return list(zip((x - x.mean() + cx).tolist(), (y - y.mean() + cy).tolist(), strict=True))


def strokes(
    h: int,
    w: int,
    paths: Sequence[Sequence[tuple[float, float]]],
    widths: Sequence[float] | NDArray[np.float64],
) -> Field:
    """Antialiased coverage of polylines; widths in pixels, below one pixel the line is thin and faint."""
    k = 3  # supersampling
    canvas = Image.new("L", (w * k, h * k))
    pen = ImageDraw.Draw(canvas)
    for path, width in zip(paths, widths, strict=True):
        scaled = [(x * k + 1, y * k + 1) for x, y in path]
        pen.line(scaled, fill=255, width=max(1, round(width * k)), joint="curve" if width > 1.5 else None)
    small = canvas.reduce(k)
    return np.asarray(small, np.float32) / np.float32(255)


def polygon(h: int, w: int, points: Sequence[tuple[float, float]]) -> Field:
    """Antialiased coverage of a filled polygon of (x, y) points."""
    k = 3
    canvas = Image.new("L", (w * k, h * k))
    ImageDraw.Draw(canvas).polygon([(x * k, y * k) for x, y in points], fill=255)
    return np.asarray(canvas.reduce(k), np.float32) / np.float32(255)


def relief(height: Field, light: float, gain: float = 1.0) -> Field:
    """Lambert-like shading of a height field lit from direction `light` (radians): the slope toward the
    light.

    Heights are in pixels. One that is not, such as a coverage, needs `unit(h, w)` in its `gain`: its flanks
    grow wider with the picture, and less steep.
    """
    gy = np.empty_like(height)
    gx = np.empty_like(height)
    gy[1:-1] = (height[2:] - height[:-2]) / 2
    gx[:, 1:-1] = (height[:, 2:] - height[:, :-2]) / 2
    gy[0] = gy[-1] = 0
    gx[:, 0] = gx[:, -1] = 0
    return np.float32(gain) * (gx * np.float32(np.cos(light)) + gy * np.float32(np.sin(light)))


def blend(under: Rgb, over: NDArray[np.floating] | np.float32, cover: Field) -> Rgb:
    """`over`, a picture, a colour or a tone, laid over `under` where `cover` (h, w) is: alpha compositing."""
    return under + (np.asarray(over, np.float32) - under) * cover[..., None]


def blur(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Gaussian blur of (h, w) or (h, w, 3), reflecting at the borders."""
    from scipy.ndimage import gaussian_filter1d

    if sigma <= 0.05:
        return image
    out = gaussian_filter1d(image, sigma, axis=0, mode="reflect", truncate=2.5)
    return np.asarray(gaussian_filter1d(out, sigma, axis=1, mode="reflect", truncate=2.5), np.float32)


def shifted(field: Field, down: int, right: int) -> Field:
    """The field moved by whole pixels; nothing comes in from outside, and nothing round the border."""
    h, w = field.shape
    out = np.zeros_like(field)
    y, x = slice(max(0, down), h + min(0, down)), slice(max(0, right), w + min(0, right))
    out[y, x] = field[max(0, -down) : h - max(0, down), max(0, -right) : w - max(0, right)]
    return out
