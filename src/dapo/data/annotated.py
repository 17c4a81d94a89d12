"""What datasets of annotation files share: masks that are outlines, folders named after splits, products.

In: what a reader found in the files of COCO or YOLO. Out: Samples in order. The product of an image is the
first folder below `images` and the split's folder, if every image has one; else the name of the root.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dapo.data.folder import SPLITS, chosen, image_files, natural, some
from dapo.data.sample import Report, Sample, Split, telling
from dapo.errors import DataError
from dapo.masks import Ring, decode_compressed_rle, decode_rle, fill_ring

SPLIT_FOLDER = re.compile(r"(train|val|valid|validation|test)\d*")  # val2017 too
SPLIT_WORD = re.compile(rf"(?<![a-z]){SPLIT_FOLDER.pattern}(?![a-z])")


@dataclass(frozen=True, eq=False)
class Outlines:
    """A mask drawn by annotations: the union of closed rings and of run lengths. A MaskSource.

    source: where they stand, for messages. size: (height, width) of the picture they were drawn on, if told.
    shares: the rings are shares of width and height, 0 to 1, instead of pixels.
    """

    source: str
    rings: tuple[Ring, ...] = ()
    runs: tuple[dict[str, Any], ...] = ()  # {"size": [h, w], "counts": numbers or COCO's string}
    size: tuple[int, int] | None = None
    shares: bool = False

    def read(self, height: int, width: int) -> NDArray[np.bool_]:
        """The mask of an image of this size; DataError when it was drawn on another one."""
        sizes = {tuple(run["size"]) for run in self.runs} | ({self.size} if self.size else set())
        for drawn in sizes - {(height, width)}:
            raise DataError(
                f"expected the masks of {self.source} on a picture of {width} x {height} px like the image; "
                f"they are on {drawn[1]} x {drawn[0]}. Export the annotations for the images as they are.",
                kind="mask_size",
            )
        mask = np.zeros((height, width), dtype=np.bool_)
        for ring in self.rings:
            paint(mask, ring * (width, height) if self.shares else ring)
        for run in self.runs:
            mask |= self.decoded(run)
        return mask

    def decoded(self, run: dict[str, Any]) -> NDArray[np.bool_]:
        """One run-length mask; DataError for run lengths that do not fill their picture."""
        (height, width), counts = run["size"], run["counts"]
        try:
            if isinstance(counts, str):
                return decode_compressed_rle(counts, height, width)
            return decode_rle({"size": [height, width], "counts": counts})
        except (ValueError, TypeError, OverflowError) as error:
            raise DataError(f"{self.source}: {error}. Export the annotations again.") from error


def paint(mask: NDArray[np.bool_], ring: Ring) -> None:
    """Sets the pixels of one ring, working in its own box only."""
    limit = np.array([mask.shape[1], mask.shape[0]])
    left, top = np.floor(ring.min(axis=0)).clip(0, limit).astype(int)
    right, bottom = np.floor(ring.max(axis=0) + 1).clip(0, limit).astype(int)
    if right > left and bottom > top:
        mask[top:bottom, left:right] |= fill_ring(ring - (left, top), bottom - top, right - left)


def below(folder: Path, name: str) -> Path:
    """The file that ``name`` means, seen from the folder: without the steps up and down again."""
    return Path(os.path.normpath(folder / name.replace("\\", "/")))


def split_word(name: str) -> str | None:
    """The word of a file's name that tells its split: val2017 of instances_val2017."""
    match = SPLIT_WORD.search(name.lower())
    return match[0] if match else None


def split_of(name: str) -> Split:
    """train or test. val counts as test, and so does a name that does not tell."""
    return "train" if (split_word(name) or "").startswith("train") else "test"


def ordered(
    samples: Sequence[Sample],
    root: Path,
    products: Sequence[str] | None,
    splits: Sequence[Split],
    report: Report,
) -> tuple[Sample, ...]:
    """The samples of these products, ordered by product, split and natural path. DataError for none.

    A report is told of images that are listed twice.
    """
    if report is not None:
        report_twice(samples, report)
    samples = with_products(samples, root)
    known = sorted({sample.product for sample in samples}, key=lambda name: natural(Path(name)))
    wanted = chosen(dict.fromkeys(known, root), products, root, report)

    def place(sample: Sample) -> tuple[int, int, object]:
        path = [natural(Path(part)) for part in sample.image.parts]
        return wanted.index(sample.product), SPLITS.index(sample.split), path

    found = sorted((sample for sample in samples if sample.product in wanted), key=place)
    return some(found, root, splits, report)


def with_products(samples: Sequence[Sample], root: Path) -> list[Sample]:
    """The samples, each with its product."""
    found = [product_folder(sample.image, root) for sample in samples]
    if None in found:
        found = [root.resolve().name] * len(samples)
    return [replace(sample, product=name or "") for sample, name in zip(samples, found, strict=True)]


def product_folder(image: Path, root: Path) -> str | None:
    """The first folder below root that is neither `images` nor a split's."""
    if not image.is_relative_to(root):
        return None
    folders = image.relative_to(root).parts[:-1]
    own = (name for name in folders if name != "images" and not SPLIT_FOLDER.fullmatch(name.lower()))
    return next(own, None)


def report_twice(samples: Iterable[Sample], report: Report) -> None:
    """Tells of each image that the annotations list more than once: train and test may share it."""
    first: dict[Path, Sample] = {}
    for sample in samples:
        other = first.setdefault(sample.image, sample)
        if other is not sample:
            splits = " and ".join(split for split in SPLITS if split in (other.split, sample.split))
            with telling(report):
                raise DataError(
                    f"expected each image once; {sample.image} is listed more than once, in {splits}. "
                    "Remove one of them.",
                    kind="twice",
                    path=sample.image,
                )


def report_unlisted(listed: Iterable[Path], report: Report) -> None:
    """Tells of each image that lies beside the listed ones and is not listed: nobody said that it is good."""
    known = set(listed)
    for folder in sorted({path.parent for path in known}):
        for image in image_files(folder):
            if image not in known:
                with telling(report):
                    raise DataError(
                        f"expected every image to be listed; no annotation file lists {image}. "
                        "List it (without annotations if it is good) or remove it.",
                        kind="orphan_image",
                        path=image,
                    )
