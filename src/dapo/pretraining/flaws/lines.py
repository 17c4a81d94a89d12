"""Flaws along a line: what scratches, splits, furrows or lies on a surface as a thread.

Each function draws one visual family on a `Canvas`; see canvas.py for what goes in and out.
"""

from __future__ import annotations

import numpy as np

from dapo.pretraining.fields import (
    Field,
    Path,
    Rgb,
    Rng,
    blend,
    blur,
    centred,
    noise,
    ramp,
    rotated,
    shifted,
    smooth,
    strokes,
    walk,
)
from dapo.pretraining.flaws.canvas import (
    Canvas,
    add_light,
    coarseness,
    contrasting,
    flaw,
    place,
    polarity,
    rim_place,
    scaled,
)

Paths = tuple[list[Path], list[float]]  # polylines and their widths in pixels


@flaw("scratch", trimmed=True)
def _scratch(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Metal ploughed by something that slid along: straight lines along the grain, strokes and arcs of
    handling, short gouges with a raised lip. Even and smooth where a crack is jagged; no shadow.
    """
    kind = rng.random()
    if kind < 0.14:
        return _gouge(canvas, rng)
    paths, widths = _long_lines(canvas, rng) if kind < 0.5 else _strokes_of_handling(canvas, rng)
    h, w = canvas.size
    line = strokes(h, w, paths, widths) * canvas.support
    fade = np.clip(0.85 + 0.4 * noise(rng, h, w, 1.5, 6.0, canvas.upright), 0.2, 1.0)
    strength = rng.uniform(0.1, 0.55) * polarity(rng, 0.5)
    image = canvas.image * (1 - np.clip(-strength * 1.5, 0, 0.85) * line * fade)[..., None]
    image = image + (line * fade * np.float32(max(strength, 0)))[..., None]
    if rng.random() < 0.35:
        shift = max(1, round(0.7 * canvas.unit))
        upright = np.ptp([x for x, _ in paths[0]]) < np.ptp([y for _, y in paths[0]])
        flank = shifted(line, 0, shift) if upright else shifted(line, shift, 0)
        image = image - (flank * (1 - line) * np.float32(strength * 0.5))[..., None]
    return image, np.clip(line * 1.5, 0, 1)


def _long_lines(canvas: Canvas, rng: Rng) -> Paths:
    """One to three parallel lines along the grain, from border to border or ending somewhere."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    length = 1.2 * (h if canvas.upright else w)
    tilt = rng.normal(0, 0.015)
    paths, widths = [], []
    for i in range(int(rng.choice([1, 1, 1, 2, 3]))):
        start, stop = (-1.0, 1.0) if rng.random() < 0.6 else sorted(rng.uniform(-1, 1, 2))
        off = rng.normal(0, 5 * canvas.unit) * (i > 0)
        ends = [(t * length, off + t * length * tilt) for t in (start, stop)]
        paths.append([(cx + b, a + cy) if canvas.upright else (cx + a, cy + b) for a, b in ends])
        widths.append(scaled(canvas, rng, 0.4, 1.5))
    return paths, widths


def _strokes_of_handling(canvas: Canvas, rng: Rng) -> Paths:
    """Strokes in one direction, straight or bent like the swing of a hand, now and then crossed."""
    cy, cx = place(canvas, rng)
    angle = rng.uniform(0, np.pi)
    length = scaled(canvas, rng, 8, 110)
    bend = rng.choice([0.0, rng.normal(0, 0.09)])
    steps = 14
    paths, widths = [], []
    for _ in range(1 if rng.random() < 0.6 else rng.integers(2, 6)):
        off = rng.normal(0, 4 * canvas.unit, 2)
        headings = angle + rng.normal(0, 0.05) + bend * (np.arange(steps) - steps / 2)
        step = length * rng.uniform(0.5, 1) / steps
        x, y = np.cumsum(np.cos(headings) * step), np.cumsum(np.sin(headings) * step)
        paths.append(centred(x, y, cy + off[0], cx + off[1]))
        widths.append(scaled(canvas, rng, 0.4, 1.8))
    return paths, widths


def _gouge(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A short, wide furrow that begins pointed and ends blunt: dark floor, the ploughed-up lip bright."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    v, u = rotated(h, w, cy, cx, rng.uniform(0, 2 * np.pi))
    half, thick = scaled(canvas, rng, 4, 22), scaled(canvas, rng, 1.0, 3.2)
    t = np.clip((u / np.float32(half) + 1) / 2, 0, 1)
    within = (t > 0) & (t < 1)
    width = np.float32(thick) * t**0.6 * within * (1 + 0.2 * noise(rng, h, w, 1.5))
    floor = ramp(np.abs(v) - width, 1.0) * within * canvas.support
    lip = np.exp(-((np.abs(v) - width - 0.5 * canvas.unit) ** 2) / np.float32(canvas.unit**2))
    lip = lip * within * (1 - floor) * canvas.support * np.where(v > 0, 1, rng.uniform(-0.5, 0.6))
    amount = rng.uniform(0.12, 0.5)
    image = canvas.image * (1 - np.float32(amount) * floor)[..., None]
    image = image + (lip * np.float32(amount * 0.7))[..., None]
    cover = ramp(np.abs(v) - width - np.float32(0.5 * canvas.unit), 1.0) * within * canvas.support
    return image, cover


@flaw("crack", trimmed=True)
def _crack(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Split open without loss: a dark line, jagged, its width wandering to nothing at the tip; branched, or
    nearly straight from an edge, or a net of fine cracks.
    """
    h, w = canvas.size
    kind = rng.random()
    if kind < 0.16:
        paths, widths = _crazing(canvas, rng)
    else:
        paths, widths = _running(canvas, rng, straight=kind < 0.62)
    line = strokes(h, w, paths, widths) * canvas.support
    line = line * np.clip(0.95 + 0.3 * noise(rng, h, w, 1.0), 0.35, 1)
    depth = 0.9 * rng.uniform(0.13, 1.0)
    image = canvas.image * (1 - np.float32(depth) * line[..., None])
    if rng.random() < 0.25:
        lips = np.clip(blur(line, canvas.unit) * 2 - line, 0, 1) * canvas.support
        image = image + (lips * np.float32(rng.uniform(0.03, 0.12)))[..., None]
    return image, np.clip(line * 1.5, 0, 1)


def _running(canvas: Canvas, rng: Rng, *, straight: bool) -> Paths:
    """A crack that grew from a place or from an edge: segments that thin out toward the tip, with small
    jogs, and branches where it is not straight.
    """
    length, width = scaled(canvas, rng, 8, 110), scaled(canvas, rng, 0.45, 1.4 if straight else 2.2)
    if rng.random() < (0.7 if straight else 0.4):
        y, x, angle = rim_place(canvas, rng)
        angle = angle + rng.normal(0, 0.2 if straight else 0.5)
    else:
        y, x = place(canvas, rng)
        angle = canvas.grain + np.pi / 2 * rng.integers(4) + rng.normal(0, 0.12)
        angle = angle if straight else rng.uniform(0, 2 * np.pi)
    jog = rng.uniform(0.08, 0.28) if straight else rng.uniform(0.3, 0.65)
    paths, widths = [], []
    fronts = [(x, y, angle, length, width)]
    while fronts:
        x, y, angle, length, width = fronts.pop()
        steps = int(np.clip(length / (2.5 * canvas.unit), 4, 26))
        drift = np.cumsum(rng.normal(0, 0.04 if straight else 0.12, steps))
        headings = angle + drift + rng.normal(0, jog, steps)
        for i, heading in enumerate(headings):
            step = length / steps * rng.uniform(0.5, 1.5)
            nx, ny = x + np.cos(heading) * step, y + np.sin(heading) * step
            paths.append([(float(x), float(y)), (float(nx), float(ny))])
            widths.append(float(width * max(0.3, 1 - (i / steps) ** 1.5) * rng.uniform(0.7, 1.2)))
            x, y = nx, ny
            if not straight and len(paths) < 60 and rng.random() < 0.06:
                fork = heading + polarity(rng) * rng.uniform(0.4, 1.1)
                fronts.append((x, y, fork, length * rng.uniform(0.15, 0.45), width * 0.7))
    return paths, widths


def _crazing(canvas: Canvas, rng: Rng) -> Paths:
    """A net of fine cracks: glaze, coating or ground metal shrank; the cells are those of random seeds."""
    from scipy.spatial import Voronoi

    cy, cx = place(canvas, rng)
    spread = scaled(canvas, rng, 8, 26)
    count = int(rng.integers(14, 46))
    net = Voronoi(np.array([cx, cy]) + rng.normal(0, spread, (count, 2)))
    paths, widths = [], []
    thick = scaled(canvas, rng, 0.35, 0.9)
    for a, b in net.ridge_vertices:
        if a < 0 or rng.random() < 0.18:
            continue
        p, q = net.vertices[a], net.vertices[b]
        if max(np.hypot(*(p - (cx, cy))), np.hypot(*(q - (cx, cy)))) > 2.2 * spread:
            continue
        middle = (p + q) / 2 + rng.normal(0, 0.06, 2) * np.hypot(*(q - p))
        paths.append([(float(x), float(y)) for x, y in (p, middle, q)])
        widths.append(thick * rng.uniform(0.5, 1.3))
    return paths, widths


@flaw("cut")
def _cut(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A straight open slit, pointed at both ends: dark inside, one lit and one shaded lip."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    angle = rng.uniform(0, np.pi)
    half, thick = scaled(canvas, rng, 7, 40), scaled(canvas, rng, 0.8, 3.5)
    v, u = rotated(h, w, cy, cx, angle)
    taper = np.clip(1 - (u / np.float32(half)) ** 2, 0, 1)
    slit = ramp(np.abs(v) - np.float32(thick) * taper, 1.0) * (taper > 0) * canvas.support
    lips = (
        np.exp(-((np.abs(v) - thick) ** 2) / np.float32(2 * canvas.unit**2)) * np.sign(v) * (taper > 0)
    ).astype(np.float32)
    inside = (
        canvas.background.mean((0, 1)) * 0.4
        if rng.random() < 0.3
        else canvas.image.mean((0, 1)) * rng.uniform(0.05, 0.4)
    )
    image = (
        blend(canvas.image, inside, slit)
        + (lips * (1 - slit) * canvas.support * np.float32(rng.uniform(0.03, 0.16)))[..., None]
    )
    lipped = ramp(np.abs(v) - np.float32(thick) * taper - np.float32(0.8 * canvas.unit), 1.0) * (taper > 0)
    return image, lipped * canvas.support


@flaw("tear")
def _tear(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """An open, ragged rip with fibres across it."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    half, thick = scaled(canvas, rng, 8, 34), scaled(canvas, rng, 2, 8)
    v, u = rotated(h, w, cy, cx, rng.uniform(0, np.pi))
    ragged = 1 + 0.5 * noise(rng, h, w, 1.0)
    taper = np.clip(1 - np.abs(u) / np.float32(half), 0, 1)
    gap = (
        ramp(
            np.abs(v + np.float32(3 * canvas.unit) * smooth(rng, h, w, 5))
            - np.float32(thick) * taper * ragged,
            1.2,
        )
        * (taper > 0)
        * canvas.support
    )
    image = blend(canvas.image, canvas.background.mean((0, 1)) * rng.uniform(0.1, 0.8), gap)
    angles = rng.uniform(0, np.pi, 6)
    fibres = [
        walk(rng, cy + rng.normal(0, half / 3), cx + rng.normal(0, half / 3), thick * 2.5, angle=a)
        for a in angles
    ]
    threads = strokes(h, w, fibres, [0.5 * canvas.unit] * 6)
    image = image * (1 - threads[..., None]) + threads[..., None] * np.float32(canvas.image.mean() + 0.1)
    return image, np.maximum(gap, threads * (blur(gap, 2.0 * canvas.unit) > 0.05))


@flaw("groove")
def _groove(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A long, even furrow: one flank lit, the other shaded."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    angle = canvas.grain + rng.normal(0, 0.05) if rng.random() < 0.6 else rng.uniform(0, np.pi)
    v, u = rotated(h, w, cy, cx, angle)
    half, thick = scaled(canvas, rng, 25, 120), scaled(canvas, rng, 1.5, 5)
    v = v + np.float32(rng.normal(0, 0.002) / canvas.unit) * u * u
    along = ramp(np.abs(u) - np.float32(half), 6.0 * canvas.unit)
    furrow = np.exp(-(v * v) / np.float32(2 * (thick / 2) ** 2)) * along
    flank = v / np.float32(thick) * furrow
    amount = rng.uniform(0.1, 0.35)
    image = add_light(
        canvas,
        canvas.support,
        flank * np.float32(amount * 2 * polarity(rng)) - furrow * np.float32(amount * 0.7),
    )
    return image, ramp(np.abs(v) - np.float32(thick), 1.5) * along * canvas.support


@flaw("streak")
def _streak(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A soft band along the grain, darker or brighter, through most of the picture."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    v, u = rotated(h, w, cy, cx, canvas.grain + rng.normal(0, 0.03))
    thick = scaled(canvas, rng, 1.5, 12)
    half = scaled(canvas, rng, 25, 160)
    band = ramp(np.abs(v) - np.float32(thick), max(1.5 * canvas.unit, thick * rng.uniform(0.3, 1))) * ramp(
        np.abs(u) - np.float32(half), 10.0 * canvas.unit
    )
    mottle = np.clip(0.8 + 0.5 * noise(rng, h, w, 1.5, 24.0, canvas.upright), 0.2, 1.3)
    band = band * canvas.support
    return add_light(canvas, band * mottle, rng.uniform(0.08, 0.35) * polarity(rng, 0.65)), band


@flaw("wrinkle")
def _wrinkle(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A few soft, roughly parallel folds that shade the surface."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    v, u = rotated(h, w, cy, cx, rng.uniform(0, np.pi))
    v = v + (4 * canvas.unit) * smooth(rng, h, w, 4)
    pitch = scaled(canvas, rng, 5, 16)
    half = scaled(canvas, rng, 14, 44)
    count = rng.integers(1, 4)
    envelope = (
        ramp(np.abs(v) - np.float32(pitch * count / 2), pitch)
        * ramp(np.abs(u) - np.float32(half), 8.0 * canvas.unit)
        * canvas.support
    )
    waves = np.sin(v * np.float32(2 * np.pi / pitch))
    return add_light(canvas, envelope, waves * np.float32(rng.uniform(0.07, 0.28))), envelope


@flaw("thread", beyond=True)
def _thread(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A loose yarn lying on the surface: constant width, in loops, lit along its middle, with a shadow."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    path = _curl(rng, cy, cx, scaled(canvas, rng, 25, 120), rng.uniform(0.08, 0.3), 30)
    width = scaled(canvas, rng, 1.2, 3.5)
    wide, core = strokes(h, w, [path], [width]), strokes(h, w, [path], [max(0.5, width * 0.35)])
    colour = contrasting(canvas, rng, min(0.4, 0.14 + 1.2 * coarseness(canvas)))
    side = max(1, round(0.5 * width))
    shadow = blur(shifted(wide, side, side * int(rng.integers(-1, 2))), 0.5 * canvas.unit)
    image = canvas.image * (1 - np.float32(rng.uniform(0.15, 0.45)) * shadow[..., None])
    image = image * (1 - wide[..., None]) + wide[..., None] * colour * 0.92
    return image + (core * np.float32(rng.uniform(0.06, 0.16)))[..., None], wide


@flaw("hair", beyond=True)
def _hair(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """One thin, smoothly curved dark (or bright) hair, straightish or curled."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    path = _curl(rng, cy, cx, scaled(canvas, rng, 18, 110), rng.uniform(0.03, 0.14), 36)
    line = strokes(h, w, [path], [scaled(canvas, rng, 0.45, 1.2)])
    colour = contrasting(canvas, rng, min(0.5, 0.25 + coarseness(canvas)))
    ink = line * np.float32(rng.uniform(0.7, 1.0))
    return blend(canvas.image, colour, ink), np.clip(line * 1.5, 0, 1)


def _curl(rng: Rng, cy: float, cx: float, length: float, turn: float, steps: int) -> Path:
    """A smooth path of (x, y) points through (cx, cy) that keeps its sense of turning for a while."""
    curvature = np.convolve(rng.normal(0, turn, steps + 8), np.ones(9) / 3.0, "valid")
    headings = rng.uniform(0, 2 * np.pi) + np.cumsum(curvature + rng.normal(0, turn * 0.5))
    step = length / steps
    x, y = np.cumsum(np.cos(headings) * step), np.cumsum(np.sin(headings) * step)
    return centred(x, y, cy, cx)
