"""Shapes: parts of several materials and the normal structure inside them; with the plain outlines they are
`SHAPES`.

In: a seeded generator and a size. Out: a `Shaped`: the signed distance to the outline in pixels, negative
inside, and the coats and the relief that make the part up. Sizes are relative to `s` = min(h, w).
"""

from __future__ import annotations

import numpy as np

from dapo.pretraining.fields import Field, Rgb, Rng, folded, ramp
from dapo.pretraining.lettering import code, lettered, put
from dapo.pretraining.outlines import (
    OTHER_SHAPES,
    SHAPES,
    Shaped,
    box,
    centre,
    hexagon,
    radial,
    shape,
)

__all__ = ["OTHER_SHAPES", "SHAPES", "Shaped"]


def _tone(rng: Rng, low: float = 0.05, high: float = 0.95, colour: float = 0.5) -> Rgb:
    """A colour: grey, or with probability `colour` a dye."""
    level = rng.uniform(low, high)
    return np.clip(level + rng.normal(0, 0.2 if rng.random() < colour else 0.02, 3), 0.02, 0.98).astype(
        np.float32
    )


def _metal(rng: Rng) -> Rgb:
    """Steel, brass or copper."""
    casts = ((1.0, 1.0, 1.0), (1.0, 0.97, 0.93), (1.0, 0.85, 0.5), (1.0, 0.65, 0.45))
    return np.asarray(casts[rng.integers(4)], np.float32) * np.float32(rng.uniform(0.45, 0.85))


def _print(rng: Rng, h: int, w: int, cover: Field, size: float, lines: int = 1) -> Field:
    """Lines of print in the middle of `cover`."""
    ink = np.zeros((h, w), np.float32)
    rows, cols = np.flatnonzero((cover > 0.5).any(1)), np.flatnonzero((cover > 0.5).any(0))
    if len(rows) and len(cols):
        cy, cx = (rows[0] + rows[-1]) / 2, (cols[0] + cols[-1]) / 2
        for k in range(lines):
            stamp = lettered(code(rng), size)
            put(ink, stamp, round(cy + (k - lines / 2) * size * 1.1), round(cx - stamp.shape[1] / 2))
    return ink * cover


@shape("capsule")
def _capsule(rng: Rng, h: int, w: int) -> Shaped:
    """Two halves of two colours; the cap overlaps the body with a step."""
    v, u, s = centre(rng, h, w)
    r = s * rng.uniform(0.1, 0.2)
    distance = box(v, u, r, s * rng.uniform(0.3, 0.42), r * 0.98)
    cap = ramp(u - np.float32(s * rng.uniform(-0.06, 0.06)))
    coats = [(1 - cap, _tone(rng, 0.2)), (cap, _tone(rng, 0.2))]
    if rng.random() < 0.5:
        ink = _print(rng, h, w, ramp(distance + np.float32(r * 0.3)), s * rng.uniform(0.07, 0.12))
        coats.append((ink, _tone(rng, 0.05, 0.3)))
    return Shaped(distance, tuple(coats), cap * np.float32(s * 0.006))


@shape("chip package")
def _package(rng: Rng, h: int, w: int) -> Shaped:
    """A black body with its print and the dimple of pin 1, bright legs."""
    v, u, s = centre(rng, h, w)
    body = box(v, u, s * 0.2, s * 0.28, s * 0.02)
    pitch = s * rng.uniform(0.07, 0.12)
    legs = box(v, folded(u, pitch), s * 0.32, pitch * 0.22, 0.5)
    legs = np.maximum(legs, np.abs(u) - np.float32(s * 0.26))
    inside = ramp(body)
    dimple = ramp(radial(v - np.float32(s * 0.14), u + np.float32(s * 0.22)) - np.float32(s * 0.025))
    coats = [(1 - inside, _metal(rng)), (inside, _tone(rng, 0.06, 0.25, 0.1))]
    ink = _print(rng, h, w, inside, s * rng.uniform(0.06, 0.1), int(rng.integers(1, 4)))
    coats.append((ink, _tone(rng, 0.5, 0.95, 0.1)))
    return Shaped(np.minimum(body, legs), tuple(coats), -dimple * np.float32(s * 0.01))


