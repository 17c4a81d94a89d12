"""Normal surfaces: what a part is made of, before anything is wrong with it.

In: a seeded generator and a size. Out: `Surface` with reflectance (h, w, 3) float32 in [0, 1], a name for
captions and the direction of its grain. Procedural families, and crops of real textures from a folder
(`Textures`). Regular holes, seams, pores, grain and markings belong to a normal surface: they are the hard
negatives a detector must learn to leave alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dapo.pretraining.fields import Field, Rng, blur, enlarge, grid, noise, ramp, rotated, smooth, strokes

Rgb = NDArray[np.float32]

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


@dataclass(frozen=True)
class Surface:
    """Reflectance `image` (h, w, 3) in [0, 1]; `name` for captions; `upright`: the grain runs along y."""

    image: Rgb
    name: str
    upright: bool


Family = Callable[[Rng, int, int], Field | Rgb]
FAMILIES: dict[str, Family] = {}


def family(name: str) -> Callable[[Family], Family]:
    """Register a procedural family: (rng, h, w) -> luminance (h, w) about 0 +- 1, or an image (h, w, 3) in
    [0, 1].
    """

    def keep(draw: Family) -> Family:
        FAMILIES[name] = draw
        return draw

    return keep


@family("painted metal")
def _painted(rng: Rng, h: int, w: int) -> Field:
    return rng.uniform(0.05, 0.5) * noise(rng, h, w, 0.3) + rng.uniform(0, 0.8) * smooth(rng, h, w, 3)


@family("plastic")
def _plastic(rng: Rng, h: int, w: int) -> Field:
    return rng.uniform(0.02, 0.4) * noise(rng, h, w, 1.0) + rng.uniform(0, 0.4) * smooth(rng, h, w, 2)


@family("brushed metal")
def _brushed(rng: Rng, h: int, w: int) -> Field:
    fine = noise(rng, h, w, 0.5, 24.0)
    return fine * rng.uniform(0.4, 1.0) + rng.uniform(0, 0.6) * noise(rng, h, w, 1.5, 24.0)


@family("ground metal")
def _ground(rng: Rng, h: int, w: int) -> Field:
    """Ground or rolled: streaks along the whole length, fine noise across, bright lines here and there."""
    profile = enlarge(noise(rng, h, 4, rng.choice([0.5, 1.0, 1.5])).copy(), h, w)
    lines = np.zeros((h, 1), np.float32)
    for _ in range(rng.integers(0, 7)):
        lines[rng.integers(h)] += rng.uniform(0.4, 2.2) * rng.choice([-1, 1, 1])
    streaks = enlarge(rng.normal(0, 1, (h, max(2, w // 24))).astype(np.float32), h, w)
    field = profile * rng.uniform(0.3, 1.0) + streaks * rng.uniform(0.0, 0.6) + lines * (0.6 + 0.4 * streaks)
    return field + rng.uniform(0.1, 0.5) * noise(rng, h, w, 0.3)


@family("rolled steel")
def _rolled(rng: Rng, h: int, w: int) -> Field:
    cloud = noise(rng, h, w, 2.0, rng.choice([1.0, 6.0]))
    return rng.uniform(0.2, 0.6) * noise(rng, h, w, 0.3) + rng.uniform(0.1, 0.7) * cloud


@family("cast metal")
def _cast(rng: Rng, h: int, w: int) -> Field:
    return rng.uniform(0.3, 1.0) * noise(rng, h, w, 1.0) + rng.uniform(0.1, 0.6) * blur(
        noise(rng, h, w, 0.3), 0.8
    )


@family("concrete")
def _concrete(rng: Rng, h: int, w: int) -> Field:
    field = rng.uniform(0.3, 0.8) * noise(rng, h, w, 1.5) + rng.uniform(0.1, 0.5) * noise(rng, h, w, 0.3)
    pores = noise(rng, h, w, 1.0) > rng.uniform(2.0, 3.0)
    return np.where(pores, field - rng.uniform(0.3, 1.2), field)


@family("stone")
def _stone(rng: Rng, h: int, w: int) -> Rgb:
    grain = blur(noise(rng, h, w, 0.3), rng.uniform(0.4, 1.6))
    grain = grain / (grain.std() + 1e-6)
    palette = np.clip(rng.uniform(0.25, 0.85) + rng.normal(0, 0.12, (4, 3)), 0.05, 0.95).astype(np.float32)
    classes = np.digitize(grain + 0.3 * noise(rng, h, w, 2.0), [-0.9, 0.2, 1.1])
    return palette[classes]


@family("marble")
def _marble(rng: Rng, h: int, w: int) -> Field:
    warp = noise(rng, h, w, 2.5) * rng.uniform(1, 3)
    v, _ = rotated(h, w, h / 2, w / 2, rng.uniform(0, np.pi))
    veins = np.sin(v * rng.uniform(0.02, 0.12) + warp)
    return -np.abs(veins) * rng.uniform(0.3, 0.9) + 0.25 * noise(rng, h, w, 1.5)


@family("wood")
def _wood(rng: Rng, h: int, w: int) -> Rgb:
    y, x = grid(h, w)
    warp = noise(rng, h, w, 2.5, 6.0) * rng.uniform(2, 9)
    rings = np.sin((y + warp + 0.02 * x * rng.normal()) * rng.uniform(0.15, 0.9))
    field = rings * rng.uniform(0.2, 0.8) + 0.5 * noise(rng, h, w, 0.5, 24.0)
    base = np.array([rng.uniform(0.35, 0.8), rng.uniform(0.25, 0.6), rng.uniform(0.12, 0.4)], np.float32)
    return np.clip(base * (1 + rng.uniform(0.05, 0.2) * field[..., None]), 0, 1)


@family("woven fabric")
def _woven(rng: Rng, h: int, w: int) -> Field:
    y, x = grid(h, w)
    period = rng.uniform(3.0, 11.0)
    jitter = 0.6 * noise(rng, h, w, 2.5)
    a = np.sin((x + jitter) * np.float32(2 * np.pi / period))
    b = np.sin((y + jitter) * np.float32(2 * np.pi / period / rng.uniform(0.7, 1.4)))
    over = np.sign(a * b) if rng.random() < 0.5 else a * b
    return rng.uniform(0.3, 0.7) * (a + b) + 0.6 * over + rng.uniform(0.1, 0.4) * noise(rng, h, w, 0.3)


@family("knitted fabric")
def _knitted(rng: Rng, h: int, w: int) -> Field:
    y, x = grid(h, w)
    p = rng.uniform(5.0, 14.0)
    wave = y + p * 0.35 * np.abs(np.sin(x * np.float32(np.pi / p))) + 0.8 * noise(rng, h, w, 2.5)
    return np.sin(wave * np.float32(2 * np.pi / (p * 0.6))) * np.abs(
        np.cos(x * np.float32(np.pi / p))
    ) + 0.25 * noise(rng, h, w, 0.3)


@family("carpet")
def _carpet(rng: Rng, h: int, w: int) -> Field:
    return blur(noise(rng, h, w, 0.3), rng.uniform(0.3, 1.0)) * 1.6 + 0.3 * noise(rng, h, w, 1.5)


@family("leather")
def _leather(rng: Rng, h: int, w: int) -> Field:
    from scipy.spatial import cKDTree

    cell = rng.uniform(4, 13)
    count = int(h * w / cell**2) + 4
    points = rng.uniform(0, 1, (count, 2)) * (h, w)
    step = 2
    y, x = np.mgrid[0:h:step, 0:w:step]
    distances, _ = cKDTree(points).query(np.stack([y.ravel(), x.ravel()], 1), k=2)
    ridge = (distances[:, 1] - distances[:, 0]).reshape(y.shape).astype(np.float32) / cell
    return enlarge(np.minimum(ridge, 0.5), h, w) * 2.4 + 0.2 * noise(rng, h, w, 1.0)


@family("tiles")
def _tiles(rng: Rng, h: int, w: int) -> Field:
    y, x = grid(h, w)
    py, px = rng.uniform(16, 70, 2)
    oy, ox = rng.uniform(0, 70, 2)
    width = rng.uniform(0.8, 2.6)
    row = np.floor((y + oy) / py)
    shift = px / 2 * (row % 2) if rng.random() < 0.4 else 0.0
    dy = np.abs((y + oy) % py - py / 2)
    dx = np.abs((x + ox + shift) % px - px / 2)
    joint = np.maximum(ramp(py / 2 - dy - width), ramp(px / 2 - dx - width))
    return rng.choice([-1.0, 1.0]) * rng.uniform(0.6, 2.0) * joint + rng.uniform(0.1, 0.5) * noise(
        rng, h, w, 1.0
    )


@family("mesh")
def _mesh(rng: Rng, h: int, w: int) -> Field:
    v, u = rotated(h, w, 0, 0, rng.choice([0.0, np.pi / 4, rng.uniform(0, np.pi)]))
    p = rng.uniform(6, 22)
    width = p * rng.uniform(0.12, 0.3)
    a = ramp(np.abs(v % p - p / 2) - width)
    b = ramp(np.abs(u % p - p / 2) - width)
    return rng.choice([-1.0, 1.0]) * rng.uniform(1.2, 2.6) * np.maximum(a, b) + 0.2 * noise(rng, h, w, 1.0)


@family("perforated sheet")
def _perforated(rng: Rng, h: int, w: int) -> Field:
    y, x = grid(h, w)
    p = rng.uniform(10, 34)
    r = p * rng.uniform(0.15, 0.36)
    oy, ox = rng.uniform(0, p, 2)
    row = np.floor((y + oy) / p)
    shift = p / 2 * (row % 2) if rng.random() < 0.5 else 0.0
    dy = (y + oy) % p - p / 2
    dx = (x + ox + shift) % p - p / 2
    holes = ramp(np.sqrt(dy * dy + dx * dx) - r)
    return -rng.uniform(1.0, 2.8) * holes + rng.uniform(0.1, 0.4) * noise(rng, h, w, 0.5)


@family("corrugated sheet")
def _corrugated(rng: Rng, h: int, w: int) -> Field:
    y, _ = grid(h, w)
    p = rng.uniform(6, 40)
    wave = np.sin((y + 0.5 * noise(rng, h, w, 2.5)) * np.float32(2 * np.pi / p))
    return rng.uniform(0.4, 1.2) * wave + rng.uniform(0.1, 0.4) * noise(rng, h, w, 0.3)


@family("glass")
def _glass(rng: Rng, h: int, w: int) -> Field:
    field = smooth(rng, h, w, int(rng.integers(2, 5))) * rng.uniform(0.2, 1.0)
    for _ in range(rng.integers(0, 3)):
        v, _u = rotated(h, w, rng.uniform(0, h), rng.uniform(0, w), rng.uniform(0, np.pi))
        field = field + rng.uniform(0.3, 1.2) * np.exp(-((v / rng.uniform(3, 20)) ** 2))
    return field + 0.05 * noise(rng, h, w, 0.3)


@family("ceramic")
def _ceramic(rng: Rng, h: int, w: int) -> Field:
    return rng.uniform(0.02, 0.25) * noise(rng, h, w, 0.5) + rng.uniform(0, 0.5) * smooth(rng, h, w, 2)


@family("paper")
def _paper(rng: Rng, h: int, w: int) -> Field:
    return rng.uniform(0.1, 0.4) * noise(rng, h, w, 0.5) + rng.uniform(0.05, 0.3) * noise(rng, h, w, 2.0)


@family("rubber")
def _rubber(rng: Rng, h: int, w: int) -> Field:
    return rng.uniform(0.2, 0.7) * blur(noise(rng, h, w, 0.3), rng.uniform(0.4, 1.2)) * 1.5


@family("printed label")
def _printed(rng: Rng, h: int, w: int) -> Field:
    """Lines of glyph-like marks, sometimes bars: print that belongs there."""
    ink = np.zeros((h, w), np.float32)
    pitch = rng.uniform(6, 16)
    paths: list[list[tuple[float, float]]] = []
    y = rng.uniform(0, pitch)
    while y < h:
        x = rng.uniform(0, 12)
        while x < w:
            size = pitch * 0.45
            if rng.random() < 0.85:
                pts = rng.uniform(0, 1, (int(rng.integers(2, 5)), 2)) * (size * 0.8, size) + (x, y)
                paths.append([(float(a), float(b)) for a, b in pts])
            x += size * rng.uniform(0.9, 1.6)
        y += pitch * (1 if rng.random() < 0.8 else 2)
    if paths:
        ink = strokes(h, w, paths, [max(0.8, pitch * 0.09)] * len(paths))
    return rng.choice([-1.0, -1.0, 1.0]) * rng.uniform(0.8, 2.5) * ink + 0.15 * noise(rng, h, w, 0.5)


@family("circuit board")
def _board(rng: Rng, h: int, w: int) -> Rgb:
    """Traces, pads and vias; bright copper on a dark board or the reverse; sometimes binary as in automated
    optical inspection.
    """
    pitch = rng.uniform(6, 18)
    width = pitch * rng.uniform(0.22, 0.5)
    paths: list[list[tuple[float, float]]] = []
    widths: list[float] = []
    lane = rng.uniform(0, pitch)
    while lane < h:
        x0, y0 = -4.0, lane
        path = [(x0, y0)]
        while x0 < w + 4:
            x0 += rng.uniform(10, 60)
            path.append((x0, y0))
            if rng.random() < 0.45:
                jump = pitch * rng.choice([-1, 1])
                x0 += abs(jump)
                y0 += jump
                path.append((x0, y0))
        if rng.random() < 0.85:
            paths.append(path)
            widths.append(width)
        lane += pitch * (1 if rng.random() < 0.8 else 2)
    copper = strokes(h, w, paths, widths) if paths else np.zeros((h, w), np.float32)
    y, x = grid(h, w)
    for _ in range(rng.integers(0, 8)):
        cy, cx, r = rng.uniform(0, h), rng.uniform(0, w), pitch * rng.uniform(0.3, 0.6)
        d = np.sqrt((y - np.float32(cy)) ** 2 + (x - np.float32(cx)) ** 2)
        copper = np.maximum(copper, ramp(d - np.float32(r)))
        if rng.random() < 0.6:
            copper = copper * (1 - ramp(d - np.float32(r * 0.45)))
    if rng.random() < 0.4:
        low, high = np.zeros(3, np.float32), np.ones(3, np.float32)
    else:
        low = np.array([rng.uniform(0, 0.25), rng.uniform(0.1, 0.45), rng.uniform(0, 0.35)], np.float32)
        high = np.array([rng.uniform(0.4, 0.95), rng.uniform(0.4, 0.85), rng.uniform(0.2, 0.6)], np.float32)
        copper = np.clip(copper * (1 + 0.06 * noise(rng, h, w, 1.0)), 0, 1)
    if rng.random() < 0.5:
        low, high = high, low
    return low + (high - low) * copper[..., None]


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
            if path.parent.name in WORN_TEXTURES:
                continue
            with Image.open(path) as picture:
                pixels = np.asarray(picture.convert("RGB"))
            pixels = _trimmed(pixels)
            if min(pixels.shape[:2]) >= 48 and not _has_cutout(pixels):
                self.items.append((path.parent.name, pixels))

    def __len__(self) -> int:
        return len(self.items)

    def draw(self, rng: Rng, h: int, w: int) -> tuple[str, Rgb]:
        """A random crop of one texture at 0.4 to 1.0 of its side, enlarged to (h, w)."""
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
        return name, image


def _trimmed(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    flat = pixels.reshape(*pixels.shape[:2], 3)
    plain = (flat.min(2) > 250) | (flat.max(2) < 5)
    rows = plain.mean(1) < 0.9
    cols = plain.mean(0) < 0.9
    if not rows.any() or not cols.any():
        return pixels
    y = np.flatnonzero(rows)
    x = np.flatnonzero(cols)
    return pixels[y[0] + 1 : y[-1], x[0] + 1 : x[-1]]


def _has_cutout(pixels: NDArray[np.uint8]) -> bool:
    return bool(((pixels.max(2) < 3).mean() > 0.15) or ((pixels.min(2) > 252).mean() > 0.5))


def draw_surface(rng: Rng, h: int, w: int, textures: Textures | None = None, share: float = 0.4) -> Surface:
    """One normal surface of size (h, w); real textures with probability `share` where there are any."""
    if textures and rng.random() < share:
        name, image = textures.draw(rng, h, w)
        gain = rng.uniform(0.5, 1.3)
        mean = image.mean((0, 1), keepdims=True)
        image = np.clip(mean + (image - mean) * np.float32(gain), 0, 1)
        return Surface(image, name, False)
    name = str(rng.choice(list(FAMILIES)))
    upright = bool(rng.random() < 0.5)
    field = FAMILIES[name](rng, w, h) if upright else FAMILIES[name](rng, h, w)
    if upright:
        field = np.swapaxes(field, 0, 1)
    if field.ndim == 2:
        field = coloured(rng, field)
    return Surface(np.ascontiguousarray(field, np.float32), name, upright)


def coloured(rng: Rng, field: Field) -> Rgb:
    """Luminance variation (h, w) -> reflectance (h, w, 3): a base colour, contrast 0.01 to 0.16 per unit of
    the field.
    """
    level = rng.uniform(0.12, 0.88)
    tint = rng.normal(0, rng.choice([0.0, 0.03, 0.12]), 3)
    base = np.clip(level + tint, 0.04, 0.96).astype(np.float32)
    contrast = np.float32(np.exp(rng.uniform(np.log(0.01), np.log(0.16))))
    return np.clip(base * (1 + field[..., None] * contrast / np.float32(max(level, 0.25))), 0, 1)
