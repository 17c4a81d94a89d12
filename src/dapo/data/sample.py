"""Sample: one image of a dataset and what is known about it. Every reader yields these and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dapo.errors import DataError

Split = Literal["train", "test"]
Report: TypeAlias = "Callable[[DataError], None] | None"  # told of each problem; without one it is raised
TRUE_ABOVE = 127  # mask files hold 0 and 255; JPEG-like noise around them does not matter


class MaskSource(Protocol):
    """Where a mask comes from when it is not a file of 0 and 255: polygons, run lengths, small numbers."""

    def read(self, height: int, width: int) -> NDArray[np.bool_]:
        """The mask (height, width) of an image of this size. Raises DataError when it does not fit."""


@dataclass(frozen=True)
class PositiveMask:
    """A mask file in which every value above 0 is defect: small numbers that tell defects apart."""

    path: Path

    def read(self, height: int, width: int) -> NDArray[np.bool_]:
        return np.asarray(read_grey(self.path, height, width) > 0, dtype=np.bool_)


@dataclass(frozen=True)
class JoinedMask:
    """Several masks of one type, together."""

    parts: tuple[Path | MaskSource, ...]

    def read(self, height: int, width: int) -> NDArray[np.bool_]:
        return np.any([load_mask(part, height, width) for part in self.parts], axis=0)


@dataclass(frozen=True)
class Sample:
    """One image.

    image: the file. product: what it shows. types: its defect types, empty for a good part.
    masks: a file or source for each type; {} for a good part (no defect pixel anywhere); None when nobody
    drew any, or nobody told them apart. joint: then the mask of all types together, if there is one.
    group: the physical part, where the dataset tells; pictures of one part are not independent.
    """

    image: Path
    product: str
    types: tuple[str, ...]
    masks: Mapping[str, Path | MaskSource] | None
    split: Split
    group: str | None = None
    joint: Path | MaskSource | None = None

    @property
    def defective(self) -> bool:
        return bool(self.types)

    def load_masks(self, height: int, width: int) -> dict[str, NDArray[np.bool_]] | None:
        """{type: bool (height, width)}; {} for a good part; None when types were not drawn apart.

        Raises DataError when a file cannot be read, has another size than the image, or holds 0 and 1 for 0
        and 255.
        """
        if self.masks is None:
            return None
        return {name: load_mask(source, height, width) for name, source in self.masks.items()}

    def load_mask(self, height: int, width: int) -> NDArray[np.bool_] | None:
        """All types together, bool (height, width), all False for a good part; None when no mask is known."""
        masks = self.load_masks(height, width)
        if masks is None:
            return None if self.joint is None else load_mask(self.joint, height, width)
        return np.any(list(masks.values()), axis=0) if masks else np.zeros((height, width), dtype=np.bool_)


def load_mask(source: Path | MaskSource, height: int, width: int) -> NDArray[np.bool_]:
    """The mask of a file of 0 and 255, or of another source, bool (height, width)."""
    return read_mask(source, height, width) if isinstance(source, Path) else source.read(height, width)


def read_mask(path: Path, height: int, width: int) -> NDArray[np.bool_]:
    """The mask file of 0 and 255 as bool (height, width), True above 127."""
    grey = read_grey(path, height, width)
    if 0 < int(grey.max(initial=0)) <= TRUE_ABOVE:
        raise DataError(
            f"expected the mask {path} to hold 0 (good) and 255 (defect); its largest value is {grey.max()}. "
            "Multiply it up to 255.",
            kind="mask_values",
            path=path,
        )
    return np.asarray(grey > TRUE_ABOVE, dtype=np.bool_)


def read_grey(path: Path, height: int, width: int) -> NDArray[np.uint8]:
    """The grey values of a mask file of this size; DataError when it cannot be read or has another."""
    try:
        with Image.open(path) as file:
            grey = np.asarray(file.convert("L"))
    except FileNotFoundError as error:
        raise DataError(
            f"expected the mask {path}; there is no such file. Restore it or run the reader again.",
            kind="unreadable",
            path=path,
        ) from error
    except Exception as error:  # decoders raise whatever a damaged file leads them into
        raise DataError(
            f"expected a mask image in {path}; it cannot be read ({error}). Replace the file.",
            kind="unreadable",
            path=path,
        ) from error
    if grey.shape != (height, width):
        raise DataError(
            f"expected the mask {path} to be {width} x {height} px like its image; "
            f"it is {grey.shape[1]} x {grey.shape[0]}. Export the mask at the size of the image.",
            kind="mask_size",
            path=path,
        )
    return grey


@contextmanager
def telling(report: Report) -> Iterator[None]:
    """Hands a DataError from inside to `report` and goes on behind the block; without a report it rises."""
    try:
        yield
    except DataError as problem:
        if report is None:
            raise
        report(problem)


def types_of(samples: Iterable[Sample]) -> tuple[str, ...]:
    """The defect types that occur, sorted."""
    return tuple(sorted({name for sample in samples for name in sample.types}))
