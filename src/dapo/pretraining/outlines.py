"""Outlines: silhouettes of parts of one material, and the register that every shape joins.

In: a seeded generator and a size. Out: the signed distance to the outline in pixels, negative inside. Sizes
are relative to `s` = min(h, w). Parts of several materials are in `dapo.pretraining.shapes`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from dapo.pretraining.fields import Field, Rgb, Rng, folded, rotated, rounded


@dataclass(frozen=True)
class Shaped:
    """`distance` (h, w) to the outline; `coats`: (coverage, colour (3,)) laid over the surface in this order;
    `height` (h, w) in pixels of what stands out or is sunk, shaded by the light.
    """

    distance: Field
    coats: tuple[tuple[Field, Rgb], ...] = field(default=())
    height: Field | None = None


Shape = Callable[[Rng, int, int], Field | Shaped]
SHAPES: dict[str, Shape] = {}
# Shapes of the second generated world: prompts are learned on parts that the backbone never saw.
OTHER_SHAPES = (
    "gear",
    "hex nut",
    "bottle",
    "connector",
    "bracket",
    "capsule",
    "resistor",
    "ball bearing",
    "zipper",
    "terminal strip",
)


def shape(name: str) -> Callable[[Shape], Shape]:
    """Register a silhouette: (rng, h, w) -> signed distance in pixels, negative inside, or a `Shaped`."""

    def keep(draw: Shape) -> Shape:
        SHAPES[name] = draw
        return draw

    return keep


def box(v: Field, u: Field, half_v: float, half_u: float, corner: float) -> Field:
    """Signed distance to a rectangle about the origin with corners of radius `corner`."""
    return rounded(np.abs(v) - np.float32(half_v - corner), np.abs(u) - np.float32(half_u - corner), corner)


def centre(rng: Rng, h: int, w: int) -> tuple[Field, Field, float]:
    """Coordinates (v, u) of a part near the middle, turned half of the time, and the shorter side in px."""
    turn = rng.choice([0.0, rng.uniform(0, np.pi)])
    side = min(h, w)
    v, u = rotated(h, w, h * rng.uniform(0.4, 0.6), w * rng.uniform(0.4, 0.6), turn)
    return v, u, side


def radial(v: Field, u: Field) -> Field:
    """Distance from the origin."""
    return np.sqrt(v * v + u * u)


def hexagon(v: Field, u: Field) -> Field:
    """Inner radius (to the flats) of the regular hexagon about the origin through each place."""
    return radial(v, u) * np.cos(np.arctan2(v, u) % np.float32(np.pi / 3) - np.float32(np.pi / 6))


@shape("plate")
def _plate(rng: Rng, h: int, w: int) -> Field:
    """A rectangle, its corners sharp or rounded."""
    v, u, s = centre(rng, h, w)
    return box(v, u, s * rng.uniform(0.25, 0.42), s * rng.uniform(0.3, 0.46), s * rng.uniform(0, 0.08))


@shape("disc")
def _disc(rng: Rng, h: int, w: int) -> Field:
    """A round blank."""
    v, u, s = centre(rng, h, w)
    return radial(v, u) - s * np.float32(rng.uniform(0.25, 0.46))


@shape("washer")
def _washer(rng: Rng, h: int, w: int) -> Field:
    """A ring."""
    v, u, s = centre(rng, h, w)
    r = radial(v, u)
    outer = s * rng.uniform(0.3, 0.46)
    return np.maximum(r - np.float32(outer), np.float32(outer * rng.uniform(0.25, 0.6)) - r)


@shape("bar")
def _bar(rng: Rng, h: int, w: int) -> Field:
    """A long bar that may run out of the picture."""
    v, u, s = centre(rng, h, w)
    return box(v, u, s * rng.uniform(0.08, 0.22), s * rng.uniform(0.4, 0.7), s * rng.uniform(0, 0.06))


@shape("screw")
def _screw(rng: Rng, h: int, w: int) -> Field:
    """A head and a shaft with the profile of its thread."""
    v, u, s = centre(rng, h, w)
    core, pitch = s * rng.uniform(0.06, 0.1), s * rng.uniform(0.035, 0.07)
    thread = np.float32(core) * (1 + 0.28 * np.sin(u * np.float32(2 * np.pi / pitch)))
    shaft = np.maximum(np.abs(v) - thread, np.abs(u) - np.float32(s * 0.4))
    head = box(v, u + np.float32(s * 0.36), core * 2.2, s * 0.06, s * 0.02)
    return np.minimum(shaft, head)


@shape("pill")
def _pill(rng: Rng, h: int, w: int) -> Field:
    """An ellipse."""
    v, u, s = centre(rng, h, w)
    k = np.float32(rng.uniform(1.0, 1.7))
    return np.sqrt((v * k) ** 2 + u * u) / k - s * np.float32(0.28)


@shape("tube")
def _tube(rng: Rng, h: int, w: int) -> Field:
    """A straight or bent tube through the whole picture."""
    v, u, s = centre(rng, h, w)
    bend = np.float32(rng.uniform(-0.5, 0.5) / s) * u * u
    return np.abs(v + bend) - np.float32(s * rng.uniform(0.08, 0.2))


@shape("gear")
def _gear(rng: Rng, h: int, w: int) -> Field:
    """Flat-topped teeth around a bore."""
    v, u, s = centre(rng, h, w)
    r, theta = radial(v, u), np.arctan2(v, u)
    teeth = np.clip(np.sin(theta * rng.integers(10, 26)) * 3, -1, 1)
    outer = s * rng.uniform(0.3, 0.42)
    return np.maximum(r - np.float32(outer) * (1 + 0.06 * teeth), np.float32(outer * 0.25) - r)


@shape("hex nut")
def _nut(rng: Rng, h: int, w: int) -> Field:
    """A hexagon around a bore."""
    v, u, s = centre(rng, h, w)
    outer = s * rng.uniform(0.28, 0.4)
    return np.maximum(hexagon(v, u) - np.float32(outer), np.float32(outer * 0.5) - radial(v, u))


@shape("bottle")
def _bottle(rng: Rng, h: int, w: int) -> Field:
    """Body and neck, seen from the side."""
    v, u, s = centre(rng, h, w)
    return np.minimum(
        box(v - np.float32(s * 0.12), u, s * 0.3, s * rng.uniform(0.14, 0.24), s * 0.06),
        box(v + np.float32(s * 0.3), u, s * 0.16, s * 0.07, s * 0.02),
    )


@shape("connector")
def _connector(rng: Rng, h: int, w: int) -> Field:
    """A housing with one row of openings."""
    v, u, s = centre(rng, h, w)
    body = box(v, u, s * rng.uniform(0.14, 0.22), s * 0.42, s * 0.02)
    pitch = s * rng.uniform(0.09, 0.14)
    hole = box(v, folded(u, pitch), s * 0.07, pitch * 0.25, s * 0.0045)
    return np.maximum(body, -hole)


@shape("bracket")
def _bracket(rng: Rng, h: int, w: int) -> Field:
    """An angle of two legs with one hole."""
    v, u, s = centre(rng, h, w)
    a = box(v - np.float32(s * 0.25), u, s * 0.1, s * 0.4, s * 0.02)
    b = box(v, u - np.float32(s * 0.3), s * 0.35, s * 0.1, s * 0.02)
    hole = radial(v - np.float32(s * 0.25), u + np.float32(s * 0.22)) - np.float32(s * 0.045)
    return np.maximum(np.minimum(a, b), -hole)
