"""Flaws of form: pressed in, pushed out, pierced or bent. Light tells them from stains.

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
    log_uniform,
    noise,
    ramp,
    relief,
    rotated,
    shifted,
    strokes,
)
from dapo.pretraining.flaws.canvas import (
    Canvas,
    add_light,
    change,
    flaw,
    place,
    polarity,
    random_colour,
    scaled,
)

SWELL_SEEN_TO = 1.1  # radii, how far the shading of a hill or hollow is seen


def _swell(canvas: Canvas, rng: Rng, low: float, high: float, sign: float) -> tuple[Rgb, Field]:
    """A Gaussian hill (`sign` 1) or hollow (-1) of radius `low` to `high` units, shaded."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    radius = scaled(canvas, rng, low, high)
    v, u = rotated(h, w, cy, cx, rng.uniform(0, np.pi))
    u = u / np.float32(rng.uniform(1, 1.8))
    r2 = (u * u + v * v) / np.float32(radius**2)
    height = np.exp(-1.6 * r2) * np.float32(radius * sign)
    light = relief(height, rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.55))
    return add_light(canvas, canvas.support, light), ramp(
        (np.sqrt(r2) - SWELL_SEEN_TO) * np.float32(radius), 1.5
    ) * canvas.support


@flaw("dent")
def _dent(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Pressed in: lit on the far side, shaded on the near side; the texture stays."""
    image, cover = _swell(canvas, rng, 4, 22, -1.0)
    return image * (1 - np.float32(rng.uniform(0.0, 0.25)) * blur(cover, 2.0 * canvas.unit)[..., None]), cover


@flaw("bump")
def _bump(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Pushed out: a soft swelling with a brighter crown."""
    image, cover = _swell(canvas, rng, 4, 20, 1.0)
    return image + (blur(cover, 3.0 * canvas.unit) * cover * np.float32(rng.uniform(0.0, 0.14)))[
        ..., None
    ], cover


@flaw("bubble")
def _bubble(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A blister: a thin ring and a small highlight, one or several."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    image, total = canvas.image, np.zeros((h, w), np.float32)
    light = rng.uniform(0, 2 * np.pi)
    for _ in range(1 if rng.random() < 0.5 else rng.integers(2, 7)):
        r = scaled(canvas, rng, 2.2, 12)
        y, x = cy + rng.normal(0, 10 * canvas.unit), cx + rng.normal(0, 10 * canvas.unit)
        v, u = rotated(h, w, y, x, 0.0)
        d = np.sqrt(v * v + u * u)
        ring = np.exp(-((d - r) ** 2) / np.float32(max(0.6 * canvas.unit, r * 0.16) ** 2))
        spot = np.exp(
            -((u - np.cos(light) * r * 0.45) ** 2 + (v - np.sin(light) * r * 0.45) ** 2)
            / np.float32((r * 0.28) ** 2)
        )
        image = image + ((ring * np.float32(-0.22) + spot * np.float32(0.4)) * canvas.support)[..., None]
        total = np.maximum(total, ramp(d - np.float32(r)))
    return image, total * canvas.support


@flaw("hole")
def _hole(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Through the part: what is behind shows, with a rim; round, ragged or punched."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    cover = (
        blob(
            rng,
            h,
            w,
            cy,
            cx,
            scaled(canvas, rng, 2.5, 15),
            wobble=rng.choice([0.05, 0.3]),
            aspect=rng.uniform(1, 1.5),
        )
        * canvas.support
    )
    behind = (
        canvas.background.mean((0, 1)) * rng.uniform(0.1, 1.0)
        if rng.random() < 0.4
        else random_colour(rng, 0.0, 0.15, 0.02)
    )
    image = blend(canvas.image, behind, cover)
    rim = np.clip(blur(cover, 1.2 * canvas.unit) * 2 - cover, 0, 1) * (1 - cover)
    return image + (rim * np.float32(rng.normal(0, 0.2)))[..., None], cover


@flaw("pit")
def _pit(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Cavities: a blowhole, a few pores, or a field of tiny specks, each with a lit far wall."""
    kind = rng.random()
    return _blowholes(canvas, rng) if kind < 0.6 else _specks(canvas, rng)


def _blowholes(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """One or a few small, dark, ragged cavities; a ring around them is bright where the rim is ground sharp,
    dark where it is drawn in.
    """
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    total = np.zeros((h, w), np.float32)
    spread = rng.uniform(5, 16) * canvas.unit
    largest = scaled(canvas, rng, 1.1, 8)
    for i in range(1 if rng.random() < 0.7 else int(rng.integers(2, 7))):
        off = rng.normal(0, spread, 2) * (i > 0)
        r = largest * (1 if i == 0 else rng.uniform(0.3, 1))
        aspect, wobble = rng.uniform(1, 1.9), rng.uniform(0.1, 0.45)
        total = np.maximum(total, blob(rng, h, w, cy + off[0], cx + off[1], r, wobble=wobble, aspect=aspect))
    total = total * canvas.support
    floor = np.clip(1 + 0.25 * noise(rng, h, w, 1.0), 0.4, 1.3)
    image = canvas.image * (1 - np.clip(np.float32(rng.uniform(0.35, 0.95)) * total * floor, 0, 1))[..., None]
    gain = canvas.unit * rng.uniform(0.05, 0.45)
    wall = relief(blur(total, 0.7 * canvas.unit), rng.uniform(0, 2 * np.pi), gain)
    near = blur(total, max(0.7 * canvas.unit, 0.25 * largest))
    ring = np.clip(near * 2.2, 0, 1) * (1 - total) * canvas.support
    return image + (wall + ring * np.float32(rng.normal(0.03, 0.14)))[..., None], total


def _specks(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """A field of tiny cavities, up to the whole picture: every one dark with a bright flank on the same
    side.
    """
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    count = int(log_uniform(rng, 10, 160))
    spread = scaled(canvas, rng, 8, 70)
    y, x = cy + rng.normal(0, spread, count), cx + rng.normal(0, spread, count)
    drawn = rng.uniform(0, 1.6)
    angle = canvas.grain + np.pi / 2 * (rng.random() < 0.3)
    lengths = drawn * rng.exponential(1.0, count) * canvas.unit
    dy, dx = np.sin(angle) * lengths, np.cos(angle) * lengths
    paths = [[(a, b), (a + c + 0.01, b + d)] for a, b, c, d in np.stack([x, y, dx, dy], 1).tolist()]
    size = scaled(canvas, rng, 0.7, 1.7)
    total = strokes(h, w, paths, size * np.exp(rng.normal(0, 0.35, count))) * canvas.support
    side = rng.uniform(0, 2 * np.pi)
    step = max(1.0, 0.8 * size)
    flank = shifted(total, round(step * np.sin(side)), round(step * np.cos(side)))
    flank = flank * (1 - total) * canvas.support
    image = canvas.image * (1 - np.float32(rng.uniform(0.25, 0.75)) * total)[..., None]
    return image + (flank * np.float32(rng.uniform(0.03, 0.22)))[..., None], total


@flaw("poke")
def _poke(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Pricked by something sharp: a dark point in a raised, lit crater."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    r = scaled(canvas, rng, 2.0, 7)
    core = blob(rng, h, w, cy, cx, r * 0.5, wobble=0.3)
    v, u = rotated(h, w, cy, cx, 0.0)
    d = np.sqrt(v * v + u * u)
    crater = np.exp(-((d - r) ** 2) / np.float32((0.45 * r) ** 2)) * np.float32(r)
    image = (
        canvas.image + relief(crater, rng.uniform(0, 2 * np.pi), 0.4)[..., None] * canvas.support[..., None]
    )
    image = image * (1 - np.float32(rng.uniform(0.5, 0.95)) * core[..., None])
    return image, ramp(d - np.float32(r * 1.6), 1.5) * canvas.support


@flaw("squeeze")
def _squeeze(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Pinched: the texture is drawn together toward a line, with shading."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    r = scaled(canvas, rng, 10, 28)
    v, u = rotated(h, w, cy, cx, rng.uniform(0, np.pi))
    inside = np.exp(-(v * v + u * u * 0.4) / np.float32(2 * (r * 0.6) ** 2))
    pull = np.float32(rng.uniform(0.4, 0.8)) * inside
    y, x = grid(h, w)
    sy = np.clip(y + (y - np.float32(cy)) * pull * 1.5, 0, h - 1).astype(np.int64)
    sx = np.clip(x + (x - np.float32(cx)) * pull * 1.5, 0, w - 1).astype(np.int64)
    image = canvas.image[sy, sx]
    light = relief(inside * np.float32(r), rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.35))
    return image + (light * canvas.support)[..., None], ramp(
        (0.22 - inside) * np.float32(r), 2.0
    ) * canvas.support


@flaw("bent")
def _bent(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """Part of the picture is displaced along a bend: lines kink, edges step out of place."""
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    v, u = rotated(h, w, cy, cx, rng.uniform(0, np.pi))
    half = scaled(canvas, rng, 9, 26)
    amount = scaled(canvas, rng, 3, 11) * polarity(rng)
    fold = np.clip(1 - np.abs(u) / np.float32(half), 0, 1)
    inside = fold * fold * (3 - 2 * fold) * ramp(np.abs(v) - np.float32(half), half)
    y, x = grid(h, w)
    angle = rng.uniform(0, np.pi)
    sy = np.clip(y + np.float32(amount * np.sin(angle)) * inside, 0, h - 1).astype(np.int64)
    sx = np.clip(x + np.float32(amount * np.cos(angle)) * inside, 0, w - 1).astype(np.int64)
    image = (
        canvas.image[sy, sx]
        + (relief(inside * np.float32(half), angle, rng.uniform(0.03, 0.14)) * canvas.support)[..., None]
    )
    changed = change(canvas.image, image) > 0.05
    return image, ((blur(changed.astype(np.float32), 2.0 * canvas.unit) > 0.2) & (inside > 0.15)).astype(
        np.float32
    )


@flaw("roll_mark")
def _roll_mark(canvas: Canvas, rng: Rng) -> tuple[Rgb, Field]:
    """An impression of a roll or tool, oblique to the grain and sometimes repeated at a pitch: a lens in a
    raised bright surround, a hairline lit on one side, or a shallow lens with a lit and a shaded flank.
    """
    h, w = canvas.size
    cy, cx = place(canvas, rng)
    angle = canvas.grain + polarity(rng) * rng.uniform(0.15, 1.4)
    kind = int(rng.integers(3))
    half = scaled(canvas, rng, 12, 50)
    thick = scaled(canvas, rng, 0.5, 1.1) if kind == 1 else scaled(canvas, rng, 1.5, 6)
    strength, side, bow = rng.uniform(0.1, 0.35), polarity(rng), rng.normal(0, 0.003) / canvas.unit
    light, total = np.zeros((h, w), np.float32), np.zeros((h, w), np.float32)
    pitch = rng.uniform(18, 45) * canvas.unit
    for i in range(1 if rng.random() < 0.75 else 3):
        v, u = rotated(
            h, w, cy + i * pitch * np.sin(angle + 1.57), cx + i * pitch * np.cos(angle + 1.57), angle
        )
        v = v + np.float32(bow) * u * u
        mark, cover = _impression(rng, v, u, half, thick, kind)
        light = light + mark * np.float32(strength * side if kind == 1 else strength)
        total = np.maximum(total, cover)
    return add_light(canvas, canvas.support, light), total * canvas.support


def _impression(rng: Rng, v: Field, u: Field, half: float, thick: float, kind: int) -> tuple[Field, Field]:
    """(light, coverage) of one mark in its own coordinates; `kind` 0 lens in a surround, 1 hairline, 2
    shallow lens.
    """
    taper = np.clip(1 - (u / np.float32(half)) ** 2, 0.0, 1)
    inside = (taper > 0.02).astype(np.float32)
    if kind == 1:
        s = v / np.float32(thick)
        line = np.exp(-(s * s)) * inside
        return 2.2 * s * line + np.float32(rng.normal(0, 0.4)) * line, ramp(
            np.abs(v) - np.float32(1.4 * thick)
        ) * inside
    width = np.float32(thick) * taper
    lens = ramp(np.abs(v) - width, 1.5) * inside
    if kind == 2:
        flank = v / np.float32(thick) * lens
        return 1.6 * flank - lens * np.float32(rng.uniform(0.2, 0.8)), lens
    swell = np.sqrt(taper) * np.exp(-((v / np.float32(1.9 * thick)) ** 2))
    groove = ramp(np.abs(v) - 0.45 * width, max(1.2, 0.5 * thick)) * inside
    edge = v / np.float32(thick) * groove * np.float32(rng.normal(0, 1.0))
    mark = 0.55 * swell - np.float32(rng.uniform(0.9, 1.8)) * groove + edge
    return mark, ramp(np.abs(v) - 1.7 * np.float32(thick) * np.sqrt(taper), 1.5) * inside
