"""Flaws that are things: foreign bodies, faults of the pattern, parts missing, extra or misprinted.

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
    grid,
    noise,
    polygon,
    ramp,
    relief,
    rotated,
    shifted,
    strokes,
    walk,
)
from dapo.pretraining.flaws.canvas import (
    Canvas,
    contrasting,
    flaw,
    place,
    polarity,
    random_colour,
    scaled,
)


@flaw("dust")
def _dust(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A scatter of tiny bright or dark grains."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    count = int(rng.integers(8, 40))
    spread = scaled(canvas, rng, 5, 22)
    y = cy + rng.normal(0, spread, count)
    x = cx + rng.normal(0, spread, count)
    paths = [
        [
            (float(a), float(b)),
            (float(a + canvas.unit * rng.uniform(0, 2)), float(b + canvas.unit * rng.uniform(0, 2))),
        ]
        for a, b in zip(x, y, strict=True)
    ]
    grains = strokes(h, w, paths, rng.uniform(0.6, 1.8, count) * canvas.unit)
    image = blend(canvas.image, contrasting(canvas, rng, 0.25), grains)
    return image, np.clip(blur(grains, 1.2 * canvas.unit) * 4, 0, 1)


@flaw("foreign", beyond=True)
def _foreign(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A small solid thing that lies on the part: own colour, shading and shadow; chip, flake or crumb."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    r = scaled(canvas, rng, 2.5, 12)
    n = int(rng.integers(4, 8))
    theta = np.sort(rng.uniform(0, 2 * np.pi, n))
    radii = r * rng.uniform(0.5, 1.2, n)
    cover = polygon(
        h,
        w,
        list(zip((cx + radii * np.cos(theta)).tolist(), (cy + radii * np.sin(theta)).tolist(), strict=True)),
    )
    bevel = blur(cover, 1.5 * canvas.unit)
    shade = relief(bevel, rng.uniform(0, 2 * np.pi), 0.8 * canvas.unit) + 0.08 * noise(rng, h, w, 0.8)
    shadow = shifted(cover, round(2 * canvas.unit), round(1.5 * canvas.unit))
    image = canvas.image * (1 - np.float32(rng.uniform(0, 0.5)) * shadow[..., None])
    image = image * (1 - cover[..., None]) + cover[..., None] * (
        contrasting(canvas, rng, 0.12) + shade[..., None]
    )
    return image, cover


@flaw("spatter")
def _spatter(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Drops of weld or paint: several small round beads with highlights, sizes mixed."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    total = np.zeros((h, w), np.float32)
    for _ in range(rng.integers(4, 16)):
        v, u = rotated(h, w, cy + rng.normal(0, 14 * canvas.unit), cx + rng.normal(0, 14 * canvas.unit), 0.0)
        total = np.maximum(total, ramp(np.sqrt(v * v + u * u) - np.float32(scaled(canvas, rng, 0.9, 4)), 1.2))
    total = total * canvas.support
    bead = relief(blur(total, 0.9 * canvas.unit), rng.uniform(0, 2 * np.pi), 0.8 * canvas.unit)
    return blend(canvas.image, contrasting(canvas, rng, 0.1), total * np.float32(0.8)) + bead[
        ..., None
    ], total


@flaw("nep")
def _nep(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A knot of fibre: a fuzzy tangled lump."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    r = scaled(canvas, rng, 2, 7)
    paths = [
        walk(rng, cy + rng.normal(0, r / 3), cx + rng.normal(0, r / 3), r * 3, turn=0.9, steps=9)
        for _ in range(7)
    ]
    tangle = strokes(h, w, paths, [0.7 * canvas.unit] * 7)
    lump = (
        np.maximum(
            tangle, blob(rng, h, w, cy, cx, r * 0.7, wobble=0.3, soft=2.0 * canvas.unit) * np.float32(0.7)
        )
        * canvas.support
    )
    return blend(canvas.image, contrasting(canvas, rng, 0.15), lump * np.float32(0.85)), np.clip(
        blur(lump, 0.8 * canvas.unit) * 1.6, 0, 1
    )


@flaw("weave", trimmed=True)
def _weave(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A weaving fault: a straight band of threads missing, doubled or shifted."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    thick, half = max(2 * canvas.unit, scaled(canvas, rng, 2, 6)), scaled(canvas, rng, 15, 90)
    rows = rng.random() < 0.5
    y, x = grid(h, w)
    across, along = (
        (y - np.float32(cy), x - np.float32(cx)) if rows else (x - np.float32(cx), y - np.float32(cy))
    )
    cover = (
        ramp(np.abs(across) - np.float32(thick), 1.0)
        * ramp(np.abs(along) - np.float32(half), 2.0)
        * canvas.support
    )
    moved = np.roll(canvas.image, max(1, round(canvas.unit * rng.uniform(2, 6))), int(rows)) * np.float32(
        rng.uniform(0.55, 0.9) if rng.random() < 0.7 else 1.25
    )
    return blend(canvas.image, moved, cover), cover


@flaw("grid_shift", trimmed=True)
def _grid_shift(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Something out of place: a rectangle of the picture shifted or turned."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    half_y, half_x = scaled(canvas, rng, 6, 20), scaled(canvas, rng, 6, 20)
    y, x = grid(h, w)
    cover = ramp(
        np.maximum(
            np.abs(y - np.float32(cy)) - np.float32(half_y), np.abs(x - np.float32(cx)) - np.float32(half_x)
        ),
        0.7,
    )
    if rng.random() < 0.5:
        moved = np.roll(
            canvas.image, tuple(round(float(v) * canvas.unit) for v in rng.uniform(4, 13, 2)), (0, 1)
        )
    else:
        moved = canvas.image[::-1, ::-1]
    return blend(canvas.image, moved, cover), cover


@flaw("missing")
def _missing(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A piece that should be there is not: an area wiped to the plain ground, its outline still faintly
    there.
    """
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    v, u = rotated(h, w, cy, cx, rng.choice([0.0, rng.uniform(0, np.pi)]))
    if rng.random() < 0.5:
        distance = np.maximum(
            np.abs(v) - np.float32(scaled(canvas, rng, 5, 18)),
            np.abs(u) - np.float32(scaled(canvas, rng, 5, 18)),
        )
    else:
        distance = np.sqrt(v * v + u * u) - np.float32(scaled(canvas, rng, 5, 18))
    cover = ramp(distance)
    ground = (
        canvas.background.mean((0, 1))
        if rng.random() < 0.5
        else np.quantile(canvas.image.reshape(-1, 3), rng.choice([0.1, 0.9]), axis=0)
    )
    plain = ground * (1 + 0.04 * noise(rng, h, w, 0.5))[..., None]
    outline = np.exp(-(distance**2) / np.float32(2 * canvas.unit**2)) * np.float32(
        rng.choice([0.0, 0.15]) * polarity(rng)
    )
    return blend(canvas.image, plain, cover) + outline[..., None], cover


