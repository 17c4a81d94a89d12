"""Pages: one TIFF file that holds several pictures, each with a name of its own, ``FILE#page=2``.

In: the path of a file. Out: the names of the pictures in it. Wherever a path is taken such a name is too, and
results carry it, so a page is inspected, resumed, drawn and filed like any image. Pages count from 1 in the
order of the file, as viewers show them. Smaller copies and transparency masks, which a TIFF marks as such
(TIFF 6.0, NewSubfileType), are no pictures of their own and keep their number.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from itertools import count
from pathlib import Path

from PIL import Image

__all__ = ["TIFF_SUFFIXES", "page_name", "page_numbers", "pages_of", "split_page"]

TIFF_SUFFIXES = (".tif", ".tiff")

_NAME = re.compile(r"(.+)#page=([1-9][0-9]{0,8})", re.DOTALL)
_SUBFILE = 254  # TIFF tag NewSubfileType:
_ASIDE = 1 | 4  # a smaller copy, a transparency mask


def page_name(file: str | os.PathLike[str], number: int) -> str:
    """``FILE#page=NUMBER``."""
    return f"{os.fspath(file)}#page={number}"


def split_page(name: str | os.PathLike[str]) -> tuple[str, int | None]:
    """(file, page) of a name; page None when it names no page, or is the name of a file itself."""
    text = os.fspath(name)
    found = _NAME.fullmatch(text)
    if found is None or os.path.lexists(text):
        return text, None
    return found[1], int(found[2])


def page_numbers(image: Image.Image) -> list[int]:
    """The pages of an open image that are pictures of their own, from the directories alone; [1] if one.

    Where the file is damaged on the way from page to page, the one that should follow is listed too: reading
    it tells the damage. Leaves ``image`` at its first page.
    """
    if image.format != "TIFF" or not getattr(image, "is_animated", False):
        return [1]
    found = []
    for number in count(1):
        try:
            image.seek(number - 1)
        except EOFError:
            break
        except Exception:  # whatever a damaged directory leads the decoder into
            found.append(number)
            break
        if not int(image.tag_v2.get(_SUBFILE, 0)) & _ASIDE:  # type: ignore[attr-defined]
            found.append(number)
    image.seek(0)
    return found or [1]


def pages_of(path: Path) -> Sequence[Path]:
    """The pictures of a file: itself, or ``FILE#page=N`` for each page of a TIFF that has several.

    Only TIFF files are opened, those with the usual endings, and no pixels decoded. A file that cannot be
    opened gives itself: loading it says what is wrong.
    """
    if path.suffix.lower() not in TIFF_SUFFIXES:
        return [path]
    try:
        with path.open("rb") as stream, Image.open(stream, formats=("TIFF",)) as image:
            numbers = page_numbers(image)
    except Exception:  # as above, or no permission, or a pipe
        return [path]
    return [path] if len(numbers) == 1 else [Path(page_name(path, number)) for number in numbers]
