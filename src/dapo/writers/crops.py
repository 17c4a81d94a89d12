"""Crops: a picture of each flaw with some of its surroundings, for lists, mails and second opinions.

In: inspections that kept their pixels. Out: ``STEM-ID-TYPE-SCORE.png`` for the regions with the highest
scores of each image, the pixels as they are: no outline hides the flaw.
"""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from dapo.inspection import Failure, Inspection, Region
from dapo.whole import save_picture
from dapo.writers.names import OutputNames

__all__ = ["CropsWriter", "crop_box"]

LIMIT = 20  # crops of one image
MARGIN = 0.25  # of the longer side of the region's box, on each side,
MIN_MARGIN = 16  # pixels: and at least this
MAX_NAME = 40  # characters of a type


class CropsWriter:
    """At most ``limit`` crops of each inspection in ``folder``; ``root`` as for overlays."""

    def __init__(self, folder: str | Path, root: str | Path | None = None, limit: int = LIMIT) -> None:
        self.names = OutputNames(folder, "", root)
        self.limit = limit

    def write(self, result: Inspection | Failure) -> list[Path]:
        """Cut and save; returns the pictures' paths."""
        if isinstance(result, Failure):
            return []
        paths = self._paths(result)
        for path, region in zip(paths, result.regions, strict=False):
            left, top, right, bottom = crop_box(region)
            save_picture(Image.fromarray(result.photo()[top:bottom, left:right]), path, "PNG")
        return paths

    def has(self, result: Inspection) -> bool:
        """True when an earlier run left all pictures."""
        return all(path.is_file() for path in self._paths(result))

    def _paths(self, result: Inspection) -> list[Path]:
        stem = self.names.path_for(result.image)
        return [
            stem.with_name(f"{stem.name}-{region.id:02d}-{_plain(region.type)}-{region.score:.2f}.png")
            for region in result.regions[: self.limit]  # highest score first
        ]

    def open(self) -> CropsWriter:
        self.names.folder.mkdir(parents=True, exist_ok=True)
        return self

    def close(self) -> None:
        """Nothing is held open."""

    def __enter__(self) -> CropsWriter:
        return self.open()

    def __exit__(self, *exception: object) -> None:
        self.close()


def crop_box(region: Region) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the region with its margin, inside the image."""
    x, y, width, height = region.bbox
    margin = max(MIN_MARGIN, round(MARGIN * max(width, height)))
    rows, columns = region.size
    return (
        max(0, x - margin),
        max(0, y - margin),
        min(columns, x + width + margin),
        min(rows, y + height + margin),
    )


def _plain(name: str) -> str:
    """A type's name as part of a file name."""
    return re.sub(r"[^\w]+", "_", name)[:MAX_NAME].strip("_") or "type"
