"""Anomaly maps as float32 TIFF at the original size, in the folder tree of MVTec AD's evaluation code.

In: inspections that kept their map. Out: ``FOLDER/PRODUCT/test/TYPE/NAME.tiff`` when the images lie in such a
tree (``.../PRODUCT/test/TYPE/NAME.png``), else the folders below the one they share; not compressed, one
channel, values in [0, 1].
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from dapo.errors import InputError
from dapo.inspection import Inspection
from dapo.whole import save_picture
from dapo.writers.picture import PictureWriter

__all__ = ["TiffWriter", "tree_root"]

SPLITS = ("test", "train")


class TiffWriter(PictureWriter):
    """One map for each inspection in ``folder``; ``root``: the folder above the products."""

    suffix = ".tiff"

    def save(self, result: Inspection, path: Path) -> None:
        if result.anomaly_map is None:
            raise InputError(
                f"the anomaly map of {result.image} was not kept with its result; inspect it again",
                kind="missing",
            )
        values = np.ascontiguousarray(result.anomaly_map, dtype=np.float32)
        save_picture(Image.fromarray(values), path, "TIFF")


def tree_root(images: Iterable[str]) -> str | None:
    """The folder above the products, when all ``images`` are ROOT/PRODUCT/test/TYPE/NAME of one ROOT."""
    roots = {_root(PurePosixPath(Path(image).absolute().as_posix())) for image in images}
    return roots.pop() if len(roots) == 1 else None


def _root(image: PurePosixPath) -> str | None:
    folders = image.parts[:-1]
    if len(folders) < 4 or folders[-2] not in SPLITS:
        return None
    return str(PurePosixPath(*folders[:-3]))
