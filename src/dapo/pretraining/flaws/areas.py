"""Flaws of an area: colour, coating, texture and deposits.

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
    noise,
    ramp,
    relief,
    rotated,
    smooth,
    strokes,
    walk,
)
from dapo.pretraining.flaws.canvas import (
    Canvas,
    add_light,
    contrasting,
    flaw,
    multiply,
    patchy,
    place,
    polarity,
    scaled,
    spread,
)


@flaw("stain")
def _stain(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Colour multiplied over an irregular area; the texture shows through; often a darker tide line."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    soft = scaled(canvas, rng, 1.0, 5)
    cover = spread(canvas, rng, cy, cx, (3, 30), wobble=0.4, longest=1.8, soft=soft) * canvas.support
    colour = 1 - rng.uniform(0.15, 0.6) * (0.4 + 0.6 * rng.random(3))
    image = multiply(canvas, cover * np.clip(0.85 + 0.2 * noise(rng, h, w, 2.0), 0.3, 1.1), colour)
    if rng.random() < 0.5:
        tide = 4 * cover * (1 - cover)
        image = image * (1 - np.float32(rng.uniform(0.1, 0.35)) * tide[..., None])
    return image, cover


@flaw("liquid")
def _liquid(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A drop or film of water or oil: smooth, slightly darker, with a bright rim and highlights."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    cover = blob(rng, h, w, cy, cx, scaled(canvas, rng, 5, 22), wobble=0.3, soft=1.5) * canvas.support
    image = (
        canvas.image * (1 - cover[..., None])
        + blur(canvas.image, 1.5 * canvas.unit) * np.float32(rng.uniform(0.6, 0.95)) * cover[..., None]
    )
    light = relief(
        blur(cover, 2.0 * canvas.unit), rng.uniform(0, 2 * np.pi), canvas.unit * rng.uniform(0.5, 1.6)
    )
    return image + light[..., None], cover


@flaw("spot")
def _spot(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """One or a few small specks of another colour, sharp-edged, flat."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    total = np.zeros((h, w), np.float32)
    for i in range(1 if rng.random() < 0.6 else rng.integers(2, 8)):
        y, x = (
            (cy, cx)
            if i == 0
            else (cy + rng.normal(0, 12 * canvas.unit), cx + rng.normal(0, 12 * canvas.unit))
        )
        total = np.maximum(total, blob(rng, h, w, y, x, scaled(canvas, rng, 1.2, 6), wobble=0.15))
    total = total * canvas.support
    return blend(
        canvas.image, contrasting(canvas, rng, 0.2), total * np.float32(rng.uniform(0.6, 1.0))
    ), total


