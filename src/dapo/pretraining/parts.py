"""Parts: silhouettes cut out of a surface and laid on a background, with bevels, holes, markings and rims.

In: a seeded generator, a size, a surface. Out: `Part` with the picture, the coverage of the part
(`support`), and where its edge is. Edges, corners, rims, bands along the sides, dark borders, shadows and
marks are NORMAL here: a detector that flags them is useless on a line.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from dapo.pretraining.fields import (
    REFERENCE_SIDE,
    Field,
    Rgb,
    Rng,
    blend,
    blob,
    blur,
    grid,
    noise,
    ramp,
    relief,
    shifted,
    smooth,
    unit,
)
from dapo.pretraining.marks import bands, draw_mark, glints
from dapo.pretraining.shapes import OTHER_SHAPES, SHAPES, Shaped
from dapo.pretraining.surfaces import Surface, Textures, coloured, draw_surface

MARKED = 0.35  # share of parts with a normal mark
BARE_UNTIL = 0.42  # share of parts that fill the picture
FRAMED_UNTIL = 0.68  # of these and of those that end in a border; the rest has a shape
DEEPEST_BORDER = 0.16  # of the shorter side


@dataclass(frozen=True)
class Part:
    """`image` (h, w, 3), `support` (h, w) coverage of the part, `background` (h, w, 3); `name` and `surface`
    for captions; `upright`: the grain runs along y.
    """

    image: Rgb
    support: Field
    background: Rgb
    name: str
    surface: str
    upright: bool


def draw_part(rng: Rng, h: int, w: int, textures: Textures | None, *, other: bool = False) -> Part:
    """A bare surface, a framed surface with a border, or a shaped part on a background.

    `other` takes the shapes of OTHER_SHAPES instead of the rest. Sizes are relative to min(h, w).
    """
    surface = draw_surface(rng, h, w, textures)
    if rng.random() < MARKED:
        surface = replace(surface, image=draw_mark(rng, surface.image))
    kind = rng.random()
    if kind < BARE_UNTIL:
        everywhere = np.ones((h, w), np.float32)
        return Part(surface.image, everywhere, surface.image, "surface", surface.name, surface.upright)
    if kind < FRAMED_UNTIL:
        return _framed(rng, h, w, surface)
    names = [n for n in SHAPES if (n in OTHER_SHAPES) == other]
    name = str(rng.choice(names))
    drawn = SHAPES[name](rng, h, w)
    if isinstance(drawn, Shaped):
        distance, surface = drawn.distance, replace(surface, image=_coated(rng, surface.image, drawn))
    else:
        distance = drawn
    return _laid(rng, surface, distance, _background(rng, h, w, textures), name)


def _background(rng: Rng, h: int, w: int, textures: Textures | None) -> Rgb:
    """What a part lies on: another surface, or a plain, unevenly lit ground."""
    if rng.random() < 0.3:
        return draw_surface(rng, h, w, textures).image
    field = 0.15 * noise(rng, h, w, 0.5) + rng.uniform(0, 0.5) * smooth(rng, h, w, 2)
    image = coloured(rng, field)
    if rng.random() < 0.4:  # the black of an empty field of view, or the white of a light table
        image = image * np.float32(0.08) if rng.random() < 0.6 else 1 - (1 - image) * np.float32(0.1)
    return image


def _coated(rng: Rng, image: Rgb, drawn: Shaped) -> Rgb:
    """The coats of a part over its surface, its texture showing through, and the shading of its relief."""
    through = np.float32(rng.uniform(0.1, 0.8))
    texture = (image - image.mean((0, 1))) * through
    share = rng.random() < 0.8  # else the whole part is of one material and only its relief shows
    for cover, colour in drawn.coats if share or drawn.height is None else ():
        image = blend(image, colour + texture, cover)
    if drawn.height is not None:
        shade = relief(drawn.height, rng.uniform(0, 2 * np.pi), rng.uniform(0.15, 0.6))
        image = image + np.clip(shade, -0.4, 0.5)[..., None]
    return np.clip(image, 0, 1).astype(np.float32)


def _framed(rng: Rng, h: int, w: int, surface: Surface) -> Part:
    """A surface that ends inside the picture: one to four borders, straight, slanted or bowed, dark or
    bright, with bevel bands along them and little notches of background where two of them meet.
    """
    y, x = grid(h, w)
    scale = unit(h, w)
    sides = [int(side) for side in rng.permutation(4)[: rng.integers(1, 5)]]
    inward: dict[int, Field] = {}
    for side in sides:
        across = (y if side == 0 else h - 1 - y) if side < 2 else (x if side == 2 else w - 1 - x)
        limit = _border(rng, w if side < 2 else h, min(h, w))
        inward[side] = across - (limit[None, :] if side < 2 else limit[:, None])
    distance = -np.minimum.reduce(list(inward.values()))
    if rng.random() < 0.6:
        state = int(rng.integers(2**32))
        alike = rng.random() < 0.7  # the bevels of most parts are: one seed for all sides
        kept = [side for side in sides if rng.random() < 0.7 and (side < 2) != surface.upright] or sides[:1]
        image = surface.image
        for side in kept:
            own = np.random.default_rng([state, 0 if alike else side])
            image = image * bands(own, inward[side], scale, side > 1)[..., None]
        surface = replace(surface, image=np.clip(image, 0, 1))
    if rng.random() < 0.5:
        for cut in _corners(rng, inward, y, x, scale):
            distance = np.maximum(distance, cut)
    background = _background(rng, h, w, None)
    if rng.random() < 0.5:  # mostly the dark of the gap around the part
        background = background * np.float32(rng.uniform(0.02, 0.3))
    return _laid(rng, surface, distance, background, "tile" if len(sides) > 2 else "edge")


def _border(rng: Rng, length: int, side: int) -> Field:
    """Depth (length,) of the background along one side: 0 to 16 % of `side`, slanted, bowed, a little
    irregular.
    """
    depth = side * rng.choice([rng.uniform(0.0, 0.05), rng.uniform(0.02, 0.13)])
    place = np.linspace(-1, 1, length)
    bow = side * rng.choice([0.0, rng.uniform(-0.03, 0.03)]) * (1 - place**2)
    curve = np.interp(place, np.linspace(-1, 1, 7), rng.normal(0, rng.choice([0.01, 0.02, 0.08]), 7))
    scale = side / REFERENCE_SIDE
    ragged = noise(rng, 1, length, 1.5, grain=scale)[0] * (rng.choice([0.0, 0.0, 0.1, 0.25]) * scale)
    limit = depth * (1 + curve) + bow + ragged + rng.normal(0, 0.03) * place * length / 2
    return np.minimum(limit, DEEPEST_BORDER * side).astype(np.float32)


def _corners(rng: Rng, inward: dict[int, Field], y: Field, x: Field, scale: float) -> list[Field]:
    """Signed distances of the notches at the corners: a chamfer or a small round of background; the other
    sides count as they stand at the border of the picture.
    """
    h, w = y.shape
    cuts = []
    size, steep = scale * rng.uniform(1.5, 8), np.float32(rng.uniform(0.5, 2.0))
    for a in (0, 1):
        for b in (2, 3):
            if (a not in inward and b not in inward) or rng.random() < 0.4:
                continue
            down = inward.get(a, y if a == 0 else h - 1 - y)
            over = inward.get(b, x if b == 2 else w - 1 - x)
            own = np.float32(size * rng.uniform(0.6, 1.2))
            if steep < 1.2:
                cuts.append((own - down - over * steep) / np.float32(1.4))
            else:
                cuts.append(own - np.sqrt(np.maximum(down, 0) ** 2 + np.maximum(over, 0) ** 2))
    return cuts


def _laid(rng: Rng, surface: Surface, distance: Field, background: Rgb, name: str) -> Part:
    """The part cut out of `surface` along its outline and laid on `background`: the light on its bevel, its
    rim, drilled holes, its shadow.
    """
    h, w = distance.shape
    scale = unit(h, w)
    support = ramp(distance, scale * rng.uniform(0.8, 2.0))
    shaded = surface.image
    bevel = scale * rng.choice([0.0, rng.uniform(1, 5), rng.uniform(4, 18)])
    if bevel:
        profile = np.sqrt(np.clip(-distance / np.float32(bevel), 0, 1)) * np.float32(bevel)
        light = relief(blur(profile, 0.7 * scale), rng.uniform(0, 2 * np.pi), rng.uniform(0.05, 0.4))
        shaded = np.clip(shaded + light[..., None] * np.float32(rng.uniform(0.3, 1.0)), 0, 1)
    if rng.random() < 0.4:  # bright or dark contours along the edge: one, or a double one
        inset = 0.0
        for _ in range(1 if rng.random() < 0.65 else 2):
            inset += scale * rng.uniform(0, 4)
            width = np.float32(rng.uniform(1, 8) * scale**2)
            rim = np.exp(-((distance + np.float32(inset)) ** 2) / width)
            shaded = np.clip(shaded + np.float32(rng.normal(0, 0.25)) * rim[..., None], 0, 1)
    if rng.random() < 0.15:
        shaded = glints(rng, shaded, distance)
    if rng.random() < 0.14:  # drilled holes and dots that belong there
        for _ in range(rng.integers(1, 4)):
            cy, cx = rng.uniform(0.2, 0.8) * h, rng.uniform(0.2, 0.8) * w
            hole = blob(rng, h, w, cy, cx, min(h, w) * rng.uniform(0.025, 0.07), wobble=0, soft=1.0)
            if rng.random() < 0.5:  # a boss stands in it
                hole = np.maximum(hole, 0) - 0.7 * blob(rng, h, w, cy, cx, min(h, w) * 0.02, wobble=0)
            shaded = shaded * (1 - np.float32(rng.uniform(0.5, 1.0)) * np.clip(hole, 0, 1)[..., None])
    scene = background
    if rng.random() < 0.3:  # a soft shadow on the background
        down, right = (round(float(v) * scale) for v in rng.integers(-5, 6, 2))
        drop = shifted(blur(support, 3.0 * scale), down, right)
        scene = background * (1 - np.float32(rng.uniform(0.2, 0.6)) * drop[..., None])
    picture = blend(scene, shaded, support).astype(np.float32)
    return Part(picture, support, background, name, surface.name, surface.upright)
