"""Flaws along a line: what scratches, splits, furrows or lies on a surface as a thread.

Each function draws one visual family on a `Canvas`; see canvas.py for what goes in and out.
"""

from __future__ import annotations

import numpy as np

from dapo.pretraining.fields import Field, Rng, blur, noise, ramp, rotated, smooth, strokes, walk
from dapo.pretraining.flaws.canvas import (
    Canvas,
    add_light,
    contrasting,
    edge_place,
    flaw,
    paint,
    place,
    polarity,
    scaled,
)
from dapo.pretraining.surfaces import Rgb


@flaw("scratch")
def _scratch(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Light scattered along one or a few nearly straight lines; a bright core, often a dark flank."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    angle = rng.uniform(0, np.pi) if rng.random() < 0.7 else canvas.grain + rng.normal(0, 0.06)
    length = scaled(canvas, rng, 10, 130)
    paths, widths = [], []
    for _ in range(1 if rng.random() < 0.65 else rng.integers(2, 6)):
        off = rng.normal(0, 3 * canvas.unit, 2)
        paths.append(
            walk(
                rng,
                cy + off[0],
                cx + off[1],
                length * rng.uniform(0.5, 1),
                turn=0.03,
                angle=angle + rng.normal(0, 0.05),
            )
        )
        widths.append(scaled(canvas, rng, 0.5, 2.2))
    line = strokes(h, w, paths, widths) * canvas.support
    fade = np.clip(0.75 + 0.5 * noise(rng, h, w, 1.5), 0.15, 1.0)
    strength = rng.uniform(0.12, 0.6) * polarity(rng, 0.4)
    image = add_light(canvas, line * fade, strength)
    if rng.random() < 0.4:
        flank = np.roll(line, 1, int(abs(np.cos(angle)) < 0.7))
        image = image - (flank * (1 - line) * np.float32(strength * 0.6))[..., None]
    return image, line


@flaw("crack")
def _crack(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A dark, jagged line with branches; its width wanders; sometimes bright lips."""
    h, w = canvas.size
    cy, cx = place(canvas, rng) if rng.random() < 0.7 else edge_place(canvas, rng)
    length = scaled(canvas, rng, 10, 120)
    main = walk(rng, cy, cx, length, turn=rng.uniform(0.25, 0.6), steps=int(rng.integers(10, 26)), angle=None)
    paths = [main]
    width = scaled(canvas, rng, 0.6, 2.4)
    widths = [width]
    for _ in range(rng.choice([0, 0, 1, 2, 4])):
        x, y = main[rng.integers(len(main))]
        branch = walk(rng, y, x, length * rng.uniform(0.15, 0.5), turn=0.5, steps=8)
        dx, dy = x - branch[0][0], y - branch[0][1]
        paths.append([(a + dx, b + dy) for a, b in branch])
        widths.append(width * 0.7)
    line = strokes(h, w, paths, widths) * canvas.support
    line = line * np.clip(0.9 + 0.35 * noise(rng, h, w, 1.0), 0.3, 1)
    depth = rng.uniform(0.35, 0.9)
    image = canvas.image * (1 - np.float32(depth) * line[..., None])
    if rng.random() < 0.25:
        lips = np.clip(blur(line, 1.0) * 2 - line, 0, 1)
        image = image + (lips * np.float32(rng.uniform(0.03, 0.15)))[..., None]
    return image, line


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
        np.exp(-((np.abs(v) - thick) ** 2) / np.float32(2 * canvas.unit)) * np.sign(v) * (taper > 0)
    ).astype(np.float32)
    inside = (
        canvas.background.mean((0, 1)) * 0.4
        if rng.random() < 0.3
        else canvas.image.mean((0, 1)) * rng.uniform(0.05, 0.4)
    )
    image = (
        paint(canvas, slit, inside)
        + (lips * (1 - slit) * canvas.support * np.float32(rng.uniform(0.03, 0.16)))[..., None]
    )
    return image, slit


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
        ramp(np.abs(v + 3 * smooth(rng, h, w, 5)) - np.float32(thick) * taper * ragged, 1.2)
        * (taper > 0)
        * canvas.support
    )
    image = paint(canvas, gap, canvas.background.mean((0, 1)) * rng.uniform(0.1, 0.8))
    angles = rng.uniform(0, np.pi, 6)
    fibres = [
        walk(rng, cy + rng.normal(0, half / 3), cx + rng.normal(0, half / 3), thick * 2.5, angle=a)
        for a in angles
    ]
    threads = strokes(h, w, fibres, [0.5 * canvas.unit] * 6)
    image = image * (1 - threads[..., None]) + threads[..., None] * np.float32(canvas.image.mean() + 0.1)
    return image, np.maximum(gap, threads * (blur(gap, 2.0) > 0.05))


@flaw("groove")
def _groove(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A long, even furrow: one flank lit, the other shaded."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    angle = canvas.grain + rng.normal(0, 0.05) if rng.random() < 0.6 else rng.uniform(0, np.pi)
    v, u = rotated(h, w, cy, cx, angle)
    half, thick = scaled(canvas, rng, 25, 120), scaled(canvas, rng, 1.5, 5)
    v = v + np.float32(rng.normal(0, 0.002)) * u * u
    along = ramp(np.abs(u) - np.float32(half), 6.0)
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
    band = ramp(np.abs(v) - np.float32(thick), max(1.5, thick * rng.uniform(0.3, 1))) * ramp(
        np.abs(u) - np.float32(half), 10.0
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
        * ramp(np.abs(u) - np.float32(half), 8.0)
        * canvas.support
    )
    waves = np.sin(v * np.float32(2 * np.pi / pitch))
    return add_light(canvas, envelope, waves * np.float32(rng.uniform(0.07, 0.28))), envelope


@flaw("thread")
def _thread(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A loose yarn lying on the surface in loops, lit along its middle, with a shadow."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    path = walk(rng, cy, cx, scaled(canvas, rng, 30, 110), turn=0.35, steps=26)
    width = scaled(canvas, rng, 1.3, 3.5)
    wide, core = strokes(h, w, [path], [width]), strokes(h, w, [path], [max(0.5, width * 0.4)])
    colour = contrasting(canvas, rng, 0.12)
    shadow = np.roll(wide, 2, 0)
    image = canvas.image * (1 - np.float32(0.3) * shadow[..., None])
    image = image * (1 - wide[..., None]) + wide[..., None] * colour + (core * np.float32(0.12))[..., None]
    return image, wide


@flaw("hair")
def _hair(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """One thin, smoothly curved dark (or bright) hair."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    path = walk(rng, cy, cx, scaled(canvas, rng, 20, 100), turn=rng.uniform(0.08, 0.25), steps=30)
    line = strokes(h, w, [path], [scaled(canvas, rng, 0.4, 1.2)])
    return paint(canvas, line * np.float32(rng.uniform(0.6, 1.0)), contrasting(canvas, rng, 0.25)), line
