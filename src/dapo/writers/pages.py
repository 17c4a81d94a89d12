"""Pages as files: other tools open one picture a file, so each page of a TIFF is saved as one.

In: inspections. Out: the path to name in a tool's file: of the image itself, or of ``NAME-page-2.png`` in a
folder of the writer.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from dapo.images import load_image
from dapo.inspection import Inspection
from dapo.pages import split_page
from dapo.whole import save_picture
from dapo.writers.names import OutputNames

__all__ = ["PageFiles", "page_pixels"]


class PageFiles:
    """Pages are saved in ``folder``; ``root``: folder of the images, whose subfolders are mirrored there."""

    def __init__(self, folder: str | Path, root: str | Path | None = None) -> None:
        self.names = OutputNames(folder, ".png", root)

    def page(self, result: Inspection) -> Path | None:
        """The picture of this page, saved; None for what is no page. InputError if it cannot be read."""
        pixels = page_pixels(result)
        if pixels is None:
            return None
        path = self.names.path_for(result.image)
        save_picture(Image.fromarray(pixels), path, "PNG")
        return path


def page_pixels(result: Inspection) -> npt.NDArray[np.uint8] | None:
    """The pixels (h, w, 3) of a page, kept or read again; None for what is no page."""
    if split_page(result.image)[1] is None:
        return None
    return load_image(result.image) if result.pixels is None else result.pixels
