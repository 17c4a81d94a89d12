"""What writers of one picture an image share: where it goes, and that it is there whole or not at all.

In: inspections; a failure has no picture. Out: one file each in a folder, named after the image.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, TypeVar

from dapo.inspection import Failure, Inspection
from dapo.writers.names import OutputNames

__all__ = ["PictureWriter"]

Writer = TypeVar("Writer", bound="PictureWriter")


class PictureWriter(ABC):
    """``root``: the folder the images came from; its subfolders are mirrored, so equal names do not meet."""

    suffix: ClassVar[str]

    def __init__(self, folder: str | Path, root: str | Path | None = None) -> None:
        self.names = OutputNames(folder, self.suffix, root)

    @abstractmethod
    def save(self, result: Inspection, path: Path) -> None:
        """Draws the picture of one inspection and saves it."""

    def write(self, result: Inspection | Failure) -> Path | None:
        """Draw and save; returns the picture's path."""
        if isinstance(result, Failure):
            return None
        path = self.names.path_for(result.image)
        self.save(result, path)
        return path

    def has(self, result: Inspection) -> bool:
        """True when an earlier run left what this one would write."""
        return self.names.path_for(result.image).is_file()

    def close(self) -> None:
        return  # nothing is held open

    def open(self: Writer) -> Writer:
        self.names.folder.mkdir(parents=True, exist_ok=True)
        return self

    def __enter__(self: Writer) -> Writer:
        return self.open()

    def __exit__(self, *exception: object) -> None:
        self.close()
