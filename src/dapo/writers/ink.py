"""Ink: outlines and their labels drawn on a photo.

In: an RGB picture at the size it is shown, and ``Shape``s in pixels of the original. Each outline has a
translucent fill, a line in its type's colour and a thin halo of the opposite lightness, so it shows on dark
and on bright ground. Lines are drawn three times as large within the box of their shape and reduced: smooth
edges at the cost of the box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw

from dapo.masks import Ring
from dapo.writers.labels import Box, box_of, nearest, place_labels
from dapo.writers.lettering import lettering, width_of
from dapo.writers.palette import Colour, is_light

__all__ = ["Shape", "draw_shapes", "rounded"]

BLACK, WHITE = (10, 12, 16), (255, 255, 255)
FILL_OPACITY = 0.20
HALO_OPACITY = 0.85
LINE = 2.0  # pixels at unit 1
HALO = 1.0  # pixels at unit 1, on either side of the line
LETTERS = 14  # pixels at unit 1
MAX_LABELS = 40
SMOOTH_AREA = 4_000_000  # pixels: the largest drawing that is made three times as large


@dataclass(frozen=True)
class Shape:
    """One thing to outline: rings in pixels, holes after the outer one; ``short`` where it is tight."""

    rings: Sequence[Ring]
    colour: Colour
    label: str
    short: str = ""

    def moved(self, scale: float, x: float, y: float) -> Shape:
        """The shape on a photo enlarged by ``scale`` whose corner is at (x, y)."""
        return replace(self, rings=[ring * scale + (x, y) for ring in self.rings])


def draw_shapes(
    picture: Image.Image, shapes: Sequence[Shape], scale: float, unit: float, photo: tuple[int, int, int, int]
) -> int:
    """Draw ``shapes``, most important first, on the photo that lies in the box ``photo`` of ``picture``.

    The photo is ``scale`` times the original's size; ``unit`` scales lines and letters. Labels may leave the
    photo, outlines do not. Returns how many shapes found no room for a label.
    """
    shapes = [shape.moved(scale, photo[0], photo[1]) for shape in shapes]
    for shape in reversed(shapes):
        _draw_shape(picture, shape, unit, photo)
    return _draw_labels(picture, shapes, unit)


def rounded(picture: Image.Image, box: tuple[int, int, int, int], radius: float, colour: Colour) -> None:
    """A filled box (left, top, right, bottom; the last two not included) with smooth round corners."""
    width, height = box[2] - box[0], box[3] - box[1]
    if width <= 0 or height <= 0:
        return
    mask = Image.new("L", (width * 4, height * 4))
    corners = (0, 0, width * 4 - 1, height * 4 - 1)
    ImageDraw.Draw(mask).rounded_rectangle(corners, radius=min(radius, width / 2, height / 2) * 4, fill=255)
    picture.paste(colour, box[:2], mask.reduce(4))


def _draw_shape(picture: Image.Image, shape: Shape, unit: float, photo: tuple[int, int, int, int]) -> None:
    line, halo = LINE * unit, HALO * unit
    margin = int(line + halo) + 2
    left, top, right, bottom = box_of(shape.rings[0])
    origin = max(int(left) - margin, photo[0]), max(int(top) - margin, photo[1])
    size = (
        min(int(right) + margin + 1, photo[2]) - origin[0],
        min(int(bottom) + margin + 1, photo[3]) - origin[1],
    )
    if size[0] <= 0 or size[1] <= 0:
        return
    times = 3 if size[0] * size[1] * 9 <= SMOOTH_AREA else 2
    rings = [(ring - origin) * times for ring in shape.rings]
    large = (size[0] * times, size[1] * times)

    fill = Image.new("L", large)
    pen = ImageDraw.Draw(fill)
    for index, ring in enumerate(rings):
        pen.polygon(_points(ring), fill=0 if index else round(255 * FILL_OPACITY))
    picture.paste(shape.colour, origin, fill.reduce(times))
    contrast = BLACK if is_light(shape.colour) else WHITE
    for colour, width, opacity in ((contrast, line + 2 * halo, HALO_OPACITY), (shape.colour, line, 1.0)):
        stroke = Image.new("L", large)
        pen = ImageDraw.Draw(stroke)
        for ring in rings:
            points = _points(ring)
            pen.line(
                points + points[:2], fill=round(255 * opacity), width=round(width * times), joint="curve"
            )
        picture.paste(colour, origin, stroke.reduce(times))


def _points(ring: Ring) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in ring]


def _draw_labels(picture: Image.Image, shapes: Sequence[Shape], unit: float) -> int:
    named = [shape for shape in shapes if shape.label][:MAX_LABELS]
    size = round(LETTERS * unit)
    pad, height = round(5 * unit), round(size * 1.5)
    texts = [shape.label for shape in named]
    if len(named) * 3 * size * height * 6 > picture.width * picture.height:  # names would hide the part
        texts = [shape.short or shape.label for shape in named]
    sizes = [(width_of(text, size) + 2 * pad, height) for text in texts]
    corners = place_labels(sizes, [shape.rings[0] for shape in named], picture.size, gap=max(1, round(unit)))
    pen = ImageDraw.Draw(picture)
    for shape, corner, (width, _) in zip(named, corners, sizes, strict=True):
        if corner is not None:
            _draw_leader(pen, shape, (*corner, corner[0] + width, corner[1] + height), unit)
    for shape, text, corner, (width, _) in zip(named, texts, corners, sizes, strict=True):
        if corner is not None:
            _draw_chip(picture, text, shape.colour, corner, (width, height), size, unit)
    return sum(corner is None for corner in corners) + len([s for s in shapes if s.label]) - len(named)


def _draw_chip(
    picture: Image.Image,
    text: str,
    colour: Colour,
    corner: tuple[int, int],
    size: tuple[int, int],
    letters: int,
    unit: float,
) -> None:
    ink = BLACK if is_light(colour) else WHITE
    (x, y), (width, height) = corner, size
    edge = max(1, round(unit))
    outer = (x - edge, y - edge, x + width + edge, y + height + edge)
    rounded(picture, outer, 5 * unit, BLACK if ink == BLACK else (40, 44, 52))
    rounded(picture, (x, y, x + width, y + height), 4 * unit, colour)
    drawn, font = lettering(text, letters)
    ImageDraw.Draw(picture).text((x + width / 2, y + height / 2), drawn, fill=ink, font=font, anchor="mm")


def _draw_leader(pen: ImageDraw.ImageDraw, shape: Shape, label: Box, unit: float) -> None:
    """A line from a label to its outline, where the label stands apart."""
    distance, start, end = nearest(label, shape.rings[0])
    if distance > 10 * unit:
        contrast = BLACK if is_light(shape.colour) else WHITE
        pen.line([start, end], fill=contrast, width=round(3 * unit))
        pen.line([start, end], fill=shape.colour, width=max(1, round(unit)))
