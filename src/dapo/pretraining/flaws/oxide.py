"""Flaws that rolling and heat leave in metal: scale, patches, inclusions of slag, and ash.

Each function draws one visual family on a `Canvas`; see canvas.py for what goes in and out.
"""

from __future__ import annotations

import numpy as np

from dapo.pretraining.fields import (
    Field,
    Rgb,
    Rng,
    blend,
    blob,
    blur,
    log_uniform,
    noise,
    ramp,
    relief,
    rotated,
    strokes,
    walk,
)
from dapo.pretraining.flaws.canvas import Canvas, flaw, place, polarity, scaled


@flaw("scale")
def _scale(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Oxide scale: rolled-in spindles with a wrinkled crust, or plates that flake off."""
    return _spindles(canvas, rng) if rng.random() < 0.65 else _plates(canvas, rng)


def _spindles(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Lenses drawn out along the grain: the crust is wrinkled across it, half stripped to bright metal, and
    a pale halo surrounds it.
    """
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    image, total = canvas.image, np.zeros((h, w), np.float32)
    halo = np.float32(rng.choice([0.0, rng.uniform(0.05, 0.22)]))
    for i in range(int(rng.choice([1, 1, 2, 3]))):
        off = rng.normal(0, 12 * canvas.unit, 2) * (i > 0) * (1, 2)
        along, across = off[1], off[0]
        y, x = (cy + along, cx + across) if canvas.upright else (cy + across, cx + along)
        v, u = rotated(h, w, y, x, canvas.grain + rng.normal(0, 0.06))
        half, thick = scaled(canvas, rng, 9, 50), scaled(canvas, rng, 2.5, 11)
        taper = np.sqrt(np.clip(1 - (u / np.float32(half)) ** 2, 0, 1)) ** np.float32(rng.uniform(1, 2.4))
        ragged = 1 + 0.22 * noise(rng, h, w, 1.5, 6.0, canvas.upright)
        cover = ramp(np.abs(v) - np.float32(thick) * taper * ragged, 1.2) * (taper > 0) * canvas.support
        crust = _wrinkled(canvas, rng, u, v)
        stripped = np.clip(
            noise(rng, h, w, 2.0, 6.0, canvas.upright) * 3 - np.float32(rng.normal(1, 1.5)), 0, 1
        )
        gain = np.float32(rng.uniform(0.4, 0.75)) * (1 + crust * np.float32(rng.uniform(0.25, 0.6)))
        bare = np.float32(rng.uniform(1.05, 1.35)) + crust * np.float32(0.08)
        gain = gain + (bare - gain) * stripped
        near = np.clip(blur(cover, 2.5 * canvas.unit) * 2 - cover, 0, 1) * canvas.support
        image = image * (1 + (gain - 1) * cover + halo * near * (1 - cover))[..., None]
        total = np.maximum(total, cover)
    return image, total


def _wrinkled(canvas: Canvas, rng: Rng, u: Field, v: Field) -> Field:
    """Short ripples across the grain, in about [-1, 1]: the crust cracks and folds as the metal stretches."""
    h, w = canvas.size
    pitch = scaled(canvas, rng, 2.8, 6.5)
    warp = noise(rng, h, w, 2.0) * np.float32(1.6) + v * np.float32(rng.normal(0, 0.25) / canvas.unit)
    ripple = np.sin(u * np.float32(2 * np.pi / pitch) + warp)
    return np.clip(ripple * (0.9 + 0.3 * noise(rng, h, w, 2.0)) + 0.2 * noise(rng, h, w, 1.0), -1.3, 1.3)


def _plates(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Flaky scale: a cluster of angular plates, some gone already; each has its tone, tilt and lit edge."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    v, u = rotated(h, w, cy, cx, canvas.grain)
    warp = np.float32(canvas.unit) * noise(rng, h, w, 2.0)
    reach, drawn = scaled(canvas, rng, 6, 30), rng.uniform(1, 2.2)
    nearest = np.full((h, w), np.float32(reach**2 * 0.3))
    height, tone, cover = (np.zeros((h, w), np.float32) for _ in range(3))
    for _ in range(int(rng.integers(5, 15))):
        dv = v + warp - np.float32(rng.normal(0, 0.5 * reach))
        du = (u - np.float32(rng.normal(0, 0.5 * reach * drawn))) / np.float32(drawn) + warp
        here = (distance := dv * dv + du * du) < nearest
        tilt = (dv * np.float32(rng.normal(0, 0.5)) + du * np.float32(rng.normal(0, 0.5))) / np.float32(reach)
        there = float(rng.random() < 0.75)
        height = np.where(here, there * (np.float32(rng.uniform(0.6, 1.6)) + tilt), height)
        tone = np.where(here, np.float32(rng.normal(0, 0.14)) + tilt * np.float32(0.3), tone)
        cover = np.where(here, np.float32(there), cover)
        nearest = np.where(here, distance, nearest)
    cover = blur(cover.astype(np.float32), 0.4 * canvas.unit) * canvas.support
    gain = canvas.unit * rng.uniform(0.3, 0.8)
    lit = relief(blur(height, 0.5 * canvas.unit), rng.uniform(0, 2 * np.pi), gain)
    crust = np.float32(rng.uniform(0.4, 0.95)) + tone + np.float32(0.06) * noise(rng, h, w, 1.0)
    image = canvas.image * (1 + (crust - 1) * cover)[..., None]
    level = np.float32(max(0.25, float(canvas.colour.mean())))
    return image + (lit * level * canvas.support)[..., None], cover


@flaw("patch", trimmed=True)
def _patch(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Flat islands of one dark or bright tone with crisp, ragged edges drawn out along the grain, from
    specks to bands through the whole picture.
    """
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    kind = rng.random()
    if kind < 0.45:  # few islands near one place
        total = np.zeros((h, w), np.float32)
        ragged = noise(rng, h, w, 1.0, 6.0, canvas.upright)
        largest = scaled(canvas, rng, 2.5, 18)
        for i in range(rng.integers(1, 9)):
            r = largest * (1 if i == 0 else rng.uniform(0.15, 0.7))
            off = rng.normal(0, 14 * canvas.unit, 2) * (i > 0)
            aspect = rng.uniform(1.5, 4)
            near = blob(
                rng, h, w, cy + off[0], cx + off[1], r, wobble=0.5, aspect=aspect, angle=canvas.grain, soft=r
            )
            island = np.clip((near - 0.5) * np.float32(1.4 * r / canvas.unit) + 0.7 * ragged, 0, 1)
            total = np.maximum(total, island * (near > 0.05))
    else:  # a field of them, or bands, over part or all of the picture
        field = noise(rng, h, w, rng.choice([1.5, 2.0, 2.5]), 6.0, canvas.upright)
        field = field + 0.2 * noise(rng, h, w, 1.5, 6.0, canvas.upright)
        v, u = rotated(h, w, cy, cx, canvas.grain)
        reach = scaled(canvas, rng, 18, 120)
        field = field - (v / np.float32(reach)) ** 2 - (u / np.float32(reach * 2)) ** 2
        share = log_uniform(rng, 0.015, 0.35)
        total = np.clip((field - np.float32(np.quantile(field, 1 - share))) * 9, 0, 1)
    total = total * canvas.support
    tone = canvas.colour * (1 + polarity(rng, 0.78) * rng.uniform(0.2, 0.6))
    fine = (1 + 0.05 * noise(rng, h, w, 0.3))[..., None]
    return blend(canvas.image, np.clip(tone, 0, 1) * fine, total * np.float32(rng.uniform(0.75, 1))), total


@flaw("inclusion")
def _inclusion(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Slag rolled in: a torn dark seam along the grain in segments with bright glints, a thin line before
    and after it; where the slag fell out, a ragged hole.
    """
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    v, u = rotated(h, w, cy, cx, canvas.grain + rng.normal(0, 0.05))
    v = v + np.float32(0.5 * canvas.unit) * noise(rng, h, w, 2.0, 6.0, canvas.upright)
    half, thick = scaled(canvas, rng, 8, 60), scaled(canvas, rng, 0.7, 5)
    beat = np.interp(
        (u / np.float32(half) + 1).ravel() * 8, np.arange(17), np.clip(rng.normal(0.5, 0.5, 17), 0, 1.3)
    )
    taper = np.sqrt(np.clip(1 - (u / np.float32(half)) ** 2, 0, 1))
    bound = (
        np.float32(thick)
        * taper
        * beat.reshape(h, w)
        * (1 + 0.45 * noise(rng, h, w, 1.5, 6.0, canvas.upright))
    )
    seam = ramp(np.abs(v) - bound.astype(np.float32), 1.0) * (taper > 0)
    if rng.random() < 0.25:
        hole = blob(rng, h, w, cy, cx, scaled(canvas, rng, 3, 10), wobble=0.5, angle=canvas.grain, aspect=1.4)
        seam = np.maximum(seam, hole)
    lead = rng.uniform(1.1, 2.6) * half
    tail = ramp(np.abs(v) - np.float32(0.35 * canvas.unit), 0.9) * np.clip(
        1.2 - np.abs(u) / np.float32(lead), 0, 0.8
    )
    cover = np.maximum(seam, tail) * canvas.support
    rough = noise(rng, h, w, 0.5, 6.0 if rng.random() < 0.5 else 1.0, canvas.upright)
    glint = np.clip((rough - np.float32(rng.uniform(0.6, 1.8))) * 3, 0, 1) * (seam > 0.5)
    dark = np.float32(rng.uniform(0.3, 0.8)) * (1 + 0.25 * rough)
    image = canvas.image * (1 - cover * np.clip(dark, 0, 1))[..., None]
    image = image + (glint * canvas.support * np.float32(rng.uniform(0.15, 0.55)))[..., None]
    halo = np.clip(blur(seam, 3 * canvas.unit) - seam, 0, 1) * np.float32(rng.choice([0.0, 0.25]))
    return image + (halo * canvas.support)[..., None], cover


@flaw("ash")
def _ash(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Dark clots, each with a soft smoke and a few fine, short trails that all run one way."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    heading = rng.uniform(0, 2 * np.pi) if rng.random() < 0.4 else canvas.grain + np.pi * rng.integers(2)
    clear, total = np.ones((h, w), np.float32), np.zeros((h, w), np.float32)
    depth = np.float32(rng.uniform(0.45, 0.85))
    paths, widths = [], []
    for i in range(rng.integers(1, 4)):
        off = rng.normal(0, 14 * canvas.unit, 2) * (i > 0)
        y, x = cy + off[0], cx + off[1]
        r = scaled(canvas, rng, 1.6, 9)
        core = blob(
            rng, h, w, y, x, r, wobble=0.3, aspect=rng.uniform(1.1, 2), angle=heading + np.pi / 2, soft=1.8
        )
        for _ in range(int(rng.integers(2, 7))):
            length, side = r * rng.uniform(0.8, 2.4), rng.normal(0, r * 0.8)
            sy = y + np.sin(heading) * length * 0.6 + np.cos(heading) * side
            sx = x + np.cos(heading) * length * 0.6 - np.sin(heading) * side
            paths.append(walk(rng, sy, sx, length, turn=0.1, steps=4, angle=heading + rng.normal(0, 0.15)))
            widths.append(rng.uniform(0.4, 1.2) * canvas.unit)
        v, u = rotated(h, w, y + np.sin(heading) * r * 0.5, x + np.cos(heading) * r * 0.5, heading)
        smoke = np.exp(-(v * v / 2 + u * u) / np.float32((r * 1.7) ** 2))
        clear = clear * (1 - depth * np.clip(core + np.float32(0.35) * smoke, 0, 1))
        total = np.maximum(total, np.maximum(core, (smoke > 0.45).astype(np.float32)))
    trails = blur(strokes(h, w, paths, widths), 0.4 * canvas.unit)
    clear = clear * (1 - depth * np.float32(0.55) * trails)
    total = np.maximum(total, (trails > 0.35).astype(np.float32)) * canvas.support
    return canvas.image * (1 - (1 - clear) * canvas.support)[..., None], total
