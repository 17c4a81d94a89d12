"""Overlays: the photo, the flaws outlined and named, the verdict above and the legend below.

In: an ``Inspection`` that kept its pixels. Out: an RGB picture, at least ``MIN_SIDE`` on the photo's long
side and at most ``MAX_SIDE`` on its own; ``compare`` sets the photo, the truth and the answer side by side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dapo.inspection import Inspection
from dapo.masks import trace_outlines
from dapo.whole import save_picture
from dapo.writers.frame import GROUND, INK, MIN_WIDTH, LegendEntry, draw_header, draw_legend, legend_entries
from dapo.writers.ink import Shape, draw_shapes
from dapo.writers.lettering import fit, lettering
from dapo.writers.palette import Palette
from dapo.writers.picture import PictureWriter

__all__ = ["OverlayWriter", "compare", "draw_overlay", "photo_at", "region_shapes"]

MIN_SIDE = 512  # pixels: a smaller photo is enlarged by a whole factor, its pixels kept square
MIN_PANEL = 400  # pixels: the same, for each of three panels
MAX_SIDE = 2048  # pixels, of the finished picture
UNIT_SIDE = 850  # pixels of the photo's long side at which lines and letters have their nominal size
TITLE = 30  # pixels at unit 1
JPEG_QUALITY = 92


class OverlayWriter(PictureWriter):
    """One overlay for each inspection, as JPEG in ``folder``."""

    suffix = ".jpg"

    def save(self, result: Inspection, path: Path) -> None:
        save_picture(draw_overlay(result), path, "JPEG", quality=JPEG_QUALITY, subsampling=0)


def draw_overlay(inspection: Inspection) -> Image.Image:
    """The overlay of one inspection."""
    palette = Palette(inspection.types)
    shapes = region_shapes(inspection, palette)
    entries = legend_entries(inspection, palette)
    scale = _fitting_scale(inspection, entries, columns=1, rows=1, smallest=MIN_SIDE)
    unit = _unit(inspection, scale)
    photo = photo_at(inspection.photo(), scale)
    width = max(photo.width, round(MIN_WIDTH * unit))
    body, unlabelled = _panel(photo, shapes, scale, unit, width, "")
    return _framed(inspection, entries, body, unit, unlabelled)


def compare(
    image: npt.NDArray[np.uint8] | None,
    truth_masks: Mapping[str, npt.NDArray[np.bool_]],
    inspection: Inspection,
) -> Image.Image:
    """Photo, truth and answer side by side (one below the other for wide images), with titles.

    ``image`` uint8 (h, w, 3), or None for the pixels the inspection kept; ``truth_masks`` bool (h, w) by type
    name.
    """
    pixels = inspection.photo() if image is None else image
    palette = Palette(inspection.types)
    truth = _truth_shapes(truth_masks, palette)
    named = [name for name, mask in truth_masks.items() if mask.any()]
    entries = legend_entries(inspection, palette)
    entries += [LegendEntry(n, palette[n], None, 0) for n in named if n not in {e.name for e in entries}]
    wide = inspection.width > 2 * inspection.height
    columns, rows = (1, 3) if wide else (3, 1)
    scale = _fitting_scale(inspection, entries, columns, rows, smallest=MIN_PANEL)
    unit = _unit(inspection, scale)
    answer = region_shapes(inspection, palette)
    width = round(inspection.width * scale)
    if wide or columns * width < MIN_WIDTH * unit:
        width = max(width, round(MIN_WIDTH * unit / columns))
    panels = []
    told = ", ".join(named) if named else "no flaw"
    for title, shapes in (
        ("Photo", []),
        (f"Truth: {told}", truth),
        (f"Answer: {inspection.verdict}", answer),
    ):
        panel, unlabelled = _panel(photo_at(pixels, scale), shapes, scale, unit, width, title)
        panels.append(panel)
    return _framed(inspection, entries, _grid(panels, columns, gap=round(8 * unit)), unit, unlabelled)


def region_shapes(inspection: Inspection, palette: Palette) -> list[Shape]:
    """The regions' outlines with their labels, highest score first."""
    shapes = []
    for region in inspection.regions:
        corner = np.array(region.bbox[:2])
        rings = [ring + corner for ring in trace_outlines(region.crop, holes=True)]
        shapes.append(
            Shape(rings, palette[region.type], f"{region.type} {region.score:.2f}", f"{region.score:.2f}")
        )
    return shapes


