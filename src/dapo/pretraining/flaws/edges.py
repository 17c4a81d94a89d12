"""Flaws of an edge: chips, breaks and burrs.

Each function draws one visual family on a `Canvas`; see canvas.py for what goes in and out.
"""

from __future__ import annotations

import numpy as np

from dapo.pretraining.fields import (
    Field,
    Rgb,
    Rng,
    blend,
    blur,
    noise,
    polygon,
    relief,
    rotated,
    strokes,
    walk,
)
from dapo.pretraining.flaws.canvas import Canvas, flaw, polarity, rim_place, scaled


def _piece(canvas: Canvas, rng: Rng, size: float, corner: float) -> tuple[Field, tuple[float, float, float]]:
    """(coverage, (y, x, inward)) of a piece at the rim: triangle, shell or angular, `size` px along it."""
    h, w = canvas.size
    cy, cx, inward = rim_place(canvas, rng, corner)
    deep = size * rng.uniform(0.3, 1.2)
    count = int(rng.choice([1, 2, 4, 7]))  # one inner point is a triangle, many are a shell
    t = np.linspace(-1, 1, count + 2)[1:-1]
    across = [-1.0, *(t + rng.normal(0, 0.6 / (count + 1), count)), 1.0]
    depths = np.sqrt(np.clip(1 - t * t, 0.1, 1)) * (1 + rng.normal(0, 0.14, count))
    inner = [rng.normal(0, 0.05), *depths, rng.normal(0, 0.05)]
    if count == 1:
        across[1] = rng.uniform(-0.7, 0.7)
    pts = [*zip(across, inner, strict=True), (1.3, -1.5), (-1.3, -1.5)]
    c, s = np.cos(inward), np.sin(inward)
    points = [
        (float(cx + c * b * deep - s * a * size), float(cy + s * b * deep + c * a * size)) for a, b in pts
    ]
    shell = polygon(h, w, points)
    if size > 4 * canvas.unit and rng.random() < 0.7:  # the outline is never quite straight
        rough = noise(rng, h, w, 1.5) * np.float32(rng.uniform(0.05, 0.16))
        near = blur(shell, 1.2 * canvas.unit)
        shell = np.clip((near - 0.5 + rough) * 4 + 0.5, 0, 1) * (near > 0.1)
    return shell * np.clip(canvas.support * 1.2, 0, 1), (cy, cx, inward)


def _fracture(canvas: Canvas, rng: Rng, cover: Field, at: tuple[float, float, float], size: float) -> Rgb:
    """The face left where a piece broke off, as a picture (h, w, 3) of which only what is under `cover` is
    drawn.
    """
    face = canvas.image.copy()
    rows, cols = np.flatnonzero(cover.any(1)), np.flatnonzero(cover.any(0))
    if len(rows) == 0:
        return face
    window = slice(rows[0], rows[-1] + 1), slice(cols[0], cols[-1] + 1)
    gain = _facets(rng, cover[window].shape, (at[0] - rows[0], at[1] - cols[0], at[2]), size, canvas.unit)
    face[window] = canvas.colour_under(cover).astype(np.float32) * gain[..., None]
    return face


def _facets(
    rng: Rng, shape: tuple[int, ...], at: tuple[float, float, float], size: float, scale: float
) -> Field:
    """Gain of a fracture over a window of this shape: a few facets that catch the light differently, curved
    ripples of a shell, granular, of a tone of its own.
    """
    h, w = shape
    height = np.full((h, w), -1e3, np.float32)
    tones = np.zeros((h, w), np.float32)
    for _ in range(int(rng.integers(2, 6))):
        off = rng.normal(0, 0.6 * size, 2)
        v, u = rotated(h, w, at[0] + off[0], at[1] + off[1], rng.uniform(0, 2 * np.pi))
        plane = u / np.float32(size) + np.float32(0.15) * noise(rng, h, w, 2.0, grain=scale)
        above = plane > height
        tones = np.where(above, np.float32(rng.normal(0, 0.18)) + 0.1 * v / np.float32(size), tones)
        height = np.maximum(height, plane)
    v, u = rotated(h, w, *at)
    radius = np.sqrt(v * v + u * u)
    pitch = max(2.5 * scale, size * rng.uniform(0.2, 0.4))
    ripple = np.sin(radius * np.float32(2 * np.pi / pitch)) * np.float32(rng.choice([0.0, 0.1]))
    grain = noise(rng, h, w, 1.0, grain=scale) * np.float32(rng.uniform(0.04, 0.18))
    tone = rng.uniform(0.35, 0.85) if rng.random() < 0.55 else rng.uniform(1.1, 1.7)
    return np.float32(tone) * np.clip(1 + tones + ripple + grain, 0.2, 2)


def _rim(canvas: Canvas, rng: Rng, cover: Field) -> Field:
    """Light (h, w) along the outline of a missing piece: one side lit, the other in shade."""
    edge = relief(
        blur(cover, 0.8 * canvas.unit), rng.uniform(0, 2 * np.pi), canvas.unit * rng.uniform(0.1, 0.45)
    )
    soft = blur(cover, 0.6 * canvas.unit)
    line = 4 * soft * (1 - soft)
    return (edge - line * np.float32(rng.uniform(0, 0.12))) * canvas.support


@flaw("chip")
def _chip(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A small bite out of an edge or corner: the background or a bright or dark fracture shows."""
    size = scaled(canvas, rng, 2, 9)
    cover, at = _piece(canvas, rng, size, 0.45)
    gone = rng.random() < 0.4 and float(canvas.support.min()) < 0.5
    face = canvas.background if gone else _fracture(canvas, rng, cover, at, size)
    return blend(canvas.image, face, cover) + _rim(canvas, rng, cover)[..., None], cover


@flaw("break")
def _break(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Broken off or spalled at an edge or corner: an angular or shell-shaped piece is gone, its fracture
    faceted and shaded; or a flake that still hangs there behind a dark crack.
    """
    size = scaled(canvas, rng, 3.5, 36)
    cover, at = _piece(canvas, rng, size, 0.5)
    kind = rng.random()
    if kind < 0.25 and size > 6 * canvas.unit:
        return _flake(canvas, rng, cover), cover
    gone = kind < 0.5 and float(canvas.support.min()) < 0.5
    face = canvas.background if gone else _fracture(canvas, rng, cover, at, size)
    return blend(canvas.image, face, cover) + _rim(canvas, rng, cover)[..., None], cover


def _flake(canvas: Canvas, rng: Rng, cover: Field) -> Rgb:
    """Loosened, not gone: the piece keeps its texture, tilted in the light, behind a dark line."""
    h, w = canvas.size
    line = np.clip(4 * cover * (1 - cover) + 3 * np.abs(cover - blur(cover, 0.7 * canvas.unit)) - 0.5, 0, 1)
    line = line * np.clip(0.8 + 0.5 * noise(rng, h, w, 1.5), 0.1, 1) * (canvas.support > 0.7)
    tilt = 1 + cover * np.float32(polarity(rng) * rng.uniform(0.06, 0.25))
    return canvas.image * (tilt * (1 - line * np.float32(rng.uniform(0.4, 0.9))))[..., None]


@flaw("burr", beyond=True, trimmed=True)
def _burr(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Ragged extra material along an edge: bright spikes beyond the outline."""
    h, w = canvas.size
    cy, cx, _ = rim_place(canvas, rng)
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
    return blend(canvas.image, tone, spikes), np.clip(blur(spikes, canvas.unit) * 2.5, 0, 1)