@flaw("discoloration")
def _discoloration(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A change of hue or brightness with a soft outline, up to half of the picture; the texture below is
    unchanged.
    """
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    radius = scaled(canvas, rng, 8, 48)
    soft = max(3 * canvas.unit, radius * rng.uniform(0.15, 0.6))
    aspect = rng.uniform(1, 2)
    area = blob(rng, h, w, cy, cx, radius, wobble=0.35, aspect=aspect, soft=soft)
    cover = area * canvas.support
    colour = 1 + rng.normal(0, rng.choice([0.02, 0.14]), 3)
    colour = colour + polarity(rng, 0.6) * rng.uniform(0.1, 0.35) * (rng.random() < 0.8)
    mottle = np.clip(0.95 + 0.15 * noise(rng, h, w, 2.0), 0.6, 1.2)
    return multiply(canvas, np.clip(cover * mottle, 0, 1), colour), cover


@flaw("fingerprint")
def _fingerprint(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """An oval of fine curved ridges."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    v, u = rotated(h, w, cy, cx, rng.uniform(0, np.pi))
    r = scaled(canvas, rng, 11, 24)
    oval = ramp(np.sqrt((u / 1.35) ** 2 + v * v) - np.float32(r), 4.0 * canvas.unit) * canvas.support
    warp = np.sqrt((u * 0.8) ** 2 + (v + np.float32(r * 0.5)) ** 2) + 2 * canvas.unit * smooth(rng, h, w, 5)
    ridges = np.sin(warp * np.float32(2 * np.pi / (rng.uniform(2.6, 4.2) * canvas.unit)))
    patch = np.clip(0.8 + 0.5 * noise(rng, h, w, 1.5), 0, 1.2)
    return add_light(canvas, oval * patch, ridges * np.float32(rng.uniform(0.06, 0.16) * polarity(rng))), oval


@flaw("rust")
def _rust(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Corrosion: patchy orange to brown with a grainy texture."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    base = spread(canvas, rng, cy, cx, (6, 32), wobble=0.45, longest=2, soft=4 * canvas.unit)
    cover = patchy(rng, canvas, base, rng.uniform(0.15, 0.55)) * canvas.support
    grainy = np.clip(1 + 0.3 * noise(rng, h, w, 0.8), 0.3, 1.7)[..., None]
    tone = np.array([rng.uniform(0.35, 0.65), rng.uniform(0.17, 0.34), rng.uniform(0.04, 0.16)], np.float32)
    return blend(canvas.image, tone * grainy, cover * np.float32(rng.uniform(0.7, 1))), cover


@flaw("burn")
def _burn(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Scorched: near black in the middle, brown and fading outward."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    radius = scaled(canvas, rng, 5, 26)
    cover = blob(rng, h, w, cy, cx, radius, wobble=0.35, soft=radius * 0.9) * canvas.support
    core = np.clip(cover * 1.6 - 0.5, 0, 1)
    image = multiply(canvas, cover, np.array([0.62, 0.45, 0.3], np.float32))
    return image * (1 - np.float32(rng.uniform(0.5, 0.9)) * core[..., None]), cover


@flaw("abrasion")
def _abrasion(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A scuffed area: many short, parallel, faint strokes."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    r = scaled(canvas, rng, 8, 26)
    angle = rng.uniform(0, np.pi)
    count = int(rng.integers(14, 45))
    paths = [
        walk(
            rng,
            cy + rng.normal(0, r * 0.45),
            cx + rng.normal(0, r * 0.45),
            r * rng.uniform(0.3, 1.2),
            turn=0.02,
            steps=3,
            angle=angle + rng.normal(0, 0.12),
        )
        for _ in range(count)
    ]
    marks = strokes(h, w, paths, rng.uniform(0.4, 1.1, count) * canvas.unit) * canvas.support
    cover = np.clip(blur(marks, 2.2 * canvas.unit) * 3.5, 0, 1) * canvas.support
    lighten = rng.uniform(-0.04, 0.1)
    return add_light(canvas, marks, rng.uniform(0.12, 0.4) * polarity(rng, 0.35)) + (
        cover * np.float32(lighten)
    )[..., None], cover


@flaw("peeling")
def _peeling(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Coating gone: another material shows in a jagged island, with a lit lifted edge."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    base = spread(canvas, rng, cy, cx, (5, 24), wobble=0.6, longest=2, soft=3.0 * canvas.unit)
    ragged: Field = np.clip((base + 0.25 * noise(rng, h, w, 1.5) - 0.5) * 5 + 0.5, 0, 1)
    cover: Field = ragged * (base > 0.02) * canvas.support
    under = contrasting(canvas, rng, 0.15) * (1 + rng.uniform(0.02, 0.1) * noise(rng, h, w, 0.8))[..., None]
    edge = relief(
        blur(cover, 0.8 * canvas.unit), rng.uniform(0, 2 * np.pi), canvas.unit * rng.uniform(0.3, 0.9)
    )
    return blend(canvas.image, under, cover) + edge[..., None], cover


@flaw("glue")
def _glue(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A translucent lump or smear: smooth, yellowish or whitish, glossy edge and highlights."""
    cy, cx = place(canvas, rng)
    cover = spread(canvas, rng, cy, cx, (4, 18), wobble=0.45, longest=3, soft=2.0) * canvas.support
    tone = np.array([rng.uniform(0.75, 1), rng.uniform(0.7, 0.98), rng.uniform(0.4, 0.9)], np.float32)
    veil = np.float32(rng.uniform(0.25, 0.65))
    image = canvas.image * (1 - veil * cover[..., None]) + tone * (veil * cover[..., None])
    gloss = relief(
        blur(cover, 1.5 * canvas.unit), rng.uniform(0, 2 * np.pi), canvas.unit * rng.uniform(0.5, 1.5)
    )
    return image + gloss[..., None], cover
