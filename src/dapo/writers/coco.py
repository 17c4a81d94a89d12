"""COCO annotations (Lin et al., ECCV 2014): ``coco.json`` for annotation tools, pycocotools and training.

In: inspections; a failure has no place in it. Out: one JSON file with every image, every name of the
vocabulary and ``unknown`` as categories, and an annotation for each region: ``segmentation`` is its exact
mask as compressed run lengths, or the outlines of all its parts as polygons (without holes), ``bbox`` x, y,
width, height, ``area`` in pixels of the mask, ``score`` as COCO's result files have it. ``file_name`` is
relative to ``root``, ``path`` to the file itself; a page of a TIFF is saved in ``images`` beside it, and both
say so. Written whole when closed.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, Literal

from dapo import __version__
from dapo.inspection import DECIMALS, UNKNOWN, Failure, Inspection, Region
from dapo.masks import encode_compressed_rle
from dapo.whole import replacing
from dapo.writers.pages import PageFiles
from dapo.writers.spool import Spool, Spooled

__all__ = ["CocoWriter", "addresses", "names_in", "relative_to"]

Segmentation = Literal["rle", "polygon"]


class CocoWriter(Spooled):
    """One file at ``path``; ``root``: the folder that ``file_name`` starts from, else that of each image."""

    def __init__(
        self, path: str | Path, root: str | Path | None = None, segmentation: Segmentation = "rle"
    ) -> None:
        super().__init__(Path(path))
        self.path = Path(path)
        self.root = root
        self.segmentation: Segmentation = segmentation

    def begin(self) -> None:
        self._names: dict[str, None] = {}
        self._pages = PageFiles(self.path.parent / "images", self.root)

    def add(self, result: Inspection | Failure, *spools: Spool) -> None:
        if isinstance(result, Failure):
            return
        self._names.update(dict.fromkeys(names_in(result)))
        name, path = addresses(result, self.path.parent, self.root, self._pages)
        image = {"file_name": name, "width": result.width, "height": result.height, "path": path}
        spools[0].add([image, [_annotation(region, self.segmentation) for region in result.regions]])

    def finish(self, *spools: Spool) -> None:
        names = [name for name in self._names if name != UNKNOWN] + [UNKNOWN]
        ids = {name: number for number, name in enumerate(names, start=1)}
        with replacing(self.path) as stream:
            _write_lists(stream, spools[0], ids)


def names_in(result: Inspection) -> list[str]:
    """The types asked for, and those of its regions."""
    return [*result.types, *(region.type for region in result.regions)]


def addresses(result: Inspection, folder: Path, root: str | Path | None, pages: PageFiles) -> tuple[str, str]:
    """The image's path from ``root`` and from ``folder``; a page's file from ``folder`` both times."""
    page = pages.page(result)
    path = relative_to(folder, result.image if page is None else str(page))
    return (relative_to(root, result.image) if page is None else path), path


def relative_to(folder: str | Path | None, image: str) -> str:
    """The image's path from ``folder`` with slashes; its name without one, as it is on another drive."""
    if folder is None:
        return image.replace("\\", "/").rsplit("/", 1)[-1]
    try:
        return Path(os.path.relpath(image, folder)).as_posix()
    except ValueError:
        return Path(image).as_posix()


def _annotation(region: Region, segmentation: Segmentation) -> dict[str, Any]:
    if segmentation == "rle":
        runs = region.rle
        drawn: Any = {"size": runs["size"], "counts": encode_compressed_rle(runs)}
    else:
        drawn = region.polygon
    return {
        "category": region.type,
        "segmentation": drawn,
        "bbox": list(region.bbox),
        "area": region.area_px,
        "iscrowd": 0,
        "score": round(region.score, DECIMALS),
        "margin": round(region.margin, DECIMALS),
    }


def _write_lists(stream: IO[bytes], spool: Spool, ids: dict[str, int]) -> None:
    """The file, one image or annotation a line."""
    info = {"description": "DAPO inspection", "version": __version__}
    categories = [{"id": number, "name": name, "supercategory": "defect"} for name, number in ids.items()]
    stream.write(f'{{"info":{json.dumps(info)},"licenses":[],"images":['.encode())
    _write_rows(stream, ({"id": i, **image} for i, (image, _) in enumerate(spool, start=1)))
    stream.write(b'],"annotations":[')
    _write_rows(stream, _numbered(spool, ids))
    stream.write(f'],"categories":{json.dumps(categories)}}}\n'.encode())


def _numbered(spool: Spool, ids: dict[str, int]) -> Iterator[dict[str, Any]]:
    number = 0
    for image_id, (_, found) in enumerate(spool, start=1):
        for annotation in found:
            number += 1
            category = ids[annotation.pop("category")]
            yield {"id": number, "image_id": image_id, "category_id": category, **annotation}


def _write_rows(stream: IO[bytes], rows: Iterable[Any]) -> None:
    for number, row in enumerate(rows):
        stream.write((",\n" if number else "\n").encode() + json.dumps(row, separators=(",", ":")).encode())
