"""YOLO segmentation labels (docs.ultralytics.com, datasets/segment): a data set to correct and to train on.

In: inspections. Out: ``data.yaml`` with the types' names, ``images/`` and ``labels/``: for each image one
text file, for each part of a region one line ``CLASS x y x y ...`` in shares of width and height. Holes are
not in this format. An image file is linked (no copy, no symbolic link) or, across drives, copied; where there
is no file, and for a page of a TIFF, the pixels are saved. All stands under ``val``: look at it before you
train on it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml
from PIL import Image

from dapo.data.yolo import label_file
from dapo.images import EXTENSIONS
from dapo.inspection import UNKNOWN, Failure, Inspection
from dapo.whole import replacing, save_picture
from dapo.writers.names import OutputNames
from dapo.writers.pages import page_pixels

__all__ = ["YoloWriter"]

NOTE = """\
# Found by DAPO and corrected by nobody yet. Move images and labels into folders of their own for train.
"""


class YoloWriter:
    """The data set in ``folder``; ``root``: folder of the images, whose subfolders are mirrored."""

    def __init__(self, folder: str | Path, root: str | Path | None = None) -> None:
        self.folder = Path(folder)
        self.names = OutputNames(self.folder / "images", "", root)
        self._classes: dict[str, int] = {}

    def open(self) -> YoloWriter:
        for name in ("images", "labels"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self._classes = {}
        return self

    def write(self, result: Inspection | Failure) -> Path | None:
        """Saves labels and image; returns the label file's path."""
        if isinstance(result, Failure):
            return None
        for name in (*result.types, UNKNOWN):
            self._classes.setdefault(name, len(self._classes))
        image = self._place(result)
        labels = label_file(image)
        labels.parent.mkdir(parents=True, exist_ok=True)
        with replacing(labels) as stream:
            stream.write("".join(self._lines(result)).encode())
        return labels

    def close(self) -> None:
        """Writes data.yaml: what is there is a data set, also after an interruption."""
        names = {number: name for name, number in self._classes.items()}
        content = {"train": [], "val": "images", "names": names or {0: UNKNOWN}}
        with replacing(self.folder / "data.yaml") as stream:
            stream.write(NOTE.encode())
            stream.write(yaml.safe_dump(content, allow_unicode=True, sort_keys=False).encode())

    def __enter__(self) -> YoloWriter:
        return self.open()

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _lines(self, result: Inspection) -> Iterator[str]:
        size = (result.width, result.height)
        for region in result.regions:
            kind = self._classes.setdefault(region.type, len(self._classes))
            for part in region.polygon:
                shares = " ".join(f"{value / size[place % 2]:.6f}" for place, value in enumerate(part))
                yield f"{kind} {shares}\n"

    def _place(self, result: Inspection) -> Path:
        """The image's path in the data set, where it is after this."""
        source, stem = Path(result.image), self.names.path_for(result.image)
        if source.suffix.lower() in EXTENSIONS and source.is_file():
            target = stem.with_name(stem.name + source.suffix)
            if not (target.exists() and target.samefile(source)):
                _link(source, target)
            return target
        target = stem.with_name(f"{stem.name}.png")
        pixels = page_pixels(result) if result.pixels is None else result.pixels
        if pixels is not None:
            save_picture(Image.fromarray(pixels), target, "PNG")
        return target


def _link(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another drive, or a file system without links
        with source.open("rb") as content, replacing(target) as stream:
            shutil.copyfileobj(content, stream)
