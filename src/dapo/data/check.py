"""Check of a data set before any compute: what is there, and what would go wrong later.

In: the name and folder of a data set. Out: a frozen Report: images by product, split and type, and each
problem with its file. Images are opened for their size only, masks are decoded; `depth` says less or more.
A count that differs from the published one is a note, not a problem: many use a part of a set.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np

from dapo.data.catalogue import named, open_dataset
from dapo.data.folder import GOOD, SPLITS, image_files
from dapo.data.recognise import with_hint
from dapo.data.sample import TRUE_ABOVE, MaskSource, Sample, Split, read_grey
from dapo.data.taxonomy import Taxonomy, Variant, load_taxonomy
from dapo.errors import DATA_KINDS, DataError, InputError
from dapo.images import image_size, load_image

__all__ = ["SCHEMA", "Count", "Depth", "Problem", "Report", "check_dataset"]

Depth: TypeAlias = Literal["structure", "masks", "images"]  # what is opened; each holds those before it
Progress: TypeAlias = Callable[[int, int], None]  # samples done, samples in all
Source: TypeAlias = "Path | MaskSource"

SCHEMA = 1
MAX_WORKERS = 8
WHOLE_SET = ("layout", "empty")  # kinds that say nothing of a single image
VALUES_SHOWN = 6


@dataclass(frozen=True)
class Problem:
    """One thing to put right. path: the file or folder; kind: one of DATA_KINDS."""

    path: Path
    kind: str
    message: str


@dataclass(frozen=True)
class Count:
    """Images of one product, split and type (`good` for good parts), and how many of them have a mask.

    An image of several types counts for each.
    """

    product: str
    split: Split
    type: str
    images: int
    masks: int


@dataclass(frozen=True)
class Report:
    """What a check found. images, defective: how many in all. notes: what is odd and no fault."""

    dataset: str
    root: Path
    images: int
    defective: int
    counts: tuple[Count, ...]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]

    @property
    def clean(self) -> bool:
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """For JSON; {"schema": 1, "dataset", "root", "clean", "images", "defective", "counts": [{"product",
        "split", "type", "images", "masks"}], "problems": [{"path", "kind", "message"}], "notes": [...]}.
        """
        return {
            "schema": SCHEMA,
            "dataset": self.dataset,
            "root": str(self.root),
            "clean": self.clean,
            "images": self.images,
            "defective": self.defective,
            "counts": [asdict(count) for count in self.counts],
            "problems": [{**asdict(problem), "path": str(problem.path)} for problem in self.problems],
            "notes": list(self.notes),
        }


def check_dataset(
    name: str,
    root: str | Path,
    *,
    products: Sequence[str] | None = None,
    splits: Sequence[Split] = SPLITS,
    variant: Variant = None,
    depth: Depth = "masks",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """The report on the data set `name` in `root`.

    depth: "structure" opens no image, "masks" reads the images' sizes and all masks, "images" decodes all.
    progress: called with (done, all) after each sample. Raises ConfigError for names that do not fit, and
    DataError when root is not a data set of this layout at all.
    """
    root = Path(root)
    told: list[DataError] = []
    samples = open_known(name, root, told.append, products=products, splits=splits, variant=variant)
    problems = [Problem(Path(error.path or root), error.kind, str(error)) for error in told]
    problems += loose_images(samples)
    if depth != "structure":
        problems += examine_all(samples, depth == "images", workers, progress)
    taxonomy = load_taxonomy(name, variant) if named(name).taxonomy else None
    return Report(
        dataset=name,
        root=root,
        images=len(samples),
        defective=sum(sample.defective for sample in samples),
        counts=counted(samples),
        problems=tuple(sorted(problems, key=lambda problem: DATA_KINDS.index(problem.kind))),
        notes=() if taxonomy is None else tuple(compared(samples, taxonomy, products, splits)),
    )


def open_known(
    name: str, root: Path, report: Callable[[DataError], None], **options: Any
) -> tuple[Sample, ...]:
    """The samples, problems with single ones told to `report`; DataError, with a hint, when nothing fits."""
    dataset = named(name)
    told: list[DataError] = []
    if not root.is_dir():
        came = "is a file" if root.exists() else "does not exist"
        raise DataError(f"expected the folder of a data set; {root} {came}. Check the path.", path=root)
    if not any(root.iterdir()):
        raise DataError(
            f"expected {dataset.layout} in {root}; the folder is empty. Unpack the data set into it: "
            f"dapo data add ARCHIVE --dataset {name} --to {root}",
            path=root,
        )
    samples = open_dataset(name, root, report=told.append, **options)
    if not samples and all(error.kind in WHOLE_SET for error in told):
        raise with_hint(told[0], name, root)
    for error in told:
        report(error)
    return samples


def loose_images(samples: Iterable[Sample]) -> Iterator[Problem]:
    """Images straight in PRODUCT/train or PRODUCT/test, beside the folders of types: no reader takes them."""
    around = (sample.image.parent.parent for sample in samples)
    for folder in dict.fromkeys(folder for folder in around if folder.name in SPLITS):
        for image in image_files(folder):
            message = (
                f"expected every image in a folder named {GOOD} or after its type; {image} stands beside "
                "these folders and is not read. Sort it into one of them."
            )
            yield Problem(image, "layout", message)


def counted(samples: Iterable[Sample]) -> tuple[Count, ...]:
    """How many of what, in the order of the samples; good parts before types."""
    images: Counter[tuple[str, Split, str]] = Counter()
    masks: Counter[tuple[str, Split, str]] = Counter()
    for sample in samples:
        for kind in sample.types or (GOOD,):
            images[sample.product, sample.split, kind] += 1
            masks[sample.product, sample.split, kind] += sample.defective and bool(drawn(sample))
    order = {product: place for place, product in enumerate(dict.fromkeys(key[0] for key in images))}
    keys = sorted(images, key=lambda key: (order[key[0]], SPLITS.index(key[1]), key[2] != GOOD, key[2]))
    return tuple(Count(*key, images[key], masks[key]) for key in keys)


def drawn(sample: Sample) -> dict[str, Source]:
    """{what it shows: mask} of a sample; the joint mask shows all its types."""
    if sample.masks is not None:
        return dict(sample.masks)
    return {} if sample.joint is None else {" and ".join(sample.types): sample.joint}


def examine_all(
    samples: Sequence[Sample], deep: bool, workers: int | None, progress: Progress | None
) -> list[Problem]:
    """The problems of all samples, in their order."""
    problems: list[Problem] = []
    with ThreadPoolExecutor(workers or min(MAX_WORKERS, os.cpu_count() or 1)) as pool:
        found = pool.map(lambda sample: list(examine(sample, deep)), samples)
        for done, own in enumerate(found, start=1):
            problems += own
            if progress is not None:
                progress(done, len(samples))
    return problems


def examine(sample: Sample, deep: bool) -> Iterator[Problem]:
    """The problems of one sample. Masks need the size of their image."""
    try:
        height, width = load_image(sample.image).shape[:2] if deep else image_size(sample.image)
    except InputError as error:
        yield Problem(sample.image, "unreadable", str(error))
        return
    for kind, mask in drawn(sample).items():
        path = mask if isinstance(mask, Path) else sample.image
        try:
            marked = examine_file(mask, height, width) if isinstance(mask, Path) else mask.read(height, width)
            if not marked.any():
                message = (
                    f"expected a mask of {kind} that marks something for {sample.image}; it is empty. "
                    "Draw the defect, or list the image as good."
                )
                yield Problem(path, "mask_empty", message)
        except DataError as error:
            yield Problem(Path(error.path or path), error.kind, str(error))


def examine_file(path: Path, height: int, width: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """The mask file; DataError unless it is of this size and holds two values, one of them dark."""
    grey = read_grey(path, height, width)
    values = np.flatnonzero(np.bincount(grey.ravel(), minlength=256))
    if len(values) > 2 or 0 < values[-1] <= TRUE_ABOVE or (len(values) == 2 and values[0] > TRUE_ABOVE):
        shown = ", ".join(map(str, values[:VALUES_SHOWN])) + (", ..." if len(values) > VALUES_SHOWN else "")
        raise DataError(
            f"expected the mask {path} to hold 0 (good) and 255 (defect) only; it holds {len(values)} values "
            f"({shown}). Threshold it and save it without loss, as PNG.",
            kind="mask_values",
            path=path,
        )
    return np.asarray(grey > TRUE_ABOVE, dtype=np.bool_)


def compared(
    samples: Sequence[Sample], taxonomy: Taxonomy, products: Sequence[str] | None, splits: Sequence[Split]
) -> Iterator[str]:
    """A note for each product whose counts are not the published ones, and one for those missing."""
    here = list(dict.fromkeys(sample.product for sample in samples))
    for product in here:
        own = [sample for sample in samples if sample.product == product]
        if differing := list(differences(own, product, taxonomy, splits)):
            yield f"{product}: {', '.join(differing)}"
    missing = [name for name in taxonomy.products if name not in here]
    if missing and products is None:
        yield f"products of the published set that are not here: {', '.join(missing)}"


def differences(
    samples: Sequence[Sample], product: str, taxonomy: Taxonomy, splits: Sequence[Split]
) -> Iterator[str]:
    """What differs from the published counts of one product; types only where each image has one."""
    expected = taxonomy.expected(product)
    if expected is None:
        return
    test = [sample for sample in samples if sample.split == "test"]
    pairs = {"train": (len(samples) - len(test), expected["train"]), "test": (len(test), expected["test"])}
    for split in splits:
        here, published = pairs[split]
        if here != published:
            yield f"{split} {here} (published {published})"
    if "test" in splits and all(len(sample.types) < 2 for sample in test):
        counts = Counter(sample.types[0] if sample.types else GOOD for sample in test)
        for kind, published in expected["test_by_type"].items():
            if counts[kind] != published:
                yield f"{kind} {counts[kind]} (published {published})"
