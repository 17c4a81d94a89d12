"""Parts: silhouettes cut out of a surface and laid on a background, with bevels, holes, markings and rims.

In: a seeded generator, a size, a surface. Out: `Part` with the picture, the coverage of the part
(`support`), and where its edge is. Edges, corners, rims, dark borders and shadows are NORMAL here: a
detector that flags them is useless on a line.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from dapo.pretraining.fields import Field, Rng, blob, blur, grid, noise, ramp, relief, rotated, smooth
from dapo.pretraining.surfaces import Rgb, Textures, coloured, draw_surface


@dataclass(frozen=True)
class Part:
    """`image` (h, w, 3), `support` (h, w) coverage of the part, `background` (h, w, 3), names for captions,
    grain direction.
    """

    image: Rgb
    support: Field
    background: Rgb
    name: str
    surface: str
    upright: bool


Shape = Callable[[Rng, int, int], Field]
SHAPES: dict[str, Shape] = {}
# Shapes of the second generated world: prompts are learned on parts that the backbone never saw.
OTHER_SHAPES = ("gear", "hex nut", "bottle", "connector", "bracket", "capsule")


def shape(name: str) -> Callable[[Shape], Shape]:
    """Register a silhouette: (rng, h, w) -> signed distance in pixels, negative inside."""

    def keep(draw: Shape) -> Shape:
        SHAPES[name] = draw
        return draw

    return keep


def _box(v: Field, u: Field, half_v: float, half_u: float, corner: float) -> Field:
    dv = np.abs(v) - np.float32(half_v - corner)
    du = np.abs(u) - np.float32(half_u - corner)
    outside = np.sqrt(np.maximum(dv, 0) ** 2 + np.maximum(du, 0) ** 2)
    return outside + np.minimum(np.maximum(dv, du), 0) - np.float32(corner)


def _centre(rng: Rng, h: int, w: int, angle: bool = True) -> tuple[Field, Field, float]:
    turn = rng.choice([0.0, rng.uniform(0, np.pi)]) if angle else 0.0
    side = min(h, w)
    v, u = rotated(h, w, h * rng.uniform(0.4, 0.6), w * rng.uniform(0.4, 0.6), turn)
    return v, u, side


@shape("plate")
def _plate(rng: Rng, h: int, w: int) -> Field:
    v, u, s = _centre(rng, h, w)
    return _box(v, u, s * rng.uniform(0.25, 0.42), s * rng.uniform(0.3, 0.46), s * rng.uniform(0, 0.08))


@shape("disc")
def _disc(rng: Rng, h: int, w: int) -> Field:
    v, u, s = _centre(rng, h, w)
    return np.sqrt(v * v + u * u) - s * np.float32(rng.uniform(0.25, 0.46))


@shape("washer")
def _washer(rng: Rng, h: int, w: int) -> Field:
    v, u, s = _centre(rng, h, w)
    r = np.sqrt(v * v + u * u)
    outer = s * rng.uniform(0.3, 0.46)
    return np.maximum(r - np.float32(outer), np.float32(outer * rng.uniform(0.25, 0.6)) - r)


@shape("bar")
def _bar(rng: Rng, h: int, w: int) -> Field:
    v, u, s = _centre(rng, h, w)
    return _box(v, u, s * rng.uniform(0.08, 0.22), s * rng.uniform(0.4, 0.7), s * rng.uniform(0, 0.06))


@shape("screw")
def _screw(rng: Rng, h: int, w: int) -> Field:
    v, u, s = _centre(rng, h, w)
    core, pitch = s * rng.uniform(0.06, 0.1), s * rng.uniform(0.035, 0.07)
    thread = np.float32(core) * (1 + 0.28 * np.sin(u * np.float32(2 * np.pi / pitch)))
    shaft = np.maximum(np.abs(v) - thread, np.abs(u) - np.float32(s * 0.4))
    head = _box(v, u + np.float32(s * 0.36), core * 2.2, s * 0.06, s * 0.02)
    return np.minimum(shaft, head)


@shape("pill")
def _pill(rng: Rng, h: int, w: int) -> Field:
    v, u, s = _centre(rng, h, w)
    k = np.float32(rng.uniform(1.0, 1.7))
    return np.sqrt((v * k) ** 2 + u * u) / k - s * np.float32(0.28)


@shape("tube")
def _tube(rng: Rng, h: int, w: int) -> Field:
    v, u, s = _centre(rng, h, w)
    bend = np.float32(rng.uniform(-0.5, 0.5) / s) * u * u
    return np.abs(v + bend) - np.float32(s * rng.uniform(0.08, 0.2))


@shape("chip package")
def _package(rng: Rng, h: int, w: int) -> Field:
    v, u, s = _centre(rng, h, w)
    body = _box(v, u, s * 0.2, s * 0.28, s * 0.02)
    pitch = s * rng.uniform(0.07, 0.12)
    legs = _box(v, (u + np.float32(pitch / 2)) % pitch - np.float32(pitch / 2), s * 0.32, pitch * 0.22, 0.5)
    return np.minimum(body, np.maximum(legs, np.abs(u) - np.float32(s * 0.26)))


@shape("gear")
def _gear(rng: Rng, h: int, w: int) -> Field:
    v, u, s = _centre(rng, h, w)
    r, theta = np.sqrt(v * v + u * u), np.arctan2(v, u)
    teeth = np.clip(np.sin(theta * rng.integers(10, 26)) * 3, -1, 1)
    outer = s * rng.uniform(0.3, 0.42)
    return np.maximum(r - np.float32(outer) * (1 + 0.06 * teeth), np.float32(outer * 0.25) - r)


@shape("hex nut")
def _nut(rng: Rng, h: int, w: int) -> Field:
    v, u, s = _centre(rng, h, w)
    r, theta = np.sqrt(v * v + u * u), np.arctan2(v, u)
    sector = np.pi / 3
    folded = (theta % sector) - sector / 2
    outer = s * rng.uniform(0.28, 0.4)
    return np.maximum(r * np.cos(folded) - np.float32(outer), np.float32(outer * 0.5) - r)


@shape("bottle")
def _bottle(rng: Rng, h: int, w: int) -> Field:
    v, u, s = _centre(rng, h, w)
    return np.minimum(
        _box(v - np.float32(s * 0.12), u, s * 0.3, s * rng.uniform(0.14, 0.24), s * 0.06),
        _box(v + np.float32(s * 0.3), u, s * 0.16, s * 0.07, s * 0.02),
    )


@shape("connector")
def _connector(rng: Rng, h: int, w: int) -> Field:
    v, u, s = _centre(rng, h, w)
    body = _box(v, u, s * rng.uniform(0.14, 0.22), s * 0.42, s * 0.02)
    pitch = s * rng.uniform(0.09, 0.14)
    hole = _box(v, (u + np.float32(pitch / 2)) % pitch - np.float32(pitch / 2), s * 0.07, pitch * 0.25, 0.5)
    return np.maximum(body, -hole)


@shape("bracket")
def _bracket(rng: Rng, h: int, w: int) -> Field:
    v, u, s = _centre(rng, h, w)
    a = _box(v - np.float32(s * 0.25), u, s * 0.1, s * 0.4, s * 0.02)
    b = _box(v, u - np.float32(s * 0.3), s * 0.35, s * 0.1, s * 0.02)
    hole = np.sqrt((v - np.float32(s * 0.25)) ** 2 + (u + np.float32(s * 0.22)) ** 2) - np.float32(s * 0.045)
    return np.maximum(np.minimum(a, b), -hole)


@shape("capsule")
def _capsule(rng: Rng, h: int, w: int) -> Field:
    v, u, s = _centre(rng, h, w)
    r = s * rng.uniform(0.1, 0.2)
    return _box(v, u, r, s * rng.uniform(0.3, 0.42), r * 0.98)


def draw_part(rng: Rng, h: int, w: int, textures: Textures | None, *, other: bool = False) -> Part:
    """A bare surface (half of the time), a framed surface with a border, or a shaped part on a background.

    `other` takes the shapes of OTHER_SHAPES instead of the rest. Sizes are relative to min(h, w).
    """
    surface = draw_surface(rng, h, w, textures)
    kind = rng.random()
    if kind < 0.42:
        return Part(
            surface.image,
            np.ones((h, w), np.float32),
            surface.image,
            "surface",
            surface.name,
            surface.upright,
        )
    if kind < 0.68:
        return _framed(rng, h, w, surface.image, surface.name, surface.upright)
    names = [n for n in SHAPES if (n in OTHER_SHAPES) == other]
    name = str(rng.choice(names))
    distance = SHAPES[name](rng, h, w)
    background = _background(rng, h, w, textures)
    return _laid(rng, surface.image, distance, background, name, surface.name, surface.upright)


def _background(rng: Rng, h: int, w: int, textures: Textures | None) -> Rgb:
    if rng.random() < 0.3:
        return draw_surface(rng, h, w, textures).image
    field = 0.15 * noise(rng, h, w, 0.5) + rng.uniform(0, 0.5) * smooth(rng, h, w, 2)
    image = coloured(rng, field)
    if rng.random() < 0.4:  # the black of an empty field of view, or the white of a light table
        image = image * np.float32(0.08) if rng.random() < 0.6 else 1 - (1 - image) * np.float32(0.1)
    return image


def _framed(rng: Rng, h: int, w: int, image: Rgb, surface: str, upright: bool) -> Part:
    """A surface that ends inside the picture: one to four irregular borders, dark or bright, with worn-
    looking normal rims.
    """
    y, x = grid(h, w)
    sides = rng.permutation(4)[: rng.integers(1, 5)]
    distance = np.full((h, w), -1e3, np.float32)
    for side in sides:
        depth = min(h, w) * rng.choice([rng.uniform(0.0, 0.06), rng.uniform(0.02, 0.16)])
        along = x if side < 2 else y
        across = (y if side == 0 else h - 1 - y) if side < 2 else (x if side == 2 else w - 1 - x)
        length = w if side < 2 else h
        curve = np.interp(np.arange(length), np.linspace(0, length, 7), rng.normal(0, 0.12, 7)).astype(
            np.float32
        )
        ragged = noise(rng, 1, length, 1.5)[0] * np.float32(rng.choice([0.0, 0.3, 1.0]))
        limit = depth + depth * curve + ragged + rng.normal(0, 0.04) * (np.arange(length) - length / 2)
        bound = limit.astype(np.float32)[along.astype(np.int64)]
        distance = np.maximum(distance, bound - across)
    background = _background(rng, h, w, None)
    return _laid(rng, image, distance, background, "tile" if len(sides) > 2 else "edge", surface, upright)


def _laid(
    rng: Rng, image: Rgb, distance: Field, background: Rgb, name: str, surface: str, upright: bool
) -> Part:
    h, w = distance.shape
    support = ramp(distance, rng.uniform(0.8, 2.0))
    shaded = image
    bevel = rng.choice([0.0, rng.uniform(1, 5), rng.uniform(4, 18)])
    if bevel:
        profile = np.sqrt(np.clip(-distance / np.float32(bevel), 0, 1)) * np.float32(bevel)
        light = relief(blur(profile, 0.7), rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.4))
        shaded = np.clip(image + light[..., None] * np.float32(rng.uniform(0.3, 1.0)), 0, 1)
    if rng.random() < 0.4:  # a bright or dark rim along the edge
        rim = np.exp(-((distance + np.float32(rng.uniform(0, 4))) ** 2) / np.float32(rng.uniform(1, 8)))
        shaded = np.clip(shaded + np.float32(rng.normal(0, 0.25)) * rim[..., None], 0, 1)
    if rng.random() < 0.35:  # drilled holes and dots that belong there
        for _ in range(rng.integers(1, 4)):
            cy, cx = rng.uniform(0.2, 0.8) * h, rng.uniform(0.2, 0.8) * w
            hole = blob(rng, h, w, cy, cx, min(h, w) * rng.uniform(0.025, 0.07), wobble=0, soft=1.0)
            if rng.random() < 0.5:
                hole = np.maximum(hole, 0) - 0.7 * blob(rng, h, w, cy, cx, min(h, w) * 0.02, wobble=0)
            shaded = shaded * (1 - np.float32(rng.uniform(0.5, 1.0)) * np.clip(hole, 0, 1)[..., None])
    scene = background
    if rng.random() < 0.3:  # a soft shadow on the background
        drop = np.roll(blur(support, 3.0), tuple(int(v) for v in rng.integers(-5, 6, 2)), (0, 1))
        scene = background * (1 - np.float32(rng.uniform(0.2, 0.6)) * drop[..., None])
    picture = scene + (shaded - scene) * support[..., None]
    return Part(picture.astype(np.float32), support, background, name, surface, upright)