@shape("nut on a washer")
def _nut_on_washer(rng: Rng, h: int, w: int) -> Shaped:
    """A hexagon nut with its chamfer, the thread in its bore, on a wider washer."""
    v, u, s = centre(rng, h, w)
    r = radial(v, u)
    flat = s * rng.uniform(0.2, 0.28)
    nut = hexagon(v, u) - np.float32(flat)
    bore = ramp(r - np.float32(flat * 0.55))
    thread = ramp(np.abs(r - np.float32(flat * 0.58)) - np.float32(flat * 0.06))
    coats = ((ramp(nut), _metal(rng)), (thread, _tone(rng, 0.2, 0.5, 0)), (bore, _tone(rng, 0.02, 0.3, 0)))
    height = ramp(nut, s * 0.02) * np.float32(s * 0.03) - np.maximum(r - np.float32(flat), 0) * np.float32(
        0.5
    )
    return Shaped(r - np.float32(s * rng.uniform(0.34, 0.45)), coats, height)


@shape("bolt head")
def _bolt(rng: Rng, h: int, w: int) -> Shaped:
    """A round or hexagon head with a socket: hexagon, cross or slot."""
    v, u, s = centre(rng, h, w)
    r, flat = radial(v, u), hexagon(v, u)
    size = s * rng.uniform(0.24, 0.42)
    kind = rng.integers(3)
    if kind == 0:
        socket = flat - np.float32(size * 0.42)
    else:
        socket = np.maximum(np.abs(v) - np.float32(size * 0.1), np.abs(u) - np.float32(size * 0.75))
        if kind == 1:
            socket = np.minimum(socket, np.maximum(np.abs(u) - size * 0.1, np.abs(v) - size * 0.75))
    distance = (flat if kind and rng.random() < 0.4 else r) - np.float32(size)
    sunk = ramp(socket.astype(np.float32), s * 0.012)
    ring = ramp(np.abs(r - np.float32(size * 0.85)) - np.float32(size * 0.03))
    return Shaped(distance, ((sunk, _tone(rng, 0.03, 0.25, 0)),), (-2 * sunk - ring) * np.float32(s * 0.012))


@shape("coin")
def _coin(rng: Rng, h: int, w: int) -> Shaped:
    """A struck rim, beads inside it, a figure and letters in relief."""
    v, u, s = centre(rng, h, w)
    r, theta = radial(v, u), np.arctan2(v, u)
    size = s * rng.uniform(0.32, 0.46)
    rim = ramp(np.float32(size * 0.92) - r)
    beads = ramp(np.abs(r - np.float32(size * 0.86)) - np.float32(size * 0.03)) * (
        0.5 + 0.5 * np.sin(theta * int(rng.integers(40, 80)))
    )
    wave = sum(
        np.float32(rng.normal(0, 0.12)) * np.cos(k * theta + np.float32(rng.uniform(0, 6.28)))
        for k in range(2, 7)
    )
    bust = ramp(r - np.float32(size * 0.5) * (1 + wave), s * 0.03)
    ink = _print(rng, h, w, ramp(r - np.float32(size * 0.8)), size * 0.35)
    return Shaped(r - np.float32(size), (), (rim + beads + bust + ink) * np.float32(s * 0.012))


@shape("ball bearing")
def _bearing(rng: Rng, h: int, w: int) -> Shaped:
    """Outer and inner ring, balls in the dark groove between, or a seal over them."""
    v, u, s = centre(rng, h, w)
    r, theta = radial(v, u), np.arctan2(v, u)
    outer = s * rng.uniform(0.34, 0.46)
    bore, middle = outer * rng.uniform(0.3, 0.45), outer * 0.7
    groove = ramp(np.abs(r - np.float32(middle)) - np.float32(outer * 0.13))
    coats = [(groove, _tone(rng, 0.04, 0.3, 0.2))]
    height = -groove * np.float32(s * 0.015)
    if rng.random() < 0.7:
        count = int(rng.integers(7, 14))
        arc = folded(theta, 2 * np.pi / count) * np.float32(middle)
        away = radial(r - np.float32(middle), arc) / np.float32(min(outer * 0.14, middle * 2.6 / count))
        coats.append((ramp((away - 1) * np.float32(outer * 0.12)), _metal(rng)))
        height = height + np.sqrt(np.clip(1 - away * away, 0, 1)) * np.float32(s * 0.03)
    distance = np.maximum(r - np.float32(outer), np.float32(bore) - r)
    return Shaped(distance, tuple(coats), height.astype(np.float32))


