"""Patterns: the procedural families of surfaces that repeat or carry figures: fabrics, meshes, boards, print.

In: a seeded generator and a size. Out: as in `dapo.pretraining.materials`, whose `FAMILIES` these join when
this module is imported. What repeats, and what is printed, belongs to the surface: a detector has to leave
it alone.
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
    grid,
    noise,
    ramp,
    rotated,
    strokes,
    unit,
)
from dapo.pretraining.lettering import lettered, put, strip
from dapo.pretraining.materials import family


def _colour(rng: Rng, low: float = 0.05, high: float = 0.95) -> Rgb:
    """A random colour, grey more often than not."""
    level = rng.uniform(low, high)
    return np.clip(level + rng.normal(0, rng.choice([0.02, 0.15]), 3), 0.02, 0.98).astype(np.float32)


@family("woven fabric")
def _woven(rng: Rng, h: int, w: int) -> Field | Rgb:
    """Plain weave, twill or satin; sometimes with the stripes or checks of coloured yarn."""
    y, x = grid(h, w)
    period = unit(h, w) * rng.uniform(3.0, 11.0)
    jitter = np.float32(0.6 * unit(h, w)) * noise(rng, h, w, 2.5)
    shift = rng.choice([0.0, 0.0, 0.5, 0.25]) * y if rng.random() < 0.5 else 0.0
    a = np.sin((x + jitter + shift) * np.float32(2 * np.pi / period))
    b = np.sin((y + jitter) * np.float32(2 * np.pi / period / rng.uniform(0.7, 1.4)))
    over = np.sign(a * b) if rng.random() < 0.5 else a * b
    field = rng.uniform(0.3, 0.7) * (a + b) + 0.6 * over + rng.uniform(0.1, 0.4) * noise(rng, h, w, 0.3)
    if rng.random() < 0.65:
        return np.asarray(field, np.float32)
    ends = _yarns(rng, w, unit(h, w))[None, :]
    picks = _yarns(rng, h, unit(h, w))[:, None] if rng.random() < 0.5 else ends
    mixed = (ends + picks) / 2
    gain = 1 + np.float32(rng.uniform(0.04, 0.14)) * np.asarray(field, np.float32)[..., None]
    return np.clip(mixed * gain, 0, 1).astype(np.float32)


def _yarns(rng: Rng, length: int, scale: float) -> Rgb:
    """(length, 3) colours of a warp: a repeat of a few stripes."""
    colours = np.stack([_colour(rng) for _ in range(3)])
    repeat = np.concatenate(
        [
            np.full(max(1, round(scale * rng.uniform(2, 18))), k)
            for k in rng.integers(0, 3, rng.integers(2, 6))
        ]
    )
    return colours[np.resize(repeat, length)]


@family("carbon fibre")
def _carbon(rng: Rng, h: int, w: int) -> Rgb:
    """2/2 twill of carbon tows: black, each tow a bright bar where its fibres face the lamp."""
    p = unit(h, w) * rng.uniform(4, 13)
    v, x = rotated(h, w, -3 * h, -3 * w, rng.choice([0.0, np.pi / 4, rng.uniform(-0.1, 0.1)]))
    row, col = np.floor(v / np.float32(p)), np.floor(x / np.float32(p))
    over = (row + col) % 4 < 2
    across = np.sin(np.pi * (v / np.float32(p) - row))
    along = np.sin(np.pi * (x / np.float32(p) - col))
    across, along = np.sqrt(np.abs(across)), np.sqrt(np.abs(along))
    warp, weft = rng.uniform(0.1, 0.5, 2)
    fibre = noise(rng, h, w, 0.5, 6.0)
    tow = np.where(over, np.float32(warp) * along, np.float32(weft) * across) * (
        1 + np.float32(0.12) * np.where(over, fibre, fibre[::-1])
    )
    base = rng.uniform(0.04, 0.2)
    tint = (1 + rng.normal(0, 0.03, 3)).astype(np.float32)
    return np.clip((np.float32(base) + np.float32(rng.uniform(0.3, 1)) * tow)[..., None] * tint, 0, 1)


@family("honeycomb")
def _honeycomb(rng: Rng, h: int, w: int) -> Field:
    """Hexagon cells or a hexagon mesh: even walls, floors a little different from cell to cell."""
    p = np.float32(unit(h, w) * rng.uniform(7, 24))
    v, x = rotated(h, w, -h, -w, rng.choice([0.0, np.pi / 2, rng.uniform(0, np.pi)]))
    pitch = p * np.float32(np.sqrt(3))

    def hexagon(dv: Field, dx: Field) -> Field:
        return np.maximum(np.abs(dx), np.abs(dx) * np.float32(0.5) + np.abs(dv) * np.float32(np.sqrt(3) / 2))

    first = hexagon((v % pitch) - pitch / 2, (x % p) - p / 2)
    second = hexagon(((v + pitch / 2) % pitch) - pitch / 2, ((x + p / 2) % p) - p / 2)
    inside = p / 2 - np.minimum(first, second)
    wall = ramp(inside - p * np.float32(rng.uniform(0.04, 0.14)), unit(h, w))
    floor = np.clip(inside / p, 0, 0.5) * np.float32(rng.uniform(-2, 2))
    return (
        rng.choice([-1.0, 1.0]) * np.float32(rng.uniform(0.8, 2.4)) * wall
        + floor
        + np.float32(0.2) * noise(rng, h, w, 1.0)
    )


@family("woven wire")
def _wire(rng: Rng, h: int, w: int) -> Field:
    """Wire cloth: round wires passing over and under each other, gaps dark or lit from behind."""
    p = np.float32(unit(h, w) * rng.uniform(6, 16))
    thick = p * np.float32(rng.uniform(0.18, 0.36))
    v, x = rotated(h, w, -h, -w, rng.choice([0.0, np.pi / 4, rng.uniform(0, np.pi)]))
    up = np.cos(np.pi * (v / p)) * np.cos(np.pi * (x / p)) > 0

    def rod(d: Field, along: Field) -> tuple[Field, Field]:
        off = (d % p) - p / 2
        lit = np.sqrt(np.clip(1 - (off / thick) ** 2, 0, 1)) + np.float32(0.3) * off / thick
        return ramp(np.abs(off) - thick), lit + np.float32(0.3) * np.cos(np.pi * (along / p)) ** 2

    cover_a, lit_a = rod(v, x)
    cover_b, lit_b = rod(x, v)
    gap = np.float32(rng.choice([-1.5, -1.0, 2.0]))
    lower = np.where(up, cover_b * lit_b + (1 - cover_b) * gap, cover_a * lit_a + (1 - cover_a) * gap)
    top, lit = np.where(up, cover_a, cover_b), np.where(up, lit_a, lit_b)
    return lower + (lit - lower) * top + np.float32(0.15) * noise(rng, h, w, 1.0)


@family("knurled metal")
def _knurled(rng: Rng, h: int, w: int) -> Field:
    """Knurling, ribs or a grip: crossed or straight ridges, lit from one side."""
    p = unit(h, w) * rng.uniform(3.5, 12)
    turn = rng.choice([np.pi / 6, np.pi / 4, 0.0])
    light = rng.uniform(0.3, 1.0, 2)
    field = np.zeros((h, w), np.float32)
    for k, sign in enumerate((1, -1)[: 1 if turn == 0 else 2]):
        v, _ = rotated(h, w, 0, 0, sign * turn)
        saw = np.abs((v / np.float32(p)) % 1 - np.float32(0.5)) * 4 - 1
        field = field + np.clip(saw * np.float32(rng.uniform(1.0, 2.2)), -1, 1) * np.float32(light[k])
    return field + np.float32(rng.uniform(0.1, 0.4)) * noise(rng, h, w, 0.3)


@family("rows of parts")
def _rows(rng: Rng, h: int, w: int) -> Rgb:
    """Many equal small things in rows: pills in a blister, sweets, contacts, balls, beads on a ground."""
    u = unit(h, w)
    py = u * rng.uniform(11, 34)
    px = py * rng.choice([1.0, rng.uniform(0.7, 1.6)])
    y, x = grid(h, w)
    oy, ox = rng.uniform(0, 1, 2)
    row = np.floor(y / np.float32(py) + np.float32(oy)).astype(np.int32)
    late = np.float32(0.5) * (row % 2) if rng.random() < 0.4 else np.float32(0)
    place = x / np.float32(px) + np.float32(ox) + late
    col = np.floor(place).astype(np.int32)
    table = (row.max() + 1, col.max() + 1)
    loose = rng.uniform(0, 0.06)
    dy = (y / np.float32(py) + np.float32(oy) - row - np.float32(0.5)) * np.float32(py)
    dx = (place - col - np.float32(0.5)) * np.float32(px)
    if loose > 0.02:
        dy = dy + rng.normal(0, loose * py, table).astype(np.float32)[row, col]
        dx = dx + rng.normal(0, loose * px, table).astype(np.float32)[row, col]
    ry, rx = py * rng.uniform(0.24, 0.42), px * rng.uniform(0.24, 0.42)
    if rng.random() < 0.35:
        rx = ry = min(ry, rx)
    power = rng.choice([2.0, 2.0, 6.0])
    q = np.abs(dy / np.float32(ry)) ** np.float32(power) + np.abs(dx / np.float32(rx)) ** np.float32(power)
    radius = q ** np.float32(1 / power)
    cover = ramp((radius - 1) * np.float32(min(rx, ry)), u)
    dome = np.float32(1) - np.float32(rng.uniform(0, 0.45)) * np.clip(radius, 0, 1) ** 3
    lean = np.float32(rng.uniform(-0.2, 0.2)) * dx / np.float32(rx) + np.float32(rng.uniform(-0.2, 0.2)) * (
        dy / np.float32(ry)
    )
    colours = np.stack([_colour(rng, 0.2) for _ in range(int(rng.choice([1, 1, 1, 4])))])
    thing = colours[rng.integers(len(colours), size=table)][row, col] * (dome + lean)[..., None]
    if rng.random() < 0.5:  # a highlight on each
        spot = np.exp(
            -((dy + np.float32(ry * 0.4)) ** 2 + (dx + np.float32(rx * 0.3)) ** 2) / (ry * rx * 0.06)
        )
        thing = thing + (np.float32(rng.uniform(0.1, 0.7)) * spot)[..., None]
    ground = _colour(rng) * (1 + np.float32(0.06) * noise(rng, h, w, 1.0))[..., None]
    if rng.random() < 0.5:
        ground = ground * (1 - np.float32(rng.uniform(0.1, 0.5)) * np.clip(1.6 - radius, 0, 1))[..., None]
    return np.clip(blend(ground, thing, cover), 0, 1)


@family("knitted fabric")
def _knitted(rng: Rng, h: int, w: int) -> Field:
    """Rows of loops: each stitch bends its row into an arch."""
    y, x = grid(h, w)
    u = unit(h, w)
    p = u * rng.uniform(5.0, 14.0)
    wave = y + p * 0.35 * np.abs(np.sin(x * np.float32(np.pi / p))) + 0.8 * u * noise(rng, h, w, 2.5)
    return np.sin(wave * np.float32(2 * np.pi / (p * 0.6))) * np.abs(
        np.cos(x * np.float32(np.pi / p))
    ) + 0.25 * noise(rng, h, w, 0.3)


@family("tiles")
def _tiles(rng: Rng, h: int, w: int) -> Field:
    """Tiles or bricks: joints in a grid, every second row offset by half a tile at times."""
    y, x = grid(h, w)
    u = unit(h, w)
    py, px = u * rng.uniform(16, 70, 2)
    oy, ox = u * rng.uniform(0, 70, 2)
    width = u * rng.uniform(0.8, 2.6)
    row = np.floor((y + oy) / py)
    shift = px / 2 * (row % 2) if rng.random() < 0.4 else 0.0
    dy = np.abs((y + oy) % py - py / 2)
    dx = np.abs((x + ox + shift) % px - px / 2)
    joint = np.maximum(ramp(py / 2 - dy - width), ramp(px / 2 - dx - width))
    return rng.choice([-1.0, 1.0]) * rng.uniform(0.6, 2.0) * joint + rng.uniform(0.1, 0.5) * noise(
        rng, h, w, 1.0
    )


@family("mesh")
def _mesh(rng: Rng, h: int, w: int) -> Field:
    """Flat crossing bars, brighter or darker than what is behind."""
    v, u = rotated(h, w, 0, 0, rng.choice([0.0, np.pi / 4, rng.uniform(0, np.pi)]))
    p = unit(h, w) * rng.uniform(6, 22)
    width = p * rng.uniform(0.12, 0.3)
    a = ramp(np.abs(v % p - p / 2) - width)
    b = ramp(np.abs(u % p - p / 2) - width)
    return rng.choice([-1.0, 1.0]) * rng.uniform(1.2, 2.6) * np.maximum(a, b) + 0.2 * noise(rng, h, w, 1.0)


@family("perforated sheet")
def _perforated(rng: Rng, h: int, w: int) -> Field:
    """Sheet with round holes in a grid or staggered, dark behind."""
    y, x = grid(h, w)
    p = unit(h, w) * rng.uniform(10, 34)
    r = p * rng.uniform(0.15, 0.36)
    oy, ox = rng.uniform(0, p, 2)
    row = np.floor((y + oy) / p)
    shift = p / 2 * (row % 2) if rng.random() < 0.5 else 0.0
    dy = (y + oy) % p - p / 2
    dx = (x + ox + shift) % p - p / 2
    holes = ramp(np.sqrt(dy * dy + dx * dx) - r)
    return -rng.uniform(1.0, 2.8) * holes + rng.uniform(0.1, 0.4) * noise(rng, h, w, 0.5)


@family("corrugated sheet")
def _corrugated(rng: Rng, h: int, w: int) -> Field:
    """Ridges along x, bright and dark in turn."""
    y, _ = grid(h, w)
    u = unit(h, w)
    p = u * rng.uniform(6, 40)
    wave = np.sin((y + 0.5 * u * noise(rng, h, w, 2.5)) * np.float32(2 * np.pi / p))
    return rng.uniform(0.4, 1.2) * wave + rng.uniform(0.1, 0.4) * noise(rng, h, w, 0.3)


@family("printed label")
def _printed(rng: Rng, h: int, w: int) -> Field | Rgb:
    """Print that belongs there: lines of text in several sizes, rules, bar codes, inverse panels."""
    u = unit(h, w)
    ink = np.zeros((h, w), np.float32)
    left = int(rng.uniform(-20, 8) * u)
    y = rng.uniform(-4, 4) * u
    body = u * rng.uniform(5, 13)
    while y < h:
        kind = rng.random()
        if kind < 0.8:
            size = body if rng.random() < 0.8 else body * rng.uniform(1.3, 2.4)
            put(ink, strip(rng, size)[:, : int(w * rng.uniform(0.3, 2.0))], round(y), left)
            y += size * rng.uniform(1.0, 1.5)
        elif kind < 0.9:
            bars = np.repeat(
                rng.random(int(rng.uniform(20, 60))) < 0.5, max(1, round(u * rng.uniform(0.8, 1.8)))
            )
            high = max(2, round(u * rng.uniform(6, 20)))
            put(ink, np.repeat(bars[None].astype(np.float32), high, 0), round(y), int(rng.uniform(0, w / 2)))
            y += high + body
        else:
            put(ink, np.ones((max(1, round(u * rng.uniform(0.5, 2))), w), np.float32), round(y), left)
            y += body * 0.8
    if rng.random() < 0.3:  # an inverse panel
        top, side = int(rng.uniform(0, h)), int(rng.uniform(0, w))
        panel = ink[top : top + int(rng.uniform(0.1, 0.5) * h), side : side + int(rng.uniform(0.2, 0.8) * w)]
        np.subtract(1, panel, out=panel)
    if rng.random() < 0.35:
        ink = blur(ink, u * rng.uniform(0.3, 0.7))
    paper = np.float32(0.15) * noise(rng, h, w, 0.5)
    if rng.random() < 0.4:
        return np.float32(rng.choice([-1.0, -1.0, 1.0]) * rng.uniform(0.8, 2.5)) * ink + paper
    ground, black = _colour(rng, 0.5, 0.95), _colour(rng, 0.05, 0.35)
    if rng.random() < 0.3:
        ground, black = black, ground
    return np.clip(blend(ground, black, ink) * (1 + np.float32(0.1) * paper[..., None]), 0, 1)


@family("circuit board")
def _board(rng: Rng, h: int, w: int) -> Rgb:
    """Traces, pads and vias; bright copper on a dark board or the reverse; sometimes binary as in automated
    optical inspection, sometimes under solder mask with rows of pads, chip outlines and print.
    """
    pitch = unit(h, w) * rng.uniform(6, 18)
    copper = _copper(rng, h, w, pitch)
    if rng.random() < 0.45:  # under solder mask
        low = _mask_colour(rng)
        pads, silk = _assembled(rng, h, w)
        board = low * (1 + np.float32(rng.uniform(0.1, 0.5)) * copper)[..., None]
        metal = np.array([0.85, 0.8, rng.uniform(0.5, 0.8)], np.float32) * np.float32(rng.uniform(0.6, 1.05))
        board = blend(board, metal, pads)
        white = np.float32(rng.uniform(0.7, 0.95))
        board = blend(board, white, silk * (1 - pads))
        if rng.random() < 0.15:
            board = 1 - board
        return np.clip(board * (1 + np.float32(0.04) * noise(rng, h, w, 1.0))[..., None], 0, 1)
    if rng.random() < 0.5:
        low, high = np.zeros(3, np.float32), np.ones(3, np.float32)
    else:
        low = np.array([rng.uniform(0, 0.25), rng.uniform(0.1, 0.45), rng.uniform(0, 0.35)], np.float32)
        high = np.array([rng.uniform(0.4, 0.95), rng.uniform(0.4, 0.85), rng.uniform(0.2, 0.6)], np.float32)
        copper = np.clip(copper * (1 + 0.06 * noise(rng, h, w, 1.0)), 0, 1)
    if rng.random() < 0.5:
        low, high = high, low
    return blend(low, high, copper)


def _mask_colour(rng: Rng) -> Rgb:
    """Solder mask: green mostly, also blue, red, black."""
    palette = (
        (0.08, 0.32, 0.14),
        (0.1, 0.4, 0.22),
        (0.06, 0.16, 0.4),
        (0.45, 0.08, 0.08),
        (0.07, 0.07, 0.08),
    )
    return np.asarray(palette[rng.integers(len(palette))], np.float32) * np.float32(rng.uniform(0.7, 1.5))


def _copper(rng: Rng, h: int, w: int, pitch: float) -> Field:
    """Coverage of the copper: traces that jog from lane to lane, pads and vias."""
    width = pitch * rng.uniform(0.22, 0.5)
    scale = unit(h, w) * max(1.0, pitch / (12 * unit(h, w)))
    paths: list[Path] = []
    widths: list[float] = []
    lane = rng.uniform(0, pitch)
    while lane < h:
        x0, y0 = -4.0, lane
        path = [(x0, y0)]
        while x0 < w + 4:
            x0 += rng.uniform(10, 60) * scale
            path.append((x0, y0))
            if rng.random() < 0.45:
                jump = pitch * rng.choice([-1, 1])
                x0 += abs(jump)
                y0 += jump
                path.append((x0, y0))
        if rng.random() < 0.85:
            paths.append(path)
            widths.append(width)
        lane += pitch * (1 if rng.random() < 0.8 else 2)
    copper = strokes(h, w, paths, widths) if paths else np.zeros((h, w), np.float32)
    y, x = grid(h, w)
    for _ in range(rng.integers(0, 8)):
        cy, cx, r = rng.uniform(0, h), rng.uniform(0, w), pitch * rng.uniform(0.3, 0.6)
        d = np.sqrt((y - np.float32(cy)) ** 2 + (x - np.float32(cx)) ** 2)
        copper = np.maximum(copper, ramp(d - np.float32(r)))
        if rng.random() < 0.6:
            copper = copper * (1 - ramp(d - np.float32(r * 0.45)))
    return copper


def _assembled(rng: Rng, h: int, w: int) -> tuple[Field, Field]:
    """(pads, silkscreen): footprints of chips with their two rows of pads, outline and name, pin headers."""
    u = unit(h, w)
    pads, silk = np.zeros((h, w), np.float32), np.zeros((h, w), np.float32)
    line = max(1, round(u * 0.8))
    for _ in range(int(rng.integers(1, 6))):
        pitch = max(3, round(u * rng.uniform(3, 8)))
        count = int(rng.integers(2, 9))
        gap = round(u * rng.uniform(6, 30))
        long, wide = (
            max(2, round(pitch * rng.uniform(0.5, 1.4))),
            max(1, round(pitch * rng.uniform(0.4, 0.6))),
        )
        chip = np.zeros((2 * long + gap, count * pitch), np.float32)
        for k in range(count):
            chip[:long, k * pitch : k * pitch + wide] = 1
            chip[long + gap :, k * pitch : k * pitch + wide] = 1
        frame = np.zeros_like(chip)
        inner = frame[long + line : long + gap - line]
        inner[:line], inner[-line:], inner[:, :line], inner[:, -line:] = 1, 1, 1, 1
        turned = rng.random() < 0.5
        y, x = int(rng.uniform(-0.1, 0.9) * h), int(rng.uniform(-0.1, 0.9) * w)
        put(pads, chip.T if turned else chip, y, x)
        if rng.random() < 0.7:
            put(silk, frame.T if turned else frame, y, x)
        if rng.random() < 0.7:
            name = lettered(str(rng.choice(["R", "C", "U", "J", "D", "Q"])) + str(rng.integers(1, 99)), 7 * u)
            put(silk, name, y - name.shape[0] - line, x)
    return pads, silk
