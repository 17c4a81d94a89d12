"""Type masks: an indexed PNG at the original size whose numbers are the types of the pixels.

In: inspections. Out: one PNG for each, 0 = background, 1 ... = the names of the vocabulary in their order,
255 = unknown, with the colours of the overlays as its palette; and ``types.json``, {number: name}. Where
regions overlap the highest score wins.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dapo.errors import ConfigError
from dapo.inspection import UNKNOWN, Inspection
from dapo.whole import replacing, save_picture
from dapo.writers.palette import UNKNOWN_COLOUR, Palette
from dapo.writers.picture import PictureWriter

__all__ = ["UNKNOWN_INDEX", "MaskWriter", "type_mask"]

UNKNOWN_INDEX = 255
MAX_TYPES = UNKNOWN_INDEX - 1


class MaskWriter(PictureWriter):
    """One mask for each inspection in ``folder``."""

    suffix = ".png"
    _told: tuple[str, ...] | None = None  # types.json holds these

    def save(self, result: Inspection, path: Path) -> None:
        types = tuple(name for name in result.types if name != UNKNOWN)
        picture = Image.frombytes("P", (result.width, result.height), type_mask(result).tobytes())
        picture.putpalette(_palette(types))
        if self._told != types:
            self._tell(types)
        save_picture(picture, path, "PNG", optimize=True)

    def _tell(self, types: tuple[str, ...]) -> None:
        numbers = {0: "background", **dict(enumerate(types, start=1)), UNKNOWN_INDEX: UNKNOWN}
        with replacing(self.names.folder / "types.json") as stream:
            stream.write(json.dumps(numbers, indent=2).encode() + b"\n")
        self._told = types


def type_mask(inspection: Inspection) -> npt.NDArray[np.uint8]:
    """uint8 (h, w) of numbers as above; ConfigError for more types than fit."""
    types = [name for name in inspection.types if name != UNKNOWN]
    if len(types) > MAX_TYPES:
        raise ConfigError(
            f"a type mask tells at most {MAX_TYPES} types apart; the vocabulary has {len(types)}. "
            "Leave out `mask` or shorten the vocabulary."
        )
    numbers = {name: number for number, name in enumerate(types, start=1)}
    mask = np.zeros((inspection.height, inspection.width), dtype=np.uint8)
    for region in sorted(inspection.regions, key=lambda region: region.score):
        x, y, width, height = region.bbox
        mask[y : y + height, x : x + width][region.crop] = numbers.get(region.type, UNKNOWN_INDEX)
    return mask


def _palette(types: Sequence[str]) -> list[int]:
    colours = Palette(types)
    table = [(0, 0, 0), *(colours[name] for name in types)]
    table += [UNKNOWN_COLOUR] * (UNKNOWN_INDEX + 1 - len(table))
    return [channel for colour in table for channel in colour]
