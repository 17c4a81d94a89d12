"""Marks: what is written, stamped, drilled, embossed or left behind on a good part. None of it is a defect.

In: a seeded generator and the picture of a surface (h, w, 3). Out: the picture with the mark. A detector that
flags a part number, a chalk figure or a dried drop of coolant is useless on a line.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from dapo.pretraining.fields import (
    Field,
    Path,
    Rgb,
    Rng,
    blend,
    blur,
    enlarge,
    folded,
    grid,
    log_uniform,
    noise,
    ramp,
    relief,
    rotated,
    strokes,
    unit,
    walk,
)
from dapo.pretraining.lettering import CAPITALS, code, inscription, put
from dapo.pretraining.materials import wander

Mark = Callable[[Rng, Rgb], Rgb]

ONE_ROW = 1e6  # px, a pitch so wide that only one row of holes is in the picture


def _dark(rng: Rng, image: Rgb, cover: Field, low: float, high: float) -> Rgb:
    """Multiply by one tone where `cover` is: ink, a dried residue."""
    return image * (1 - np.float32(rng.uniform(low, high)) * cover[..., None])


def _sunk(rng: Rng, image: Rgb, cover: Field, gain: float) -> Rgb:
    """Press `cover` into the surface: shaded flanks, a floor a little darker or brighter."""
    gain = gain * unit(*cover.shape)  # a coverage is not a height in pixels
    shade = relief(cover, rng.uniform(0, 2 * np.pi), gain) - np.float32(rng.uniform(-0.05, 0.12)) * cover
    return np.clip(image + shade[..., None], 0, 1)


def number(rng: Rng, image: Rgb) -> Rgb:
    """A stamped, engraved, etched or printed number."""
    h, w = image.shape[:2]
    ink = inscription(rng, h, w, code(rng), unit(h, w) * log_uniform(rng, 9, 30))
    if rng.random() < 0.5:
        return _sunk(rng, image, blur(ink, 0.6 * unit(h, w)), rng.uniform(0.15, 0.7))
    tone = np.float32(rng.choice([rng.uniform(0.0, 0.3), rng.uniform(0.7, 1.0)]))
    return blend(image, tone, np.float32(rng.uniform(0.25, 0.95)) * ink)


def figure(rng: Rng, image: Rgb) -> Rgb:
    """A figure in chalk or marker: thick soft strokes with gaps where the stick jumped, often faint."""
    h, w = image.shape[:2]
    u = unit(h, w)
    text = code(rng)[: int(rng.integers(1, 4))]
    ink = inscription(rng, h, w, text, u * rng.uniform(16, 46), rng.choice([0, 90, 180]) + rng.normal(0, 12))
    ink = blur(ink, u * rng.uniform(0.4, 1.1))
    rubbed = np.clip(rng.uniform(0.3, 1.0) + np.float32(rng.uniform(0.1, 0.5)) * noise(rng, h, w, 1.0), 0, 1)
    cover = ink * rubbed
    amount = np.float32(log_uniform(rng, 0.05, 0.5))
    if rng.random() < 0.6:
        return blend(image, np.float32(rng.uniform(0.75, 1.0)), amount * cover)
    return image * (1 - amount * cover[..., None])


def squiggle(rng: Rng, image: Rgb) -> Rgb:
    """Faint thin dark lines, loops and circles: dried coolant, pencil; at most 8 % darker."""
    h, w = image.shape[:2]
    u = unit(h, w)
    paths: list[Path] = []
    for _ in range(int(rng.integers(1, 6))):
        cy, cx = rng.uniform(0, h), rng.uniform(0, w)
        if rng.random() < 0.3:
            r, first = u * rng.uniform(4, 22), rng.uniform(0, 6.28)
            turn = np.linspace(first, first + rng.uniform(3.5, 6.3), 24)
            squeeze = rng.uniform(0.7, 1.2)
            paths.append(
                [(float(cx + r * np.cos(t)), float(cy + r * squeeze * np.sin(t))) for t in turn.tolist()]
            )
        else:
            length = u * rng.uniform(8, 60)
            paths.append(
                walk(rng, cy, cx, length, turn=rng.uniform(0.2, 0.7), steps=int(rng.integers(10, 26)))
            )
    ink = strokes(h, w, paths, rng.uniform(0.5, 1.2, len(paths)) * u)
    broken = np.clip(0.7 + np.float32(0.6) * noise(rng, h, w, 1.5), 0, 1)
    return _dark(rng, image, blur(ink, 0.3 * u) * broken, 0.03, 0.08)


def embossing(rng: Rng, image: Rgb) -> Rgb:
    """Straight embossed or scribed lines: a frame, parallel ribs, one step across the part."""
    h, w = image.shape[:2]
    u = unit(h, w)
    y, x = grid(h, w)
    across = y if rng.random() < 0.5 else x
    cover = np.zeros((h, w), np.float32)
    length = h if across is y else w
    first, width, pitch = rng.uniform(0.05, 0.8) * length, u * rng.uniform(0.8, 4), u * rng.uniform(5, 20)
    for k in range(int(rng.integers(1, 5))):
        cover = np.maximum(
            cover, ramp(np.abs(across - np.float32(first + k * pitch)) - np.float32(width / 2), u)
        )
    return _sunk(rng, image, cover, rng.uniform(0.08, 0.5))


def holes(rng: Rng, image: Rgb) -> Rgb:
    """Drilled, tapped or punched holes in a regular row or grid, countersunk or plain."""
    h, w = image.shape[:2]
    u = unit(h, w)
    pitch, radius = u * rng.uniform(12, 40), u * rng.uniform(1.2, 4.5)
    v, x = rotated(
        h, w, rng.uniform(0, h), rng.uniform(0, w), rng.choice([0.0, np.pi / 2, rng.uniform(0, 3.14)])
    )
    dv = folded(v, pitch if rng.random() < 0.5 else ONE_ROW)
    dx = folded(x, pitch)
    r = np.sqrt(dv * dv + dx * dx)
    out = image
    if rng.random() < 0.4:
        ring = ramp(np.abs(r - np.float32(radius * 1.35)) - np.float32(radius * 0.3), u)
        out = np.clip(out + np.float32(rng.uniform(-0.2, 0.3)) * ring[..., None], 0, 1)
    bottom = np.float32(rng.choice([rng.uniform(0, 0.15), rng.uniform(0.85, 1)], p=[0.85, 0.15]))
    return blend(out, bottom, ramp(r - np.float32(radius), u))


def weld(rng: Rng, image: Rgb) -> Rgb:
    """A weld seam across the part: a raised bead with its ripples, tempered edges."""
    h, w = image.shape[:2]
    u = unit(h, w)
    v, x = rotated(h, w, h * rng.uniform(0.2, 0.8), w * rng.uniform(0.2, 0.8), rng.choice([0.0, np.pi / 2]))
    v = v + np.float32(u * 0.6) * noise(rng, h, w, 2.5)
    half = u * rng.uniform(2.5, 8)
    bow = x + np.float32(rng.uniform(0.2, 0.6)) * v * v / np.float32(half)
    ripple = np.sin(bow * np.float32(2 * np.pi / (u * rng.uniform(2.5, 6))))
    bead = np.sqrt(np.clip(1 - (v / np.float32(half)) ** 2, 0, 1))
    side = np.float32(rng.uniform(-0.2, 0.2)) * v / np.float32(half) * (bead > 0)
    heat = np.exp(-np.abs(v) / np.float32(half * rng.uniform(1, 2.5)))
    amount = np.float32(rng.uniform(-0.15, 0.2)) * bead + np.float32(rng.uniform(0.03, 0.14)) * ripple * bead
    return np.clip(_dark(rng, image, heat, 0.0, 0.35) + (amount + side)[..., None], 0, 1)


def logo(rng: Rng, image: Rgb) -> Rgb:
    """A printed or moulded logo: a ring, a bar or a shield with letters."""
    h, w = image.shape[:2]
    u = unit(h, w)
    letters = "".join(CAPITALS[i] for i in rng.integers(26, size=rng.integers(1, 4)))
    own = np.random.default_rng(rng.integers(2**32))
    ink = inscription(own, h, w, letters, u * 14, 0.0)
    rows, cols = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    if len(rows) and len(cols):
        cy, cx = (rows[0] + rows[-1]) / 2, (cols[0] + cols[-1]) / 2
        v, x = rotated(h, w, cy, cx, 0.0)
        reach = (cols[-1] - cols[0]) / 2 + 5 * u
        power = rng.choice([2.0, 8.0])
        r = (np.abs(v * np.float32(rng.uniform(1, 1.5))) ** power + np.abs(x) ** power) ** (1 / power)
        ring = ramp(np.abs(r - np.float32(reach)) - np.float32(u * rng.uniform(0.6, 1.6)), u)
        ink = np.maximum(ink, ring.astype(np.float32)) if rng.random() < 0.7 else ramp(r - reach, u) - ink
        ink = np.clip(ink, 0, 1).astype(np.float32)
    if rng.random() < 0.35:
        return _sunk(rng, image, blur(ink, 0.6 * u), rng.uniform(0.15, 0.6))
    colour = rng.uniform(0, 1, 3).astype(np.float32)
    return blend(image, colour, np.float32(rng.uniform(0.4, 1.0)) * ink)


def matrix_code(rng: Rng, image: Rgb) -> Rgb:
    """A data matrix code, lasered or printed: two solid sides, two dashed ones, cells between."""
    h, w = image.shape[:2]
    u = unit(h, w)
    count, cell = int(rng.integers(10, 19)), max(1, round(u * rng.uniform(0.9, 2.2)))
    bits = (rng.random((count, count)) < 0.5).astype(np.float32)
    bits[:, 0] = bits[-1] = 1
    bits[0, ::2], bits[0, 1::2] = 1, 0
    bits[::2, -1], bits[1::2, -1] = 0, 1
    stamp = np.kron(bits, np.ones((cell, cell), np.float32))
    ink, quiet = np.zeros((h, w), np.float32), np.zeros((h, w), np.float32)
    y, x = int(rng.uniform(0, 0.75) * h), int(rng.uniform(0, 0.75) * w)
    put(ink, stamp, y, x)
    put(quiet, np.ones((stamp.shape[0] + 2 * cell,) * 2, np.float32), y - cell, x - cell)
    dark = rng.random() < 0.7
    out = image
    if rng.random() < 0.5:
        out = blend(out, np.float32(0.9 if dark else 0.1), np.float32(0.8) * quiet)
    tone = np.float32(rng.uniform(0, 0.25) if dark else rng.uniform(0.75, 1.0))
    return blend(out, tone, np.float32(rng.uniform(0.4, 1.0)) * ink)


def dots(rng: Rng, image: Rgb) -> Rgb:
    """A regular row of equal dots or dashes: peened marks, spot welds, stitches of a sewing machine."""
    h, w = image.shape[:2]
    u = unit(h, w)
    v, x = rotated(
        h, w, rng.uniform(0.1, 0.9) * h, rng.uniform(0.1, 0.9) * w, rng.choice([0, np.pi / 2, 0.1])
    )
    pitch, r = u * rng.uniform(4, 14), u * rng.uniform(0.7, 2.2)
    dx = folded(x, pitch)
    long = np.float32(pitch * 0.3) if rng.random() < 0.3 else np.float32(0)
    cover = ramp(np.sqrt(np.maximum(np.abs(dx) - long, 0) ** 2 + v * v) - np.float32(r), u)
    if rng.random() < 0.5:
        return _sunk(rng, image, cover, rng.uniform(0.1, 0.5))
    tone = np.float32(rng.choice([rng.uniform(0, 0.3), rng.uniform(0.7, 1)]))
    return blend(image, tone, np.float32(rng.uniform(0.2, 0.9)) * cover)


def glints(rng: Rng, image: Rgb, distance: Field) -> Rgb:
    """Specular highlights along the rim of a part, saturated where the rim faces the lamp."""
    h, w = distance.shape
    u = unit(h, w)
    thin = np.exp(
        -(((distance + np.float32(u * rng.uniform(0.5, 4))) / np.float32(u * rng.uniform(0.5, 1.4))) ** 2)
    )
    facing = np.clip(enlarge(rng.normal(-0.1, 1, (5, 5)).astype(np.float32), h, w), 0, 1)
    return np.clip(image + (np.float32(rng.uniform(0.3, 1.2)) * thin * facing)[..., None], 0, 1)


MARKS: tuple[tuple[Mark, float], ...] = (
    (number, 0.18),
    (figure, 0.2),
    (squiggle, 0.2),
    (embossing, 0.08),
    (holes, 0.08),
    (weld, 0.05),
    (logo, 0.08),
    (matrix_code, 0.06),
    (dots, 0.07),
)
_SHARES = np.array([share for _, share in MARKS]) / sum(share for _, share in MARKS)


def draw_mark(rng: Rng, image: Rgb) -> Rgb:
    """One normal mark of any kind on `image`."""
    mark, _ = MARKS[rng.choice(len(MARKS), p=_SHARES)]
    return mark(rng, image).astype(np.float32)


def bands(rng: Rng, inward: Field, scale: float, upright: bool) -> Field:
    """Gain (h, w) of the bevels along one side, `inward` pixels from its edge: one to three parallel bands of
    own brightness and streaks of their own along it, thin lines between them. `upright`: the side runs
    along y.
    """
    h, w = inward.shape
    gain = np.ones((h, w), np.float32)
    streak = np.float32(rng.uniform(0.0, 0.1)) * noise(rng, h, w, 0.5, 24.0, upright)
    start = rng.uniform(0, 1.5) * scale
    fade = wander(rng, h if upright else w, 5)
    fade = fade[:, None] if upright else fade[None, :]
    for _ in range(int(rng.integers(1, 4))):
        width = scale * rng.uniform(1.2, 6.5)
        inside = np.clip(inward - np.float32(start), 0, 1) * np.clip(np.float32(start + width) - inward, 0, 1)
        gain = gain + inside * (np.float32(rng.normal(0, 0.28)) + streak)
        line = np.exp(-(((inward - np.float32(start + width)) / np.float32(0.6 * scale)) ** 2))
        gain = gain + np.float32(rng.normal(0, 0.4)) * fade * line
        start += width
    return np.clip(gain, 0.2, 2.0)