@shape("cable")
def _cable(rng: Rng, h: int, w: int) -> Shaped:
    """The cut of a cable: sheath, three insulated cores, the strands of each."""
    v, u, s = centre(rng, h, w)
    r, size = radial(v, u), s * rng.uniform(0.34, 0.46)
    coats = [(ramp(r - np.float32(size * rng.uniform(0.86, 0.93))), _tone(rng, 0.3))]
    first, copper = rng.uniform(0, 2 * np.pi), _metal(rng)
    p = s * rng.uniform(0.03, 0.045)
    strand = 0.65 + 0.35 * np.cos(v * np.float32(2 * np.pi / p)) * np.cos(u * np.float32(2 * np.pi / p))
    for k in range(3):
        turn = first + k * 2 * np.pi / 3
        d = radial(v - np.float32(size * 0.45 * np.sin(turn)), u - np.float32(size * 0.45 * np.cos(turn)))
        coats.append((ramp(d - np.float32(size * 0.37)), _tone(rng, 0.15, 0.9, 0.9)))
        core = ramp(d - np.float32(size * 0.22))
        coats += [(core, copper * np.float32(0.35)), (core * strand, copper)]
    return Shaped(r - np.float32(size), tuple(coats))


@shape("zipper")
def _zipper(rng: Rng, h: int, w: int) -> Shaped:
    """Two tapes of cloth and the interlocked teeth between them."""
    v, u, s = centre(rng, h, w)
    pitch, reach = s * rng.uniform(0.05, 0.09), s * rng.uniform(0.05, 0.08)
    teeth = np.zeros((h, w), np.float32)
    for side in (-1, 1):
        along = folded(u + np.float32(side * pitch / 4), pitch)
        tooth = box(v - np.float32(side * reach * 0.5), along, reach, pitch * 0.2, pitch * 0.08)
        teeth = np.maximum(teeth, ramp(tooth))
    seam = ramp(np.abs(v) - np.float32(reach * 0.9))
    coats = ((seam, _tone(rng, 0.03, 0.4)), (teeth, _metal(rng) if rng.random() < 0.6 else _tone(rng)))
    return Shaped(np.abs(v) - np.float32(s * rng.uniform(0.22, 0.4)), coats, teeth * np.float32(s * 0.015))


@shape("row of candles")
def _candles(rng: Rng, h: int, w: int) -> Shaped:
    """Equal round things in one row or in two, each with a rim and a wick, stem or hole in its middle."""
    v, u, s = centre(rng, h, w)
    pitch = s * rng.uniform(0.26, 0.4)
    radius = pitch * rng.uniform(0.36, 0.46)
    if rng.random() < 0.5:
        row, limit = folded(v + np.float32(pitch / 2), pitch), np.abs(v) - np.float32(pitch)
    else:
        row, limit = v, np.abs(v) - np.float32(pitch)
    r = radial(row, folded(u, pitch))
    ends = np.abs(u) - np.float32(1.5 * pitch)
    distance = np.maximum(np.maximum(r - np.float32(radius), limit), ends)
    cup = ramp(np.float32(radius * 0.88) - r)
    wick = ramp(r - np.float32(radius * rng.uniform(0.06, 0.14)))
    coats = ((cup, _metal(rng)), (wick, _tone(rng, 0.05, 0.9, 0.2)))
    return Shaped(distance, coats[rng.integers(2) :], (cup + wick) * np.float32(s * 0.01))


@shape("bristle block")
def _bristles(rng: Rng, h: int, w: int) -> Shaped:
    """The head of a brush: tufts in a grid, rows of two colours, holes dark around them."""
    v, u, s = centre(rng, h, w)
    body = box(v, u, s * rng.uniform(0.16, 0.3), s * rng.uniform(0.32, 0.46), s * 0.1)
    pitch = s * rng.uniform(0.06, 0.1)
    r = radial(folded(v, pitch), folded(u, pitch))
    field = ramp(body + np.float32(pitch * 0.6))
    tuft = ramp(r - np.float32(pitch * 0.36)) * field
    second = (np.floor(u / np.float32(pitch) + np.float32(0.5)) % int(rng.integers(2, 5)) == 0) * tuft
    hole = ramp(r - np.float32(pitch * 0.46)) * field
    coats = ((hole, _tone(rng, 0.03, 0.3)), (tuft, _tone(rng, 0.4)), (second, _tone(rng, 0.2, 0.9, 0.9)))
    return Shaped(body, coats, (1 - r / np.float32(pitch)) * tuft * np.float32(s * 0.02))


