"""Materials: the procedural families of surfaces without a pattern, from ground metal to foam.

In: a seeded generator and a size. Out: a luminance field (h, w) about 0 +- 1, or an image (h, w, 3) in
[0, 1]; the grain runs along x. `FAMILIES` holds them all; `dapo.pretraining.patterns` adds the regular ones.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from dapo.pretraining.fields import (
    Field,
    Rgb,
    Rng,
    blur,
    enlarge,
    grid,
    log_uniform,
    noise,
    relief,
    rotated,
    smooth,
    unit,
)

Family = Callable[[Rng, int, int], Field | Rgb]
FAMILIES: dict[str, Family] = {}

CELL = 16.0  # px, mean width of a cell in the kept cell pattern
CELL_SIDE = 384  # px, side of that periodic pattern


def family(name: str) -> Callable[[Family], Family]:
    """Register a procedural family: (rng, h, w) -> luminance (h, w) about 0 +- 1, or an image (h, w, 3) in
    [0, 1].
    """

    def keep(draw: Family) -> Family:
        FAMILIES[name] = draw
        return draw

    return keep


def bumps(rng: Rng, h: int, w: int, pitch: float, stretch: float = 1.0) -> Field:
    """Random smooth field of unit deviation whose hills are `pitch` pixels apart, `stretch` times that
    along x.
    """
    rows, cols = max(3, round(h / pitch)), max(3, round(w / pitch / stretch))
    return enlarge(rng.standard_normal((rows, cols), np.float32), h, w) * np.float32(1.3)


def wander(rng: Rng, length: int, cells: int) -> Field:
    """Smooth random profile (length,) in about [0, 1]."""
    return np.interp(
        np.linspace(0, cells, length), np.arange(cells + 1), rng.uniform(0, 1, cells + 1)
    ).astype(np.float32)


@lru_cache(maxsize=1)
def _cells() -> NDArray[np.float32]:
    """(3, side, side) of a periodic cell pattern: distance to the nearest seed, to the second, and a tone a
    cell. Its seed is fixed: it is a table, not a draw.
    """
    from scipy.spatial import cKDTree

    rng = np.random.default_rng([20_28])
    points = rng.uniform(0, CELL_SIDE, (int(CELL_SIDE**2 / CELL**2), 2))
    y, x = np.mgrid[0:CELL_SIDE, 0:CELL_SIDE]
    places = np.stack([y.ravel(), x.ravel()], 1)
    distances, nearest = cKDTree(points, boxsize=CELL_SIDE).query(places, k=2)
    tones = rng.uniform(-1, 1, len(points))[nearest[:, 0]]
    table = np.stack([distances[:, 0] / CELL, distances[:, 1] / CELL, tones])
    return table.reshape(3, CELL_SIDE, CELL_SIDE).astype(np.float32)


def cells(rng: Rng, h: int, w: int, width: float, *planes: int) -> list[Field]:
    """Planes of the cell pattern with cells `width` pixels wide: 0 nearest, 1 second distance, 2 tone."""
    scale = CELL / max(width, 2.0)
    rows, cols = min(CELL_SIDE, max(4, round(h * scale))), min(CELL_SIDE, max(4, round(w * scale)))
    y, x = int(rng.integers(CELL_SIDE - rows + 1)), int(rng.integers(CELL_SIDE - cols + 1))
    return [enlarge(np.ascontiguousarray(_cells()[p, y : y + rows, x : x + cols]), h, w) for p in planes]


@family("painted metal")
def _painted(rng: Rng, h: int, w: int) -> Field:
    """A coat of paint: nearly even, a fine grain, the slow swell of its thickness."""
    return rng.uniform(0.05, 0.5) * noise(rng, h, w, 0.3) + rng.uniform(0, 0.8) * smooth(rng, h, w, 3)


@family("plastic")
def _plastic(rng: Rng, h: int, w: int) -> Field:
    """Moulded: a faint texture of the mould on a slow swell."""
    return rng.uniform(0.02, 0.4) * noise(rng, h, w, 1.0) + rng.uniform(0, 0.4) * smooth(rng, h, w, 2)


@family("brushed metal")
def _brushed(rng: Rng, h: int, w: int) -> Field:
    """Brushed along x: two layers of fine parallel lines."""
    fine = noise(rng, h, w, 0.5, 24.0)
    return fine * rng.uniform(0.4, 1.0) + rng.uniform(0, 0.6) * noise(rng, h, w, 1.5, 24.0)


@family("cast metal")
def _cast(rng: Rng, h: int, w: int) -> Field:
    """Cast: the coarse skin of the mould and grains of its sand."""
    sand = blur(noise(rng, h, w, 0.3), 0.8 * unit(h, w))
    return rng.uniform(0.3, 1.0) * noise(rng, h, w, 1.0) + rng.uniform(0.1, 0.6) * sand


@family("concrete")
def _concrete(rng: Rng, h: int, w: int) -> Field:
    """Cement with its grain; air bubbles left dark pores."""
    field = rng.uniform(0.3, 0.8) * noise(rng, h, w, 1.5) + rng.uniform(0.1, 0.5) * noise(rng, h, w, 0.3)
    pores = noise(rng, h, w, 1.0) > rng.uniform(2.0, 3.0)
    return np.where(pores, field - rng.uniform(0.3, 1.2), field)


@family("stone")
def _stone(rng: Rng, h: int, w: int) -> Rgb:
    """Polished stone: grains of four minerals, each of one colour."""
    grain = blur(noise(rng, h, w, 0.3), unit(h, w) * rng.uniform(0.4, 1.6))
    grain = grain / (grain.std() + 1e-6)
    palette = np.clip(rng.uniform(0.25, 0.85) + rng.normal(0, 0.12, (4, 3)), 0.05, 0.95).astype(np.float32)
    classes = np.digitize(grain + 0.3 * noise(rng, h, w, 2.0), [-0.9, 0.2, 1.1])
    return palette[classes]


@family("marble")
def _marble(rng: Rng, h: int, w: int) -> Field:
    """Dark veins: the crests of a wave that slow noise has bent."""
    warp = noise(rng, h, w, 2.5) * rng.uniform(1, 3)
    v, _ = rotated(h, w, h / 2, w / 2, rng.uniform(0, np.pi))
    veins = np.sin(v * np.float32(rng.uniform(0.02, 0.12) / unit(h, w)) + warp)
    return -np.abs(veins) * rng.uniform(0.3, 0.9) + 0.25 * noise(rng, h, w, 1.5)


@family("carpet")
def _carpet(rng: Rng, h: int, w: int) -> Field:
    """Cut pile: tufts a pixel or two wide, worn clouds."""
    tufts = blur(noise(rng, h, w, 0.3), unit(h, w) * rng.uniform(0.3, 1.0))
    return tufts * 1.6 + 0.3 * noise(rng, h, w, 1.5)


@family("glass")
def _glass(rng: Rng, h: int, w: int) -> Field:
    """Almost nothing of its own: soft reflections of the room, some as broad bars."""
    field = smooth(rng, h, w, int(rng.integers(2, 5))) * rng.uniform(0.2, 1.0)
    for _ in range(rng.integers(0, 3)):
        v, _u = rotated(h, w, rng.uniform(0, h), rng.uniform(0, w), rng.uniform(0, np.pi))
        field = field + rng.uniform(0.3, 1.2) * np.exp(
            -((v / np.float32(unit(h, w) * rng.uniform(3, 20))) ** 2)
        )
    return field + 0.05 * noise(rng, h, w, 0.3)


@family("ceramic")
def _ceramic(rng: Rng, h: int, w: int) -> Field:
    """Glaze: smooth, with a faint mottle."""
    return rng.uniform(0.02, 0.25) * noise(rng, h, w, 0.5) + rng.uniform(0, 0.5) * smooth(rng, h, w, 2)


@family("paper")
def _paper(rng: Rng, h: int, w: int) -> Field:
    """Fibre flocks on a fine grain."""
    return rng.uniform(0.1, 0.4) * noise(rng, h, w, 0.5) + rng.uniform(0.05, 0.3) * noise(rng, h, w, 2.0)


@family("rubber")
def _rubber(rng: Rng, h: int, w: int) -> Field:
    """A matt, granular skin."""
    return rng.uniform(0.2, 0.7) * blur(noise(rng, h, w, 0.3), unit(h, w) * rng.uniform(0.4, 1.2)) * 1.5


@family("ground metal")
def _ground(rng: Rng, h: int, w: int) -> Field:
    """Ground along x: every grit of the wheel leaves a streak whose strength wanders along the part.

    Bright lines fade in and out, the wheel's chatter may leave faint marks across, and the slightly uneven
    face catches the light in clouds.
    """
    u = unit(h, w)
    rows = max(8, round(h / rng.uniform(0.7, 1.0) / max(1.0, u)))
    streaks = enlarge(rng.standard_normal((rows, int(rng.integers(2, 7))), np.float32), h, w)
    fine = enlarge(rng.standard_normal((rows, max(4, round(w / (u * rng.uniform(4, 14))))), np.float32), h, w)
    density = rng.uniform(0.2, 0.8) + wander(rng, h, int(rng.integers(3, 9)))[:, None]
    field = streaks * np.float32(rng.uniform(0.3, 1.0)) + fine * np.float32(rng.uniform(0.15, 0.6))
    field *= density
    for _ in range(int(rng.integers(0, 14))):
        row = int(rng.integers(h))
        along = np.clip(wander(rng, w, int(rng.integers(2, 6))) * 2 - rng.uniform(0.2, 1.0), 0, 1)
        amount = np.float32(rng.exponential(1.2) * rng.choice([-0.7, 1, 1, 1]))
        field[row : row + max(1, round(u))] += amount * along * (0.6 + 0.4 * np.abs(fine[row]))
    if rng.random() < 0.4:
        _, x = grid(h, w)
        chatter = np.sin(x[:1] * np.float32(2 * np.pi / (u * rng.uniform(2.5, 7.0))))
        field += np.float32(rng.uniform(0.1, 0.45)) * chatter * np.clip(smooth(rng, h, w, 3), 0, 1)
    cloud = smooth(rng, h, w, int(rng.integers(2, 6)))
    return field + np.float32(rng.uniform(0, 1.6)) * cloud + np.float32(0.25) * noise(rng, h, w, 0.3)


@family("rolled steel")
def _rolled(rng: Rng, h: int, w: int) -> Field:
    """Rolled strip: matt, with mottled clouds, sometimes drawn out along the rolling, and fine specks."""
    cloud = noise(rng, h, w, 2.0, rng.choice([1.0, 6.0]))
    if rng.random() < 0.4:  # scale of two thicknesses: the clouds get edges
        cloud = np.tanh(cloud * np.float32(rng.uniform(1.0, 3.0)))
    field = rng.uniform(0.2, 0.6) * noise(rng, h, w, 0.3) + rng.uniform(0.1, 0.7) * cloud
    if rng.random() < 0.4:
        specks = np.clip(noise(rng, h, w, 0.5, 6.0 if rng.random() < 0.5 else 1.0) - 2.0, 0, 1)
        field = field - np.float32(rng.uniform(0.3, 0.8)) * specks
    return field.astype(np.float32)


@family("turned metal")
def _turned(rng: Rng, h: int, w: int) -> Field:
    """Faced on a lathe: tool marks on circles, and the two fans of light that circles throw."""
    u = unit(h, w)
    spread = rng.choice([0.1, 0.8])
    cy, cx = h * (0.5 + rng.uniform(-spread, spread)), w * (0.5 + rng.uniform(-spread, spread))
    v, x = rotated(h, w, cy, cx, 0.0)
    r = np.sqrt(v * v + x * x)
    step = u * rng.uniform(0.6, 1.6)
    marks = rng.standard_normal(int(2.5 * (h + w) / step) + 4, np.float32)
    marks += np.float32(rng.uniform(0, 1.5)) * np.sin(np.arange(len(marks)) * rng.uniform(0.3, 1.5)).astype(
        np.float32
    )
    field = marks[(r / np.float32(step)).astype(np.int32)] * np.float32(rng.uniform(0.3, 0.8))
    angle = np.float32(rng.uniform(0, np.pi))
    fan = (v * np.cos(angle) + x * np.sin(angle)) ** 2 / (r * r + np.float32(4 * u * u))
    sharp = fan * fan
    return np.float32(rng.uniform(0.5, 3.0)) * sharp * (1 + np.float32(0.3) * field) + field - 1


@family("bead blasted metal")
def _blasted(rng: Rng, h: int, w: int) -> Field:
    """Blasted: tiny dents all over, lit from one side, with glints."""
    u = unit(h, w)
    height = bumps(rng, h, w, u * rng.uniform(1.2, 2.6)) * np.float32(u)
    field = relief(height, rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1.2))
    return (
        field
        + np.clip(field - np.float32(1.0), 0, 1) * np.float32(rng.uniform(0, 2))
        + np.float32(0.2) * noise(rng, h, w, 1.0)
    )


@family("hammered paint")
def _hammered(rng: Rng, h: int, w: int) -> Field:
    """Orange peel or hammer finish: a glossy film with soft hills, each with its bright and dark side."""
    u = unit(h, w)
    if rng.random() < 0.5:
        height = bumps(rng, h, w, u * rng.uniform(3, 8)) * np.float32(u * rng.uniform(0.8, 2.0))
    else:
        width = u * rng.uniform(6, 16)
        (near,) = cells(rng, h, w, width, 0)
        height = -near * np.float32(width * 0.8)
    field = relief(height, rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.5))
    return np.clip(field, -2, 2) + np.clip(field - np.float32(0.6), 0, 1) * np.float32(rng.uniform(0, 2))


@family("wood")
def _wood(rng: Rng, h: int, w: int) -> Rgb:
    """Boards: quarter sawn with straight rings, or plain sawn with the arches of rings cut aslant; pores
    along the grain.
    """
    y, x = grid(h, w)
    u = unit(h, w)
    warp = noise(rng, h, w, 2.5, 6.0) * np.float32(u * rng.uniform(2, 7))
    if rng.random() < 0.5:
        v = (y - np.float32(h * rng.uniform(0.1, 0.9))) / np.float32(u)
        depth = np.sqrt(v * v + np.float32(rng.uniform(20, 400))) * np.float32(rng.uniform(0.5, 1.0))
        lines = (
            depth + x * np.float32(rng.choice([-1, 1]) * rng.uniform(0.05, 0.3) / u) + warp / np.float32(u)
        )
    else:
        lines = (y + warp + np.float32(0.02 * rng.normal()) * x) / np.float32(u)
    phase = lines * np.float32(rng.uniform(0.08, 0.35))
    rings = (phase - np.floor(phase)) ** 2 * 2 - 1 if rng.random() < 0.6 else np.sin(phase * np.float32(6.28))
    pores = np.float32(rng.uniform(0.15, 0.5)) * noise(rng, h, w, 0.5, 24.0)
    field = rings * np.float32(rng.uniform(0.3, 1.2)) + pores
    base = np.array([rng.uniform(0.35, 0.8), rng.uniform(0.25, 0.6), rng.uniform(0.12, 0.4)], np.float32)
    base = np.sort(base)[::-1]
    return np.clip(base * (1 + np.float32(rng.uniform(0.05, 0.2)) * field[..., None]), 0, 1)


@family("leather")
def _leather(rng: Rng, h: int, w: int) -> Field:
    """Hide: pads with creases between them, even or drawn out, shaded or flat; more marked in places."""
    u = unit(h, w)
    width = u * rng.uniform(4, 13)
    near, second = cells(rng, h, w if rng.random() < 0.6 else max(8, w // 2), width, 0, 1)
    ridge = np.minimum(second - near, np.float32(0.5))
    if ridge.shape[1] != w:
        ridge = enlarge(ridge, h, w)
    if rng.random() < 0.4:
        field = relief(ridge * np.float32(width), rng.uniform(0, 2 * np.pi), rng.uniform(0.6, 1.4))
    else:
        field = ridge * np.float32(2.4)
    swell = np.float32(0.7) + np.float32(0.3) * smooth(rng, h, w, 3)
    return field * swell + np.float32(0.2) * noise(rng, h, w, 1.0)


@family("foam")
def _foam(rng: Rng, h: int, w: int) -> Field:
    """Open foam or sponge: round pores of two sizes, dark inside, lit rims between."""
    u = unit(h, w)
    width = u * rng.uniform(4, 11)
    near, second = cells(rng, h, w, width, 0, 1)
    rim = np.clip(1 - (second - near) * np.float32(rng.uniform(2.5, 5)), 0, 1)
    field = rim * np.float32(rng.uniform(0.6, 1.6)) - np.clip(0.5 - near, 0, 0.5) * np.float32(
        rng.uniform(1, 3)
    )
    if rng.random() < 0.5:
        (small,) = cells(rng, h, w, width * 0.4, 0)
        field = field - np.clip(np.float32(0.5) - small, 0, 1) * np.float32(rng.uniform(0.4, 1.2))
    return field + np.float32(0.2) * noise(rng, h, w, 0.5)


@family("glossy film")
def _film(rng: Rng, h: int, w: int) -> Field:
    """Film or foil: gentle folds that mirror the lamps in soft glare, here and there saturated."""
    u = unit(h, w)
    height = bumps(rng, h, w, u * rng.uniform(14, 45), rng.uniform(1, 4))
    slope = relief(height, rng.uniform(0, 2 * np.pi), u * rng.uniform(4, 12))
    glare = np.clip(slope - np.float32(rng.uniform(0.2, 0.9)), 0, 2) ** 2
    return slope * np.float32(rng.uniform(0.2, 0.8)) + glare * np.float32(rng.uniform(0.5, 3))


@family("stacked edges")
def _stacked(rng: Rng, h: int, w: int) -> Field:
    """A stack of sheets, slats or laminations seen on edge: bands of own tone with a dark gap between."""
    u = unit(h, w)
    pitch = u * log_uniform(rng, 2.5, 16)
    thick = pitch * (1 + rng.choice([0.02, 0.3]) * rng.uniform(-1, 1, int(h / pitch * 1.8) + 6))
    joints = np.cumsum(thick)
    y, _ = grid(h, w)
    bent = y + np.float32(u * rng.uniform(0, 2.0)) * bumps(rng, h, w, u * 60) + np.float32(pitch)
    rows = np.arange(0, joints[-1], 0.25)
    number = np.minimum(np.searchsorted(joints, rows), len(joints) - 1)
    gap = np.minimum(joints[number] - rows, rows - (joints[number] - thick[number]))
    tone = rng.normal(0, rng.uniform(0.1, 0.8), len(joints))[number]
    dark = np.clip(1 - gap / (u * rng.uniform(0.5, 1.2)), 0, 1) * rng.uniform(0.8, 2.5)
    profile = (tone - dark).astype(np.float32)
    field = profile[np.clip(bent * 4, 0, len(profile) - 1).astype(np.int32)]
    return field + np.float32(rng.uniform(0.1, 0.4)) * noise(rng, h, w, 0.5, 6.0)
