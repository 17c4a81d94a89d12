"""Flaws of an area: colour, coating, texture and deposits.

Each function draws one visual family on a `Canvas`; see canvas.py for what goes in and out.
"""

from __future__ import annotations

import numpy as np

from dapo.pretraining.fields import (
    Field,
    Rng,
    blob,
    blur,
    grid,
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
    paint,
    patchy,
    place,
    polarity,
    scaled,
)
from dapo.pretraining.surfaces import Rgb


@flaw("stain")
def _stain(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Colour multiplied over an irregular area; the texture shows through; often a darker tide line."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    soft = scaled(canvas, rng, 1.0, 5)
    cover = (
        blob(rng, h, w, cy, cx, scaled(canvas, rng, 5, 30), wobble=0.4, aspect=rng.uniform(1, 1.8), soft=soft)
        * canvas.support
    )
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
    light = relief(blur(cover, 2.0 * canvas.unit), rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.6))
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
    return paint(canvas, total * np.float32(rng.uniform(0.6, 1.0)), contrasting(canvas, rng, 0.2)), total


@flaw("discoloration")
def _discoloration(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A broad, soft change of hue or brightness without any edge of its own."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    radius = scaled(canvas, rng, 12, 40)
    cover = (
        blob(
            rng,
            h,
            w,
            cy,
            cx,
            radius,
            wobble=0.3,
            aspect=rng.uniform(1, 2),
            soft=radius * rng.uniform(0.4, 1.0),
        )
        * canvas.support
    )
    colour = 1 + rng.normal(0, 0.12, 3) + polarity(rng, 0.6) * rng.uniform(0.12, 0.4)
    return multiply(canvas, cover, colour), cover


@flaw("fingerprint")
def _fingerprint(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """An oval of fine curved ridges."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    v, u = rotated(h, w, cy, cx, rng.uniform(0, np.pi))
    r = scaled(canvas, rng, 11, 24)
    oval = ramp(np.sqrt((u / 1.35) ** 2 + v * v) - np.float32(r), 4.0) * canvas.support
    warp = np.sqrt((u * 0.8) ** 2 + (v + np.float32(r * 0.5)) ** 2) + 2 * canvas.unit * smooth(rng, h, w, 5)
    ridges = np.sin(warp * np.float32(2 * np.pi / (rng.uniform(2.6, 4.2) * canvas.unit)))
    patch = np.clip(0.8 + 0.5 * noise(rng, h, w, 1.5), 0, 1.2)
    return add_light(canvas, oval * patch, ridges * np.float32(rng.uniform(0.06, 0.16) * polarity(rng))), oval


@flaw("rust")
def _rust(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Corrosion: patchy orange to brown with a grainy texture."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    base = blob(
        rng,
        h,
        w,
        cy,
        cx,
        scaled(canvas, rng, 6, 32),
        wobble=0.45,
        aspect=rng.uniform(1, 2),
        soft=4 * canvas.unit,
    )
    cover = patchy(rng, canvas, base, rng.uniform(0.15, 0.55)) * canvas.support
    grainy = np.clip(1 + 0.3 * noise(rng, h, w, 0.8), 0.3, 1.7)[..., None]
    tone = np.array([rng.uniform(0.35, 0.65), rng.uniform(0.17, 0.34), rng.uniform(0.04, 0.16)], np.float32)
    return paint(canvas, cover * np.float32(rng.uniform(0.7, 1)), tone * grainy), cover


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


@flaw("scale")
def _scale(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Oxide scale: many flakes drawn out along the grain, flat dark or scaly, sharp-edged, in clusters."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    stretch = float(rng.choice([1.0, 6.0, 6.0]))
    field = noise(rng, h, w, rng.choice([1.0, 1.5, 2.0]), stretch, canvas.upright)
    v, u = rotated(h, w, cy, cx, canvas.grain)
    reach = scaled(canvas, rng, 14, 60)
    near = np.exp(-(v * v / np.float32(2 * (reach * 0.6) ** 2) + u * u / np.float32(2 * (reach * 1.4) ** 2)))
    score = field + 2.2 * near
    cover = np.clip((score - np.float32(rng.uniform(2.3, 3.0))) * 3, 0, 1) * canvas.support
    scaly = 1 + np.float32(rng.uniform(0, 0.4)) * noise(rng, h, w, 0.5, 6.0, not canvas.upright)
    image = canvas.image * (
        1 - np.float32(rng.uniform(0.25, 0.65)) * (cover * np.clip(scaly, 0.2, 1.6))[..., None]
    )
    return image, cover


@flaw("patch")
def _patch(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Flat dark or bright islands of one tone with crisp, ragged edges, often several drawn out the same
    way.
    """
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    total = np.zeros((h, w), np.float32)
    for _ in range(rng.integers(1, 9)):
        y, x = cy + rng.normal(0, 20 * canvas.unit), cx + rng.normal(0, 20 * canvas.unit)
        aspect = rng.uniform(1.5, 4)
        total = np.maximum(
            total,
            blob(rng, h, w, y, x, scaled(canvas, rng, 1.5, 9), wobble=0.5, aspect=aspect, angle=canvas.grain),
        )
    total = total * canvas.support
    tone = canvas.image.mean((0, 1)) * (1 + polarity(rng, 0.75) * rng.uniform(0.2, 0.5))
    fine = (1 + 0.06 * noise(rng, h, w, 0.3))[..., None]
    return paint(canvas, total * np.float32(rng.uniform(0.7, 1)), np.clip(tone, 0, 1) * fine), total


@flaw("inclusion")
def _inclusion(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Slag rolled in: a torn seam along the grain, dark with bright glints, rough inside."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    v, u = rotated(h, w, cy, cx, canvas.grain + rng.normal(0, 0.08))
    half, thick = scaled(canvas, rng, 10, 70), scaled(canvas, rng, 1.0, 7)
    taper = np.clip(1 - (u / np.float32(half)) ** 2, 0, 1)
    ragged = 1 + 0.7 * noise(rng, h, w, 1.0, 6.0, canvas.upright)
    cover = ramp(np.abs(v) - np.float32(thick) * taper * ragged, 1.0) * (taper > 0) * canvas.support
    rough = noise(rng, h, w, 0.5)
    level = np.where(
        rough > rng.uniform(0.9, 2.0), np.float32(rng.uniform(0.2, 0.5)), np.float32(-rng.uniform(0.2, 0.55))
    )
    halo = blur(cover, 4 * canvas.unit) * np.float32(rng.choice([0.0, 0.15]))
    return add_light(canvas, cover, level * (0.7 + 0.3 * rough)) + halo[..., None], cover


@flaw("ash")
def _ash(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A dark clot with a blurred tail drawn out along the grain."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    image, total = canvas.image, np.zeros((h, w), np.float32)
    for i in range(rng.integers(1, 4)):
        y, x = (
            (cy, cx)
            if i == 0
            else (cy + rng.normal(0, 16 * canvas.unit), cx + rng.normal(0, 16 * canvas.unit))
        )
        r = scaled(canvas, rng, 2, 11)
        core = blob(
            rng, h, w, y, x, r, wobble=0.3, aspect=rng.uniform(1, 1.6), angle=rng.uniform(0, 0.4), soft=2.0
        )
        v, u = rotated(h, w, y, x, rng.uniform(0, 2 * np.pi))
        tail = (
            np.exp(-(v * v) / np.float32(2 * (r * 0.7) ** 2))
            * np.clip(1 - u / np.float32(r * 5), 0, 1)
            * (u > 0)
        )
        smoke = np.exp(-(v * v + u * u) / np.float32(2 * (r * 1.8) ** 2))
        dark = np.clip(core + np.float32(0.35) * tail + np.float32(0.3) * smoke, 0, 1) * canvas.support
        image = image * (1 - np.float32(rng.uniform(0.45, 0.85)) * dark[..., None])
        total = np.maximum(total, np.maximum(core, (dark > 0.25).astype(np.float32)))
    return image, total * canvas.support


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


def _region(canvas: Canvas, rng: Rng, low: float = 14, high: float = 52) -> Field:
    """A large area that often leans on an edge of the picture, its rim straight or wavy."""
    h, w = canvas.size
    wave = smooth(rng, h, w, int(rng.integers(4, 9))) * np.float32(rng.uniform(0.5, 5) * canvas.unit)
    if rng.random() < 0.55:
        y, x = grid(h, w)
        across = [y, h - 1 - y, x, w - 1 - x][rng.integers(4)]
        along = x if rng.random() < 0.5 else y
        depth = scaled(canvas, rng, low * 0.6, high)
        lo, hi = sorted(rng.uniform(-0.3, 1.3, 2) * (w if along is x else h))
        sides = np.maximum(np.float32(lo) - along, along - np.float32(max(hi, lo + 20 * canvas.unit)))
        distance = np.maximum(across - np.float32(depth) + wave, sides + wave)
    else:
        cy, cx = place(canvas, rng)
        v, u = rotated(h, w, cy, cx, rng.uniform(0, np.pi))
        distance = (
            np.sqrt((u / np.float32(rng.uniform(1, 2))) ** 2 + v * v)
            - np.float32(scaled(canvas, rng, low, high * 0.7))
            + wave
        )
    return ramp(distance, rng.uniform(1.0, 3.0)) * canvas.support


@flaw("fray")
def _fray(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """The finish is gone over an area: its texture turns smooth, rough, streaky or shifted in tone."""
    h, w = canvas.size
    cover = _region(canvas, rng)
    mode = rng.integers(4)
    if mode == 0:
        new = blur(canvas.image, rng.uniform(1.5, 4) * canvas.unit)
    elif mode == 1:
        mean = blur(canvas.image, 4 * canvas.unit)
        new = mean + (canvas.image - mean) * np.float32(rng.uniform(2.0, 4.0))
    elif mode == 2:
        new = (
            canvas.image
            + (noise(rng, h, w, 0.5, 24.0, canvas.upright) * np.float32(rng.uniform(0.05, 0.16)))[..., None]
        )
    else:
        new = (
            canvas.image
            + (noise(rng, h, w, rng.choice([0.3, 1.0])) * np.float32(rng.uniform(0.06, 0.2)))[..., None]
        )
    new = new + np.float32(rng.normal(0, 0.08))
    return canvas.image + (new - canvas.image) * cover[..., None], cover


@flaw("uneven")
def _uneven(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A large area a clear step darker or brighter than it should be; the texture goes on inside."""
    cover = _region(canvas, rng, 10, 40)
    gain = 1 + polarity(rng, 0.7) * rng.uniform(0.14, 0.5)
    image = canvas.image * (1 + (np.float32(gain) - 1) * cover[..., None])
    if rng.random() < 0.4:
        h, w = canvas.size
        image = image + (noise(rng, h, w, 1.5) * cover * np.float32(rng.uniform(0.02, 0.08)))[..., None]
    return image, cover


@flaw("peeling")
def _peeling(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Coating gone: another material shows in a jagged island, with a lit lifted edge."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    base = blob(rng, h, w, cy, cx, scaled(canvas, rng, 5, 24), wobble=0.6, aspect=rng.uniform(1, 2), soft=3.0)
    ragged: Field = np.clip((base + 0.25 * noise(rng, h, w, 1.0) - 0.5) * 4 + 0.5, 0, 1)
    cover: Field = ragged * (base > 0.02) * canvas.support
    under = contrasting(canvas, rng, 0.15) * (1 + 0.1 * noise(rng, h, w, 0.8))[..., None]
    edge = relief(blur(cover, 0.8), rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.9))
    return paint(canvas, cover, under) + edge[..., None], cover


@flaw("glue")
def _glue(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A translucent lump or smear: smooth, yellowish or whitish, glossy edge and highlights."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    cover = (
        blob(rng, h, w, cy, cx, scaled(canvas, rng, 4, 18), wobble=0.45, aspect=rng.uniform(1, 3), soft=2.0)
        * canvas.support
    )
    tone = np.array([rng.uniform(0.75, 1), rng.uniform(0.7, 0.98), rng.uniform(0.4, 0.9)], np.float32)
    veil = np.float32(rng.uniform(0.25, 0.65))
    image = canvas.image * (1 - veil * cover[..., None]) + tone * (veil * cover[..., None])
    gloss = relief(blur(cover, 1.5 * canvas.unit), rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.5))
    return image + gloss[..., None], cover
