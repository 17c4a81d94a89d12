"""Sample: one image of a dataset and what is known about it. Every reader yields these and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from dapo.errors import DataError

Split = Literal["train", "test"]
TRUE_ABOVE = 127  # mask files hold 0 and 255; JPEG-like noise around them does not matter


@dataclass(frozen=True)
class Sample:
    """One image.

    image: the file. product: what it shows. types: its defect types, empty for a good part.
    masks: a file for each type; {} for a good part (no defect pixel anywhere); None when nobody drew any.
    group: the physical part, where the dataset tells; pictures of one part are not independent.
    """

    image: Path
    product: str
    types: tuple[str, ...]
    masks: Mapping[str, Path] | None
    split: Split
    group: str | None = None

    @property
    def defective(self) -> bool:
        return bool(self.types)

    def load_masks(self, height: int, width: int) -> dict[str, NDArray[np.bool_]] | None:
        """{type: bool (height, width)}; {} for a good part; None when no mask is known.

        Raises DataError when a file cannot be read, has another size than the image, or holds 0 and 1 for 0
        and 255.
        """
        if self.masks is None:
            return None
        return {name: read_mask(path, height, width) for name, path in self.masks.items()}

    def load_mask(self, height: int, width: int) -> NDArray[np.bool_] | None:
        """All types together, bool (height, width), all False for a good part; None when no mask is known."""
        masks = self.load_masks(height, width)
        if masks is None:
            return None
        return np.any(list(masks.values()), axis=0) if masks else np.zeros((height, width), dtype=np.bool_)


def read_mask(path: Path, height: int, width: int) -> NDArray[np.bool_]:
    """The mask file as bool (height, width), True above 127."""
    try:
        with Image.open(path) as file:
            grey = np.asarray(file.convert("L"))
    except FileNotFoundError as error:
        raise DataError(
            f"expected the mask {path}; there is no such file. Restore it or run the reader again."
        ) from error
    except (OSError, UnidentifiedImageError) as error:
        raise DataError(
            f"expected a mask image in {path}; it cannot be read ({error}). Replace the file."
        ) from error
    if grey.shape != (height, width):
        raise DataError(
            f"expected the mask {path} to be {width} x {height} px like its image; "
            f"it is {grey.shape[1]} x {grey.shape[0]}. Export the mask at the size of the image."
        )
    if 0 < int(grey.max(initial=0)) <= TRUE_ABOVE:
        raise DataError(
            f"expected the mask {path} to hold 0 (good) and 255 (defect); its largest value is {grey.max()}. "
            "Multiply it up to 255."
        )
    return np.asarray(grey > TRUE_ABOVE, dtype=np.bool_)


def types_of(samples: Iterable[Sample]) -> tuple[str, ...]:
    """The defect types that occur, sorted."""
    return tuple(sorted({name for sample in samples for name in sample.types}))
