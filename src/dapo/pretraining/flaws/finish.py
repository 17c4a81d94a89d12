"""Flaws of the finish: a ground or coated surface that is finished unevenly, or not at all.

Each function draws one visual family on a `Canvas`; see canvas.py for what goes in and out. `uneven` keeps
the finish and changes its strength; `fray` has lost it.
"""

from __future__ import annotations

import numpy as np

from dapo.pretraining.fields import (
    Field,
    Path,
    Rgb,
    Rng,
    blend,
    blob,
    blur,
    enlarge,
    noise,
    ramp,
    relief,
    rotated,
    rounded,
    smooth,
    strokes,
    walk,
)
from dapo.pretraining.flaws.canvas import (
    Canvas,
    flaw,
    place,
    polarity,
    rim_place,
    scaled,
    spread,
)

COARSE_CELLS = 12  # along the shorter side, of the light that a bare face keeps
# Outlines that stand on a border, (heights, half widths) of their own size: tongue, keystone, pear, flame.
OUTLINES = (
    ([0, 0.15, 0.6, 0.85, 0.96, 1], [1.0, 0.92, 0.8, 0.6, 0.32, 0]),
    ([0, 0.04, 0.5, 0.9, 0.97, 1], [1.25, 0.9, 0.7, 0.45, 0.3, 0]),
    ([0, 0.06, 0.18, 0.4, 0.7, 0.92, 1], [1.0, 0.7, 0.85, 1.0, 0.7, 0.35, 0]),
    ([0, 0.06, 0.2, 0.6, 1], [1.5, 0.7, 0.5, 0.3, 0]),
)


def _bounds(reach: Field, support: Field) -> tuple[float, float]:
    """First and last coordinate of `reach` where the part is."""
    inside = reach[support > 0.5]
    return (float(inside.min()), float(inside.max())) if inside.size else (0.0, float(reach.max()))


def _teeth(canvas: Canvas, rng: Rng, amount: float) -> Field:
    """How far each streak of the grind runs past the outline: one draw for every line along the grain."""
    h, w = canvas.size
    width = w if canvas.upright else h
    streaks = noise(rng, 1, width, 0.3, grain=canvas.unit)
    line = streaks * np.float32(0.7 * amount)
    return np.broadcast_to(line if canvas.upright else line.T, (h, w))


def _step_region(canvas: Canvas, rng: Rng) -> Field:
    """Where the finish differs: an end of the part up to a line across the grain, its corner, a rounded
    rectangle within it, or a wedge at a corner.
    """
    h, w = canvas.size
    along, across = canvas.along
    lo, hi = _bounds(along, canvas.support)
    left, right = _bounds(across, canvas.support)
    if rng.random() < 0.5:
        along, lo, hi = -along, -hi, -lo
    if rng.random() < 0.5:
        across, left, right = -across, -right, -left
    length, width = max(hi - lo, 8.0), max(right - left, 8.0)
    depth = length * rng.uniform(0.06, 0.55)
    slope = rng.normal(0, rng.choice([0.03, 0.15]))
    wave = smooth(rng, h, w, int(rng.integers(4, 11))) * np.float32(rng.uniform(0.3, 2.5) * canvas.unit)
    wave = wave + _teeth(canvas, rng, rng.uniform(0, 1.2) * canvas.unit)
    middle = np.float32((left + right) / 2)
    end = along - np.float32(lo + depth) + np.float32(slope) * (across - middle) + wave
    kind = rng.random()
    if kind < 0.5:
        return ramp(end, rng.uniform(1.0, 2.5))
    if kind < 0.68:
        side = across - np.float32(left + width * rng.uniform(0.25, 0.85)) + wave
        return ramp(_rounded(end, side, scaled(canvas, rng, 2, 8)), 1.5)
    if kind < 0.9:
        half_a, half_c = length * rng.uniform(0.08, 0.3), width * rng.uniform(0.12, 0.42)
        ca = rng.uniform(lo + half_a * 0.5, hi - half_a * 0.5)
        cc = rng.uniform(left + half_c * 0.6, right - half_c * 0.6)
        a = np.abs(along - np.float32(ca)) - np.float32(half_a)
        c = np.abs(across - np.float32(cc)) - np.float32(half_c)
        return ramp(_rounded(a, c, min(half_a, half_c) * rng.uniform(0.2, 0.7)) + wave, 1.5)
    run = width * rng.uniform(0.2, 0.9)
    wedge = (along - np.float32(lo)) / np.float32(depth) + (across - np.float32(left)) / np.float32(run) - 1
    return ramp(wedge * np.float32(min(depth, run)) * np.float32(0.7) + wave, 1.5)