def photo_at(pixels: npt.NDArray[np.uint8], scale: float) -> Image.Image:
    """The photo at ``scale``: whole factors keep pixels square and sharp, smaller ones average."""
    photo = Image.fromarray(pixels)
    if scale == 1:
        return photo
    size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
    if scale > 1:
        return photo.resize(size, Image.Resampling.NEAREST)
    return photo.resize(size, Image.Resampling.BICUBIC, reducing_gap=1.0)


def _truth_shapes(truth_masks: Mapping[str, npt.NDArray[np.bool_]], palette: Palette) -> list[Shape]:
    shapes = []
    for name, mask in truth_masks.items():
        for index, ring in enumerate(trace_outlines(np.asarray(mask, dtype=bool))):
            shapes.append(Shape([ring], palette[name], name if index == 0 else ""))
    return shapes


def _unit(inspection: Inspection, scale: float) -> float:
    """Lines and letters grow with the picture, since a large one is shown reduced."""
    long_side = max(inspection.width, inspection.height) * scale
    return min(max(long_side / UNIT_SIDE, 1.0), 2.2)


def _fitting_scale(
    inspection: Inspection, entries: list[LegendEntry], columns: int, rows: int, smallest: int
) -> float:
    """The scale of the photo at which the finished picture is within ``MAX_SIDE``."""
    long_side = max(inspection.width, inspection.height)
    scale = float(math.ceil(smallest / long_side)) if long_side < smallest else min(1.0, MAX_SIDE / long_side)
    for _ in range(8):  # the legend may wrap as the width shrinks, so the fit is found step by step
        unit = _unit(inspection, scale)
        gap = round(8 * unit)
        width = round(inspection.width * scale) * columns + gap * (columns - 1)
        title = round(TITLE * unit) if columns * rows > 1 else 0
        band = max(width, round(MIN_WIDTH * unit))
        frame = (
            draw_header(inspection, band, unit).height + draw_legend(inspection, entries, band, unit).height
        )
        frame += title * rows + gap * (rows - 1)
        height = round(inspection.height * scale) * rows
        if width <= MAX_SIDE and height + frame <= MAX_SIDE:
            return scale
        shrink = min(MAX_SIDE / width, (MAX_SIDE - frame) / height) * 0.995
        scale = max(scale * shrink, 1 / long_side)
    return scale


def _panel(
    photo: Image.Image, shapes: Sequence[Shape], scale: float, unit: float, width: int, title: str
) -> tuple[Image.Image, int]:
    """A photo with shapes, centred in ``width`` below its title; and how many labels found no room."""
    left = (width - photo.width) // 2
    body = Image.new("RGB", (width, photo.height), GROUND)
    body.paste(photo, (left, 0))
    unlabelled = draw_shapes(body, shapes, scale, unit, (left, 0, left + photo.width, photo.height))
    if not title:
        return body, unlabelled
    size, height = round(15 * unit), round(TITLE * unit)
    panel = Image.new("RGB", (width, photo.height + height), GROUND)
    panel.paste(body, (0, height))
    drawn, font = lettering(fit(title, size, width - round(8 * unit)), size)
    pen = ImageDraw.Draw(panel)
    pen.text((round(4 * unit), height // 2), drawn, fill=INK, font=font, anchor="lm")
    return panel, unlabelled


def _grid(panels: Sequence[Image.Image], columns: int, gap: int) -> Image.Image:
    width, height = panels[0].size
    rows = math.ceil(len(panels) / columns)
    size = (width * columns + gap * (columns - 1), height * rows + gap * (rows - 1))
    body = Image.new("RGB", size, GROUND)
    for index, panel in enumerate(panels):
        body.paste(panel, ((width + gap) * (index % columns), (height + gap) * (index // columns)))
    return body


def _framed(
    inspection: Inspection, entries: list[LegendEntry], body: Image.Image, unit: float, unlabelled: int
) -> Image.Image:
    """Header, body and legend below each other."""
    header = draw_header(inspection, body.width, unit)
    legend = draw_legend(inspection, entries, body.width, unit, unlabelled)
    picture = Image.new("RGB", (body.width, header.height + body.height + legend.height), GROUND)
    picture.paste(header, (0, 0))
    picture.paste(body, (0, header.height))
    picture.paste(legend, (0, header.height + body.height))
    return picture
