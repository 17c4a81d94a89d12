"""Gallery: what a data set shows, on one picture: a row for each product and type, masks outlined.

In: Samples. Out: one RGB picture, ``per_type`` tiles wide: the photo with each mask outlined in its type's
colour, the same in the whole picture, and below it the file's name, its types, and what is not drawn.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from dapo.data.sample import Sample, load_mask, types_of
from dapo.errors import ConfigError, DataError, InputError
from dapo.images import load_image
from dapo.masks import trace_outlines
from dapo.writers.frame import DIM, GROUND, INK, TRACK
from dapo.writers.ink import Shape, draw_shapes, rounded
from dapo.writers.lettering import fit, lettering, width_of
from dapo.writers.overlay import photo_at
from dapo.writers.palette import UNKNOWN_COLOUR, Colour, Palette

__all__ = ["MAX_ROWS", "Row", "draw_gallery", "gallery_rows"]

GOOD = "good"
MAX_ROWS = 160  # 49,000 pixels high: JPEG ends at 65,535
MIN_COLUMNS = 3  # the title needs room
TILE = (280, 210)  # pixels: the photo's room
MAX_ENLARGED = 6.0
CAPTION = 52  # pixels below the photo
GAP, EDGE = 14, 12  # pixels between tiles and around them; inside captions
HEADER, PRODUCT, TITLE = 78, 46, 30  # pixels: above all, above a product, above a row
CARD: Colour = (28, 32, 40)
ALARM: Colour = (255, 140, 70)


@dataclass(frozen=True)
class Row:
    """Images of one product and type. images, drawn: how many there are, and how many of them have a mask."""

    product: str
    type: str
    images: int
    drawn: int
    samples: tuple[Sample, ...]


def gallery_rows(samples: Sequence[Sample], per_type: int, seed: int = 0) -> list[Row]:
    """The rows in the order of the samples, good parts first; in each, ``per_type`` images drawn by lot."""
    groups: dict[str, dict[str, list[Sample]]] = {}
    for sample in samples:
        own = groups.setdefault(sample.product, {GOOD: []})
        for kind in sample.types or (GOOD,):
            own.setdefault(kind, []).append(sample)
    rows = []
    for product, kinds in groups.items():
        for kind, found in kinds.items():
            lot = random.Random(f"{seed} {product} {kind}")
            picked = sorted(lot.sample(range(len(found)), min(per_type, len(found))))
            drawn = sum(has_mask(sample) for sample in found)
            if found:
                rows.append(Row(product, kind, len(found), drawn, tuple(found[index] for index in picked)))
    return rows


def has_mask(sample: Sample) -> bool:
    return sample.defective and (sample.masks is not None or sample.joint is not None)


def draw_gallery(
    samples: Sequence[Sample], title: str, subtitle: str = "", *, per_type: int = 6, seed: int = 0
) -> Image.Image:
    """The picture. An image or mask that cannot be used says so in its tile.

    Raises ConfigError for more than ``MAX_ROWS`` rows.
    """
    rows, palette = gallery_rows(samples, per_type, seed), Palette(types_of(samples))
    if len(rows) > MAX_ROWS:
        raise ConfigError(
            f"expected at most {MAX_ROWS} rows of product and type on one picture, came {len(rows)}; "
            "choose some --products"
        )
    columns = max(MIN_COLUMNS, max((len(row.samples) for row in rows), default=0))
    products = len({row.product for row in rows})
    height = HEADER + products * PRODUCT + len(rows) * (TITLE + TILE[1] + CAPTION + GAP) + GAP
    sheet = Image.new("RGB", (GAP + columns * (TILE[0] + GAP), height), GROUND)
    write(sheet, (GAP, 30), title, 26, INK)
    write(sheet, (GAP, 58), subtitle, 15, DIM)
    y, product = HEADER, None
    for row in rows:
        if row.product != product:
            product = row.product
            draw_product(sheet, y, product)
            y += PRODUCT
        draw_row(sheet, y, row, palette)
        y += TITLE + TILE[1] + CAPTION + GAP
    return sheet


def draw_product(sheet: Image.Image, y: int, product: str) -> None:
    """The product's name above its rows."""
    write(sheet, (GAP, y + PRODUCT // 2), product, 21, INK)
    left = GAP + min(width_of(product, 21), sheet.width - 2 * GAP) + EDGE
    line = [(left, y + PRODUCT // 2), (max(left, sheet.width - GAP), y + PRODUCT // 2)]
    ImageDraw.Draw(sheet).line(line, fill=TRACK, width=1)


def draw_row(sheet: Image.Image, y: int, row: Row, palette: Palette) -> None:
    """The type with its colour, how many there are, and the tiles."""
    x, middle = GAP, y + TITLE // 2 - 2
    if row.type != GOOD:
        rounded(sheet, (x, middle - 8, x + 16, middle + 8), 4, palette[row.type])
        x += 24
    masks = "" if row.type == GOOD else f", {row.drawn if row.drawn else 'none'} with a mask"
    facts = f"{row.images} image{'' if row.images == 1 else 's'}{masks}"
    write(sheet, (x, middle), row.type, 17, INK)
    write(sheet, (x + width_of(row.type, 17) + EDGE, middle + 1), facts, 14, DIM)
    for column, sample in enumerate(row.samples):
        sheet.paste(draw_tile(sample, palette), (GAP + column * (TILE[0] + GAP), y + TITLE))


def draw_tile(sample: Sample, palette: Palette) -> Image.Image:
    """The photo with its outlines, and the caption."""
    tile = Image.new("RGB", (TILE[0], TILE[1] + CAPTION), CARD)
    types = ", ".join(sample.types) or f"{GOOD}, {sample.split}"
    try:
        pixels = load_image(sample.image)
        told = draw_photo(tile, pixels, sample, palette)
        colour = DIM
    except (InputError, DataError) as error:
        told, colour = (
            "image cannot be read" if isinstance(error, InputError) else "mask cannot be used",
            ALARM,
        )
    write(tile, (EDGE, TILE[1] + 17), sample.image.name, 15, INK)
    write(tile, (EDGE, TILE[1] + 37), f"{types}: {told}" if told else types, 13, colour)
    return tile


def draw_photo(tile: Image.Image, pixels: npt.NDArray[np.uint8], sample: Sample, palette: Palette) -> str:
    """Draws the photo and its masks. Returns what is not drawn, in words; "" when all is."""
    height, width = pixels.shape[:2]
    scale = min(TILE[0] / width, TILE[1] / height, MAX_ENLARGED)
    photo = photo_at(pixels, scale)
    left, top = (TILE[0] - photo.width) // 2, (TILE[1] - photo.height) // 2
    tile.paste(photo, (left, top))
    room = tile.crop((0, 0, *TILE))
    draw_shapes(
        room,
        mask_shapes(sample, height, width, palette),
        scale,
        1.0,
        (left, top, left + photo.width, top + photo.height),
    )
    tile.paste(room, (0, 0))
    if sample.masks is None:
        return "no mask" if sample.joint is None else "one mask for all"
    return ""


def mask_shapes(sample: Sample, height: int, width: int, palette: Palette) -> list[Shape]:
    """The outlines of all masks; with several types each is named once. A joint mask is grey."""
    masks = sample.load_masks(height, width) or {}
    shapes = [
        Shape([ring], palette[kind], kind if index == 0 and len(masks) > 1 else "")
        for kind, mask in masks.items()
        for index, ring in enumerate(trace_outlines(mask))
    ]
    if sample.masks is None and sample.joint is not None:
        joint = trace_outlines(load_mask(sample.joint, height, width))
        shapes += [Shape([ring], UNKNOWN_COLOUR, "") for ring in joint]
    return shapes


def write(picture: Image.Image, at: tuple[int, int], text: str, size: int, colour: Colour) -> None:
    """A line of text, its middle left at ``at``, shortened to the picture's width."""
    drawn, font = lettering(fit(text, size, picture.width - at[0] - EDGE), size)
    ImageDraw.Draw(picture).text(at, drawn, fill=colour, font=font, anchor="lm")
