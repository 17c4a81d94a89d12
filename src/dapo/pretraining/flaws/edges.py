"""Flaws of an edge: chips, breaks and burrs.

Each function draws one visual family on a `Canvas`; see canvas.py for what goes in and out.
"""

from __future__ import annotations

import numpy as np

from dapo.pretraining.fields import Field, Rng, blob, blur, noise, polygon, relief, strokes, walk
from dapo.pretraining.flaws.canvas import Canvas, contrasting, edge_place, flaw, paint, polarity, scaled
from dapo.pretraining.surfaces import Rgb


@flaw("chip")
def _chip(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A small bite out of an edge: background or bright fracture shows."""
    h, w = canvas.size
    cy, cx = edge_place(canvas, rng)
    cover = blob(
        rng, h, w, cy, cx, scaled(canvas, rng, 2.5, 10), wobble=0.5, aspect=rng.uniform(1, 2)
    ) * np.clip(canvas.support * 1.2, 0, 1)
    if rng.random() < 0.5:
        image = paint(canvas, cover, canvas.background)
    else:
        image = paint(
            canvas, cover, contrasting(canvas, rng, 0.15) * (1 + 0.25 * noise(rng, h, w, 1.0))[..., None]
        )
    edge = relief(blur(cover, 0.8), rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.5))
    return image + (edge * canvas.support)[..., None], cover


@flaw("break")
def _break(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Broken off or spalled: a large angular or shell-shaped piece gone from the edge, with a cracked,
    shaded rim.
    """
    h, w = canvas.size
    cy, cx = edge_place(canvas, rng)
    r = scaled(canvas, rng, 7, 34)
    n = int(rng.integers(5, 9))
    theta = np.sort(rng.uniform(0, 2 * np.pi, n))
    radii = r * rng.uniform(0.5, 1.2, n)
    shell = polygon(
        h,
        w,
        list(zip((cx + radii * np.cos(theta)).tolist(), (cy + radii * np.sin(theta)).tolist(), strict=True)),
    )
    if rng.random() < 0.5:
        shell = np.clip((blur(shell, 2 * canvas.unit) - 0.5 + 0.08 * noise(rng, h, w, 1.0)) * 5 + 0.5, 0, 1)
    cover = shell * np.clip(canvas.support * 1.2, 0, 1)
    mode = rng.random()
    if mode < 0.4:
        image = paint(canvas, cover, canvas.background)
    else:
        fracture = 1 + rng.uniform(0.1, 0.3) * noise(rng, h, w, 1.5)
        tone = rng.uniform(0.55, 1.35) if mode < 0.8 else rng.uniform(0.8, 1.1)
        image = paint(
            canvas, cover, blur(canvas.image, 3 * canvas.unit) * (np.float32(tone) * fracture)[..., None]
        )
    rim = 4 * blur(cover, 0.8) * (1 - blur(cover, 0.8))
    return image * (1 - np.float32(rng.uniform(0.1, 0.6)) * (rim * canvas.support)[..., None]), cover


@flaw("burr")
def _burr(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Ragged extra material along an edge: bright spikes beyond the outline."""
    h, w = canvas.size
    cy, cx = edge_place(canvas, rng)
    paths = []
    spread = scaled(canvas, rng, 4, 14)
    for _ in range(int(rng.integers(6, 18))):
        y, x = cy + rng.normal(0, spread * 0.6), cx + rng.normal(0, spread * 0.6)
        paths.append(walk(rng, y, x, scaled(canvas, rng, 3, 10), turn=0.3, steps=4))
    near_edge = blur(canvas.support * (1 - canvas.support) * 4, 2.5 * canvas.unit)
    if float(near_edge.max()) < 0.05:
        near_edge = np.ones((h, w), np.float32)
    widths = rng.uniform(0.6, 1.8, len(paths)) * canvas.unit
    spikes = strokes(h, w, paths, widths) * np.clip(near_edge * 3, 0, 1)
    tone = np.clip(canvas.image.mean((0, 1)) + rng.uniform(0.1, 0.4) * polarity(rng, 0.25), 0, 1)
    return paint(canvas, spikes, tone), np.clip(blur(spikes, canvas.unit) * 2.5, 0, 1)