@flaw("extra", trimmed=True)
def _extra(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A second piece where only one belongs: a copy of another place of the picture, with an edge."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    cover = blob(
        rng,
        h,
        w,
        cy,
        cx,
        scaled(canvas, rng, 5, 16),
        wobble=rng.choice([0.0, 0.2]),
        aspect=rng.uniform(1, 1.6),
    )
    moved = np.roll(
        canvas.image, tuple(round(float(v) * canvas.unit) for v in rng.uniform(20, 60, 2)), (0, 1)
    ) * random_colour(rng, 0.6, 1.3, 0.1)
    gain = canvas.unit * rng.uniform(0.3, 0.9)
    shade = relief(blur(cover, 1.5 * canvas.unit), rng.uniform(0, 2 * np.pi), gain)
    return blend(canvas.image, moved, cover) + shade[..., None], cover


@flaw("misprint")
def _misprint(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Print gone wrong: marks doubled, smeared or where none belong."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    size = scaled(canvas, rng, 4, 12)
    paths = []
    for i in range(int(rng.integers(2, 6))):
        x0, y0 = cx + (i - 2) * size * 1.1, cy
        pts = rng.uniform(0, 1, (int(rng.integers(3, 6)), 2)) * (size * 0.8, size) + (x0, y0 - size / 2)
        paths.append([(float(a), float(b)) for a, b in pts])
    ink = strokes(h, w, paths, [max(0.8, size * 0.12)] * len(paths))
    if rng.random() < 0.6:
        shift = [round(canvas.unit * v) for v in (rng.uniform(-3, 3), rng.uniform(2, 5))]
        ink = np.maximum(ink, np.float32(0.6) * shifted(ink, *shift))
    if rng.random() < 0.5:
        ink = np.clip(blur(ink, 1.3 * canvas.unit) * 1.5, 0, 1)
    ink = ink * canvas.support
    return blend(
        canvas.image, contrasting(canvas, rng, 0.25), ink * np.float32(rng.uniform(0.6, 1))
    ), np.clip(blur(ink, canvas.unit) * 3, 0, 1)
