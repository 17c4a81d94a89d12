"""Contact sheet: the answers of a run on one picture, the truth in it where it is known.

In: inspections that kept their pixels, at most ``MAX_TILES`` of them. Out: one RGB picture, ``columns`` tiles
wide: the photo with its regions outlined, the truth dashed in white, and below it name, verdict and score.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dapo.inspection import Failure, Inspection
from dapo.masks import Ring, trace_outlines
from dapo.writers.frame import DIM, GROUND, INK, two_scores
from dapo.writers.ink import Shape, draw_shapes, rounded
from dapo.writers.lettering import fit, lettering, width_of
from dapo.writers.overlay import photo_at, region_shapes
from dapo.writers.palette import DEFECTIVE, OK, Colour, Palette

__all__ = ["ContactSheet"]

MAX_TILES = 48
TILE = (420, 315)  # pixels: the photo's room
CAPTION = 62  # pixels below the photo
GAP = 20  # pixels between tiles and around them
HEADER = 74  # pixels
CARD: Colour = (28, 32, 40)
DASH = 7.0  # pixels
BLACK: Colour = (0, 0, 0)
WHITE: Colour = (255, 255, 255)
GOOD: Colour = (64, 200, 150)
BAD: Colour = (255, 140, 70)

Note = tuple[str, "bool | None"]  # a few words, and whether they mean well; None: neither


class ContactSheet:
    """The sheet at ``path``, written when it is closed. Failures and tiles over ``MAX_TILES`` stay out."""

    def __init__(
        self,
        path: str | Path,
        title: str,
        subtitle: str = "",
        *,
        columns: int = 4,
        root: str | Path | None = None,
    ) -> None:
        """``root``: the folder the images came from; names are those below it. ``title`` may change later."""
        self.path = Path(path)
        self.title, self.subtitle, self.columns = title, subtitle, columns
        self.root = "" if root is None else os.path.join(root, "")
        self._tiles: list[Image.Image] = []

    def open(self) -> ContactSheet:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._tiles = []
        return self

    def write(
        self,
        result: Inspection | Failure,
        truth: Mapping[str, npt.NDArray[np.bool_]] | None = None,
        notes: Sequence[Note] = (),
    ) -> None:
        """Add a tile. ``truth`` {type: bool (h, w)}; ``notes`` stand below the name."""
        if isinstance(result, Inspection) and len(self._tiles) < MAX_TILES:
            name = result.image.removeprefix(self.root).replace("\\", "/")
            self._tiles.append(_tile(result, name, truth or {}, notes))

    def close(self) -> None:
        """Write the picture, if there is anything on it."""
        if not self._tiles:
            return
        columns = min(self.columns, len(self._tiles))
        width, height = TILE[0], TILE[1] + CAPTION
        rows = math.ceil(len(self._tiles) / columns)
        sheet = Image.new("RGB", (GAP + columns * (width + GAP), HEADER + rows * (height + GAP)), GROUND)
        pen = ImageDraw.Draw(sheet)
        drawn, font = lettering(fit(self.title, 26, sheet.width - 2 * GAP), 26)
        pen.text((GAP, 28), drawn, fill=INK, font=font, anchor="lm")
        drawn, font = lettering(fit(self.subtitle, 15, sheet.width - 2 * GAP), 15)
        pen.text((GAP, 54), drawn, fill=DIM, font=font, anchor="lm")
        for index, tile in enumerate(self._tiles):
            at = GAP + index % columns * (width + GAP), HEADER + index // columns * (height + GAP)
            sheet.paste(tile, at)
        sheet.save(self.path, optimize=False, compress_level=3)
        self._tiles = []

    def __enter__(self) -> ContactSheet:
        return self.open()

    def __exit__(self, *exception: object) -> None:
        self.close()


def _tile(
    result: Inspection, name: str, truth: Mapping[str, npt.NDArray[np.bool_]], notes: Sequence[Note]
) -> Image.Image:
    width, height = TILE
    scale = min(width / result.width, height / result.height)
    photo = photo_at(result.photo(), scale)
    left, top = (width - photo.width) // 2, (height - photo.height) // 2
    body = Image.new("RGB", TILE, CARD)
    body.paste(photo, (left, top))
    pen = ImageDraw.Draw(body)
    for mask in truth.values():
        for ring in trace_outlines(np.asarray(mask, dtype=bool)):
            _draw_dashes(pen, ring * scale + (left, top))
    box = (left, top, left + photo.width, top + photo.height)
    draw_shapes(body, _best_labelled(region_shapes(result, Palette(result.types)), result), scale, 1.0, box)
    tile = Image.new("RGB", (width, height + CAPTION), CARD)
    tile.paste(body, (0, 0))
    _draw_caption(tile, result, name, notes)
    return tile


def _best_labelled(shapes: Sequence[Shape], result: Inspection) -> list[Shape]:
    """The shapes; a tile has room for the label of each type's best region only."""
    first = {region.type: region.id for region in reversed(result.regions)}
    return [
        shape if first[region.type] == region.id else replace(shape, label="")
        for shape, region in zip(shapes, result.regions, strict=True)
    ]


def _draw_caption(tile: Image.Image, result: Inspection, name: str, notes: Sequence[Note]) -> None:
    pen = ImageDraw.Draw(tile)
    first, second, edge = TILE[1] + 20, TILE[1] + 45, 12
    score, _ = two_scores(result.score, result.threshold)
    word = f"{result.verdict}  {score}"
    chip = width_of(word, 14) + 18
    right = tile.width - edge
    rounded(
        tile, (right - chip, first - 12, right, first + 12), 6, DEFECTIVE if result.verdict != "ok" else OK
    )
    drawn, font = lettering(word, 14)
    pen.text((right - chip / 2, first), drawn, fill=INK, font=font, anchor="mm")
    drawn, font = lettering(fit(name, 16, right - chip - 2 * edge), 16)
    pen.text((edge, first), drawn, fill=INK, font=font, anchor="lm")
    x = edge
    for text, good in notes:
        if good is not None:
            _draw_mark(tile, x + 6, second, good)
            x += 19
        text = fit(text, 14, right - x)
        drawn, font = lettering(text, 14)
        pen.text((x, second), drawn, fill=DIM, font=font, anchor="lm")
        x += width_of(text, 14) + 16
        if x > right - 40:
            break


def _draw_mark(tile: Image.Image, x: int, y: int, good: bool) -> None:
    """A tick or a cross of 12 pixels, so that it does not rest on colour."""
    mask = Image.new("L", (48, 48))
    pen = ImageDraw.Draw(mask)
    lines = [((4, 26), (18, 40), (44, 8))] if good else [((8, 8), (40, 40)), ((40, 8), (8, 40))]
    for line in lines:
        pen.line(line, fill=255, width=8, joint="curve")
    tile.paste(GOOD if good else BAD, (x - 6, y - 6), mask.reduce(4))


def _draw_dashes(pen: ImageDraw.ImageDraw, ring: Ring) -> None:
    """The closed line of ``ring``, dashed in white and black, so that it shows on any photo."""
    points = np.vstack([ring, ring[:1]])
    lengths = np.hypot(*np.diff(points, axis=0).T)
    travelled = 0.0
    for start, end, length in zip(points[:-1], points[1:], lengths, strict=True):
        steps = max(1, math.ceil(length / DASH))
        for step in range(steps):
            a, b = start + (end - start) * step / steps, start + (end - start) * (step + 1) / steps
            dark = int((travelled + length * step / steps) / DASH) % 2
            pen.line([tuple(a), tuple(b)], fill=BLACK if dark else WHITE, width=1)
        travelled += float(length)
