"""Names for output files: one for each image, never the same for two.

In: the path or name an image came with. Out: a path in the output folder. Folders below ``root`` are
mirrored, page 2 of ``a.tif`` is ``a-page-2``; a name that is already taken gets a short hash of the image's
path, so the same image has the same name in every run over the same images.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePosixPath

from dapo.pages import split_page

__all__ = ["OutputNames"]

FORBIDDEN = re.compile(r'[<>:"|?*\x00-\x1f\x7f\ud800-\udfff]')  # on Windows, or not writable as UTF-8
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", re.IGNORECASE)  # device names on Windows
MAX_STEM = 120  # characters


class OutputNames:
    """Paths in ``folder`` ending in ``suffix``; creates subfolders as needed."""

    def __init__(self, folder: str | Path, suffix: str, root: str | Path | None = None) -> None:
        self.folder = Path(folder)
        self.suffix = suffix
        self.root = None if root is None else PurePosixPath(Path(root).absolute().as_posix())
        self._taken: dict[str, str] = {}  # lower-case name -> image

    def path_for(self, image: str) -> Path:
        """The path for ``image``; the same one each time it is asked."""
        file, page = split_page(image)
        parts = [_clean(part) for part in self._relative(file)]
        stem = PurePosixPath(parts[-1]).stem or "image"
        stem += f"-page-{page}" if page else ""
        if len(stem) > MAX_STEM:
            stem = f"{stem[:MAX_STEM]}-{_hash(image)}"
        for name in (stem, f"{stem}-{_hash(image)}"):
            key = "/".join([*parts[:-1], name]).lower()
            if self._taken.setdefault(key, image) == image:
                break
        path = self.folder.joinpath(*parts[:-1], name + self.suffix)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _relative(self, image: str) -> tuple[str, ...]:
        """Folders and name below ``root``, else the name alone; never a step upwards."""
        path = PurePosixPath(image.replace("\\", "/"))
        if self.root is not None and ".." not in path.parts:
            absolute = PurePosixPath(Path(image).absolute().as_posix())
            if absolute.is_relative_to(self.root) and absolute != self.root:
                return absolute.relative_to(self.root).parts
        return (path.name if path.name not in ("", "..") else "image",)


def _clean(part: str) -> str:
    part = FORBIDDEN.sub("_", part).strip(" .") or "_"
    return f"_{part}" if RESERVED.match(part) else part


def _hash(image: str) -> str:
    return hashlib.blake2b(image.encode("utf-8", "surrogatepass"), digest_size=4).hexdigest()