def _rounded(a: Field, b: Field, corner: float) -> Field:
    """Intersection of two half planes (signed distances) with a rounded corner."""
    return rounded(a + np.float32(corner), b + np.float32(corner), corner)


@flaw("uneven")
def _uneven(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Unevenly finished: a step in the strength of the grind, chatter, or a patchy coat."""
    kind = rng.random()
    if kind < 0.68:
        return _finish_step(canvas, rng)
    return _waves(canvas, rng) if kind < 0.84 else _patchy_coat(canvas, rng)


def _finish_step(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """The wheel touched harder or lighter from a line on: the part's own streaks grow or fade, streaks of
    their own begin there, and the tone steps.
    """
    cover = _step_region(canvas, rng) * canvas.support
    level = float(canvas.colour.mean())
    own = _own_streaks(canvas, rng.uniform(2, 5) * canvas.unit)
    stronger = rng.random() < 0.7
    faint = rng.random() < 0.2
    gain = rng.uniform(1.5, 3.0) if stronger else rng.uniform(0.15, 0.6)
    shift = polarity(rng, 0.3 if stronger else 0.6) * (
        rng.uniform(0.07, 0.12) if faint else rng.uniform(0.1, 0.4)
    )
    light = own * np.float32((gain - 1) * (0.6 if faint else 1.0))
    if stronger:
        amount = rng.uniform(0.03, 0.06) if faint else rng.uniform(0.03, 0.14)
        light = light + _grind(rng, canvas) * np.float32(amount * max(level, 0.12))
    light = light * (canvas.support > 0.6)
    image = canvas.image * (1 + np.float32(shift) * cover)[..., None] + (light * cover)[..., None]
    return image, cover


def _own_streaks(canvas: Canvas, sigma: float) -> Field:
    """The streaks that the picture has: luminance less its blur across the grain."""
    from scipy.ndimage import gaussian_filter1d

    grey = canvas.grey
    axis = 1 if canvas.upright else 0
    return grey - np.asarray(
        gaussian_filter1d(grey, sigma, axis=axis, mode="nearest", truncate=2.5), np.float32
    )


def _grind(rng: Rng, canvas: Canvas) -> Field:
    """Streaks of grinding along the grain, about unit deviation: many faint lines, a few bright ones, whose
    strength wanders along the line.
    """
    h, w = canvas.size
    length, width = (h, w) if canvas.upright else (w, h)
    count = max(8, round(width / canvas.unit))
    grits = rng.normal(0, 1, count) + 1.5 * (rng.random(count) < 0.12) * rng.exponential(1.0, count)
    lines = blur(grits.astype(np.float32)[None, :], 0.35)
    line = enlarge(lines, 1, width)[0] if count != width else lines[0]
    line = (line - line.mean()) / (line.std() + np.float32(1e-3))
    strength = np.clip(0.8 + 0.6 * noise(rng, length, width, 0.5, 24.0, upright=True), 0, 2)
    field = (line[None, :] * strength).astype(np.float32)
    return field if canvas.upright else np.ascontiguousarray(field.T)


def _waves(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Chatter: the tool swung, and left even ridges side by side, sharper at their crests than any light;
    they begin and end where the tool touched.
    """
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    angle = canvas.grain + np.pi / 2 * (rng.random() < 0.5) + rng.normal(0, 0.15)
    v, u = rotated(h, w, cy, cx, angle)
    pitch = scaled(canvas, rng, 4, 16)
    bent = smooth(rng, h, w, 5) * np.float32(rng.uniform(0.2, 0.7))
    turns = v / np.float32(pitch) + bent / np.float32(2 * np.pi)
    half_u = scaled(canvas, rng, 12, 50) * (1 + np.float32(0.15) * smooth(rng, h, w, 6))
    count = rng.integers(3, 7) / 2
    edge = canvas.unit * rng.uniform(1.5, 4)
    touched = ramp((np.abs(turns) - np.float32(count)) * np.float32(pitch), 1.5 * canvas.unit)
    cover = touched * ramp(np.abs(u) - half_u, edge) * canvas.support
    ridge = 1 - 2 * np.abs(np.sin(turns * np.float32(np.pi))) ** np.float32(rng.uniform(0.6, 1.4))
    swing = ridge * (0.85 + 0.3 * smooth(rng, h, w, 4)) * np.float32(rng.uniform(0.09, 0.26))
    return canvas.image * (1 + swing * cover)[..., None], cover


def _patchy_coat(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A coat of uneven thickness: its tone falls in one or two crisp steps like the lines of a map, where the
    film ran thick its brink stands out as a line.
    """
    h, w = canvas.size
    field = smooth(rng, h, w, int(rng.integers(3, 7)))
    field = field + np.float32(rng.uniform(0.04, 0.12)) * noise(rng, h, w, 2.0)
    level = float(np.quantile(field, rng.uniform(0.6, 0.88)))
    sharp = np.float32(rng.uniform(14, 40) / canvas.unit)
    first = np.clip((field - np.float32(level)) * sharp + 0.5, 0, 1)
    second = np.clip((field - np.float32(level + 0.25)) * sharp + 0.5, 0, 1)
    cover = first * canvas.support
    side = polarity(rng, 0.6)
    step = side * rng.uniform(0.09, 0.28) * (1 + rng.normal(0, 0.15, 3))
    brink = 4 * first * (1 - first) * np.float32(rng.choice([0.0, rng.uniform(0.2, 0.7)]))
    depth = ((0.65 * first + 0.35 * second + brink) * canvas.support)[..., None]
    return canvas.image * (1 + depth * step.astype(np.float32)), cover


def _bare_region(canvas: Canvas, rng: Rng) -> tuple[Field, Field | None]:
    """(coverage, height above the border or None) of an area the wheel never touched."""
    h, w = canvas.size
    ripple = smooth(rng, h, w, int(rng.integers(5, 11))) * np.float32(rng.uniform(0.2, 1.6) * canvas.unit)
    kind = rng.random()
    if kind < 0.5:
        along, across = canvas.along if rng.random() < 0.75 else canvas.along[::-1]
        lo, hi = _bounds(along, canvas.support)
        left, right = _bounds(across, canvas.support)
        rise = along - np.float32(lo) if rng.random() < 0.5 else np.float32(hi) - along
        length, width = max(hi - lo, 8.0), max(right - left, 8.0)
        tall = length * rng.choice([rng.uniform(0.08, 0.3), rng.uniform(0.3, 1.1)])
        half = min(max(tall * rng.uniform(0.15, 0.45), 1.5 * canvas.unit), width * 0.3)
        knots, widths = OUTLINES[rng.integers(len(OUTLINES))]
        t = np.clip(rise / np.float32(tall), 0, 1.2)
        bound = np.interp(t, [*knots, 1.2], [*(np.array(widths) * half), -half * 0.5]).astype(np.float32)
        at = rng.uniform(left + half * 0.3, right - half * 0.3)
        lean = np.float32(rng.normal(0, 0.05)) * rise
        return ramp(np.abs(across - np.float32(at) + lean) - bound + ripple, 1.5), rise
    if kind < 0.8:
        cy, cx = place(canvas, rng)
        radius = scaled(canvas, rng, 5, 28)
        aspect = rng.uniform(1.0, 1.8)
        return blob(rng, h, w, cy, cx, radius, wobble=0.14, aspect=aspect, soft=1.5), None
    cy, cx, inward = rim_place(canvas, rng, corner=0.8)
    v, u = rotated(h, w, cy, cx, inward)
    deep, spread = scaled(canvas, rng, 5, 26), rng.uniform(0.4, 1.5)
    flank = np.maximum(u, 0) - np.float32(deep) + np.abs(v) / np.float32(spread)
    return ramp(flank + ripple, 1.5), np.maximum(u, 0)


def _stamp(canvas: Canvas, rng: Rng, cover: Field) -> Field:
    """A figure or a cross pressed into the bare face before finishing, as a relief (h, w)."""
    h, w = canvas.size
    inside = np.argwhere(cover > 0.9)
    if len(inside) == 0:
        return np.zeros((h, w), np.float32)
    y, x = inside[rng.integers(len(inside))]
    size = scaled(canvas, rng, 3, 9)
    paths: list[Path] = []
    if rng.random() < 0.5:
        for slope in (1, -1):
            paths.append([(x - size, y - slope * size), (x + size, y + slope * size)])
    else:
        for i in range(int(rng.integers(1, 3))):
            points = rng.choice([-0.5, 0.0, 0.5], (5, 2)) * (size * 0.8, size * 1.4)
            paths.append([(float(a + x + i * size), float(b + y)) for a, b in points])
    ink = blur(strokes(h, w, paths, [max(0.8, size * 0.22)] * len(paths)), 0.5 * canvas.unit)
    press = relief(ink, rng.uniform(0, 2 * np.pi), canvas.unit * rng.uniform(0.1, 0.3))
    return (press + ink * np.float32(rng.uniform(-0.08, 0.06))) * cover


@flaw("fray", beyond=True)
def _fray(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """The finish is missing over an area, or an edge has come apart into loose fibres."""
    kind = rng.random()
    if kind < 0.16 and float(canvas.support.min()) < 0.2:
        return _fringe(canvas, rng)
    return _bare(canvas, rng) if kind < 0.9 else _roughened(canvas, rng)


def _bare(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Unfinished: the streaks end at an outline; within, the smooth, fine-grained face of the blank, with a
    tone of its own, now and then a stamped figure, and a dark rough rim at the border it stands on.
    """
    h, w = canvas.size
    cover, rise = _bare_region(canvas, rng)
    cover = cover * canvas.support
    colour = canvas.colour_under(cover)
    level = max(float(colour.mean()), 0.05)
    coarse = enlarge(canvas.grey, COARSE_CELLS * h // min(h, w), COARSE_CELLS * w // min(h, w))
    low = enlarge(coarse, h, w)
    flat = 1 + np.float32(rng.uniform(0.1, 0.5)) * (low / np.float32(level) - 1)
    tone = rng.uniform(0.5, 0.88) if rng.random() < 0.72 else rng.uniform(0.95, 1.3)
    fine = noise(rng, h, w, rng.choice([0.3, 1.0])) * np.float32(rng.uniform(0.015, 0.07))
    cloud = noise(rng, h, w, 2.0) * np.float32(rng.uniform(0.02, 0.1))
    face = (flat * np.float32(tone) * (1 + fine + cloud))[..., None] * colour.astype(np.float32)
    if rng.random() < 0.3:
        face = face + _stamp(canvas, rng, cover)[..., None] * np.float32(min(1, 2 * level))
    if rise is not None and rng.random() < 0.6:
        foot = ramp(
            rise - np.float32(scaled(canvas, rng, 1.5, 6)) + 2 * canvas.unit * noise(rng, h, w, 1.0), 1.5
        )
        glint = (noise(rng, h, w, 0.3) > 1.9) * np.float32(rng.uniform(0, 0.5))
        face = face * (1 + foot * (glint - np.float32(rng.uniform(0.2, 0.7))))[..., None]
    image = blend(canvas.image, face, cover)
    line = 4 * cover * (1 - cover) * canvas.support
    return image * (1 + line * np.float32(rng.normal(-0.05, 0.12)))[..., None], cover


def _roughened(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """The surface has worn open: a fibrous or granular roughness in place of the finish."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    cover = spread(canvas, rng, cy, cx, (6, 26), wobble=0.4, longest=2, soft=4.0 * canvas.unit)
    cover = cover * canvas.support
    rough = noise(rng, h, w, 1.0, rng.choice([1.0, 6.0]), canvas.upright)
    level = min(1.0, 0.1 + 1.5 * float(canvas.colour.mean()))
    light = rough * np.float32(rng.uniform(0.08, 0.18) * level) + np.float32(rng.normal(0, 0.06) * level)
    low = blur(canvas.grey, 2 * canvas.unit) - canvas.grey
    return canvas.image + ((light + 0.6 * low) * cover)[..., None], cover


def _fringe(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Loose fibres stand out from an edge of cloth, rope or paper that has come apart."""
    h, w = canvas.size
    cy, cx, inward = rim_place(canvas, rng, corner=0.3)
    spread, reach = scaled(canvas, rng, 3, 14), scaled(canvas, rng, 4, 14)
    paths, widths = [], []
    for _ in range(int(rng.integers(8, 26))):
        off = rng.normal(0, spread)
        y, x = cy + off * np.cos(inward), cx - off * np.sin(inward)
        angle = inward + np.pi + rng.normal(0, 0.5)
        length = reach * rng.uniform(0.4, 1.3)
        y, x = y + np.sin(angle) * length * 0.3, x + np.cos(angle) * length * 0.3
        paths.append(walk(rng, y, x, length, turn=0.25, steps=7, angle=angle))
        widths.append(rng.uniform(0.4, 1.1) * canvas.unit)
    fibres = strokes(h, w, paths, widths)
    area = np.clip(blur(fibres, 1.3 * canvas.unit) * 3, 0, 1)
    worn = area * canvas.support
    image = canvas.image * (1 - np.float32(rng.uniform(0.1, 0.4)) * worn[..., None])
    tone = np.clip(canvas.colour * rng.uniform(0.8, 1.4), 0, 1).astype(np.float32)
    return image * (1 - fibres[..., None]) + fibres[..., None] * tone, area
