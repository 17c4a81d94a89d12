"""Flaws of traces on boards and prints: opens, shorts, spurs and mouse bites.

Each function draws one visual family on a `Canvas`; see canvas.py for what goes in and out.
"""

from __future__ import annotations

import numpy as np

from dapo.pretraining.fields import Field, Rgb, Rng, blend, blob, blur, strokes, walk
from dapo.pretraining.flaws.canvas import Canvas, flaw, place, scaled, spread


def _metals(canvas: Canvas) -> tuple[np.ndarray, np.ndarray, Field]:
    """(ground colour, trace colour, trace coverage) by splitting the part's luminance in two at its
    middle.
    """
    grey, part = canvas.grey, canvas.support > 0.5
    some = grey[::2, ::2][part[::2, ::2]]
    low, high = np.quantile(some, [0.05, 0.95]) if some.size else (0.0, 0.0)
    bright, dark = part & (grey > (low + high) / 2), part & (grey <= (low + high) / 2)
    if not dark.any() or not bright.any():
        mean = canvas.colour
        return mean, np.clip(1.3 * mean + 0.15, 0, 1), bright.astype(np.float32)
    ground, trace = (
        np.einsum("hw,hwc->c", side.astype(np.float32), canvas.image) / np.float32(side.sum())
        for side in (dark, bright)
    )
    if bright.sum() > dark.sum():
        ground, trace, bright = trace, ground, dark
    return ground, trace, bright.astype(np.float32)


def _on_trace(canvas: Canvas, rng: Rng, trace: Field) -> tuple[float, float]:
    """A place on a trace; on the part where there is none."""
    places = np.argwhere(trace > 0.5)
    if len(places) == 0:
        return place(canvas, rng)
    y, x = places[rng.integers(len(places))]
    return float(y), float(x)


@flaw("open", trimmed=True)
def _open(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A trace interrupted: a gap across it filled with the ground colour."""
    ground, _, trace = _metals(canvas)
    cy, cx = _on_trace(canvas, rng, trace)
    cover = spread(canvas, rng, cy, cx, (2.5, 7), wobble=0.3, longest=1.6) * blur(trace, 0.7 * canvas.unit)
    return blend(canvas.image, ground, cover), (cover > 0.25).astype(np.float32)


@flaw("short", trimmed=True)
def _short(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Two traces joined by a bridge of trace material."""
    h, w = canvas.size
    _, metal, trace = _metals(canvas)
    cy, cx = _on_trace(canvas, rng, trace)
    path = walk(rng, cy, cx, scaled(canvas, rng, 10, 26), turn=0.15, steps=5)
    cover = strokes(h, w, [path], [scaled(canvas, rng, 1.5, 4)]) * (1 - trace)
    return blend(canvas.image, metal, cover), (cover > 0.3).astype(np.float32)


@flaw("spur", trimmed=True)
def _spur(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A thorn of trace material, or an island of it (spurious copper), on the ground."""
    _, metal, trace = _metals(canvas)
    cy, cx = _on_trace(canvas, rng, trace) if rng.random() < 0.5 else place(canvas, rng)
    cover = spread(canvas, rng, cy, cx, (2, 6), wobble=0.5, longest=2) * (1 - blur(trace, 0.6 * canvas.unit))
    return blend(canvas.image, metal, cover), (cover > 0.3).astype(np.float32)


@flaw("mouse_bite", trimmed=True)
def _mouse_bite(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A bite out of the side of a trace."""
    h, w = canvas.size
    ground, _, trace = _metals(canvas)
    soft = blur(trace, canvas.unit)
    rim = np.argwhere((soft > 0.3) & (soft < 0.7))
    cy, cx = rim[rng.integers(len(rim))] if len(rim) else place(canvas, rng)
    cover = blob(rng, h, w, float(cy), float(cx), scaled(canvas, rng, 1.8, 4.5), wobble=0.4) * blur(
        trace, 0.5 * canvas.unit
    )
    return blend(canvas.image, ground, cover), (cover > 0.3).astype(np.float32)