@shape("resistor")
def _resistor(rng: Rng, h: int, w: int) -> Shaped:
    """A body with colour rings between two wires, or a glass fuse between two caps."""
    v, u, s = centre(rng, h, w)
    half, length = s * rng.uniform(0.07, 0.13), s * rng.uniform(0.2, 0.3)
    body = box(v, u, half, length, half * rng.uniform(0.2, 0.9))
    wire = np.maximum(np.abs(v) - np.float32(half * 0.18), np.abs(u) - np.float32(s * 0.6))
    inside = ramp(body)
    coats = [(1 - inside, _metal(rng)), (inside, _tone(rng, 0.3, 0.9))]
    if rng.random() < 0.6:
        for k in range(int(rng.integers(3, 6))):
            at = length * (-0.6 + 0.3 * k)
            coats.append((inside * ramp(np.abs(u - np.float32(at)) - np.float32(length * 0.07)), _tone(rng)))
    else:
        coats.append((inside * ramp(np.float32(length * 0.65) - np.abs(u)), _metal(rng)))
    barrel = np.sqrt(np.clip(1 - (v / np.float32(half)) ** 2, 0, 1)) * inside * np.float32(half * 0.3)
    return Shaped(np.minimum(body, wire), tuple(coats), barrel)


@shape("bottle mouth")
def _mouth(rng: Rng, h: int, w: int) -> Shaped:
    """A bottle, can or jar from above: concentric rings of own brightness, dark or bright inside."""
    v, u, s = centre(rng, h, w)
    r = radial(v, u)
    size = s * rng.uniform(0.34, 0.48)
    coats = []
    radius = size
    for _ in range(int(rng.integers(2, 5))):
        radius *= rng.uniform(0.7, 0.95)
        coats.append(
            (ramp(r - np.float32(radius), s * rng.uniform(0.008, 0.03)), _tone(rng, 0.02, 0.95, 0.3))
        )
    lip = np.exp(-(((r - np.float32(size * 0.93)) / np.float32(size * 0.04)) ** 2))
    return Shaped(r - np.float32(size), tuple(coats), lip * np.float32(s * 0.015))


@shape("terminal strip")
def _terminals(rng: Rng, h: int, w: int) -> Shaped:
    """A row of clamps: walls between them, a screw with its slot in each."""
    v, u, s = centre(rng, h, w)
    pitch = s * rng.uniform(0.13, 0.22)
    body = box(v, u, s * rng.uniform(0.14, 0.22), pitch * rng.integers(2, 4) + pitch / 2, s * 0.015)
    along = folded(u, pitch)
    r = radial(v, along)
    wall = ramp(np.float32(pitch * 0.42) - np.abs(along))
    screw = ramp(r - np.float32(pitch * 0.32))
    turn = np.float32(rng.uniform(0, np.pi))
    slot = ramp(np.abs(v * np.cos(turn) + along * np.sin(turn)) - np.float32(pitch * 0.05)) * screw
    well = ramp(r - np.float32(pitch * 0.38))
    coats = ((well, _tone(rng, 0.03, 0.2, 0)), (screw, _metal(rng)), (slot, _tone(rng, 0.03, 0.2, 0)))
    return Shaped(body, coats, (wall + screw - well) * np.float32(s * 0.012))


@shape("board")
def _board(rng: Rng, h: int, w: int) -> Shaped:
    """A bare circuit board: solder mask, holes in its corners, two rows of plated pads, a name."""
    v, u, s = centre(rng, h, w)
    half_v, half_u = s * rng.uniform(0.24, 0.4), s * rng.uniform(0.3, 0.46)
    body = box(v, u, half_v, half_u, s * rng.uniform(0, 0.04))
    inset = s * rng.uniform(0.05, 0.08)
    hole = radial(np.abs(v) - np.float32(half_v - inset), np.abs(u) - np.float32(half_u - inset))
    pitch = s * rng.uniform(0.05, 0.09)
    r = radial(np.abs(v) - np.float32(half_v * rng.uniform(0.2, 0.6)), folded(u, pitch))
    field = ramp(np.abs(u) - np.float32(half_u - 2.2 * inset))
    pads = np.maximum(ramp(r - np.float32(pitch * 0.34)) * field, ramp(hole - np.float32(inset * 0.55)))
    drilled = ramp(r - np.float32(pitch * 0.15)) * field
    mask = np.array([0.1, 0.38, 0.18], np.float32)[rng.permutation(3) if rng.random() < 0.4 else [0, 1, 2]]
    ink = _print(rng, h, w, ramp(body), s * rng.uniform(0.06, 0.12))
    coats = [(ramp(body - np.float32(s * 0.08)), mask), (ink, _tone(rng, 0.8, 0.95, 0))]
    coats += [(pads, _metal(rng)), (drilled, _tone(rng, 0.02, 0.1, 0))]
    return Shaped(np.maximum(body, np.float32(inset * 0.35) - hole), tuple(coats))
