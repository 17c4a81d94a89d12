"""Reader of the MVTec-AD tree with any names (Bergmann et al., CVPR 2019, and all that copy its layout).

::

    ROOT/PRODUCT/train/good/*            images of good parts
    ROOT/PRODUCT/test/good/*
    ROOT/PRODUCT/test/TYPE/STEM.png      images with the defect type TYPE (the folder's name, spaces allowed)
    ROOT/PRODUCT/ground_truth/TYPE/STEM_mask.png     0 and 255, the size of the image; STEM.png also passes
    ROOT/PRODUCT/manifest.jsonl          optional: {"image": "test/TYPE/STEM.png", GROUP_KEY: part} a line

In: ROOT, or one PRODUCT folder. Out: Samples. `ground_truth`, or the folder of one type in it, may be
missing: those samples then have masks None. A type folder of masks that lacks the mask of one image is an
error, not a good part. `report` takes the place of raising: it is told of each problem, what the problem
concerns is left out, and the rest is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dapo.data.sample import Report, Sample, Split, telling
from dapo.errors import DataError
from dapo.images import EXTENSIONS

GOOD = "good"  # in any case: Good, GOOD
MEANT_GOOD = ("ok", "okay", "normal", "fine", "gut", "io", "i.o", "nominal")  # no types of defects
SPLITS: tuple[Split, ...] = ("train", "test")
LAYOUT = "PRODUCT/{train/good, test/good, test/TYPE, ground_truth/TYPE/STEM_mask.png}"
ARCHIVER = "__MACOSX"  # what macOS puts beside the folders of an archive

TypeOf = Callable[[str, Path], "str | None"]  # (product, type folder) -> defect type, None for good


def read_folder(
    root: str | Path,
    *,
    products: Sequence[str] | None = None,
    splits: Sequence[Split] = SPLITS,
    group_key: str | None = None,
    report: Report = None,
) -> tuple[Sample, ...]:
    """Samples of the tree, ordered by product, split, type and natural file name.

    products: only these, in this order. splits: only these. group_key: the manifest's key of the physical
    part. Without a report, raises DataError when the tree is not there, a folder holds no image, a mask or
    an image of a pair is missing, or the manifest does not tell the group.
    """
    found: dict[str, Path] = {}
    with telling(report):
        found = product_folders(Path(root))
    return read_products(found, as_named, root, products, splits, group_key, report)


def as_named(product: str, folder: Path) -> str | None:
    """The defect type is the folder's name. Raises DataError for another word for good parts."""
    name = folder.name.casefold()
    if name in MEANT_GOOD:
        raise DataError(
            f"expected good parts in a folder named {GOOD}; {folder} would be read as a defect type. "
            f"Rename {folder} to {GOOD}.",
            kind="unknown_type",
            path=folder,
        )
    return None if name == GOOD else folder.name


@dataclass(frozen=True)
class Product:
    """One product of the tree: its folder, what its type folders mean, the part on each image."""

    name: str
    folder: Path
    type_of: TypeOf
    groups: dict[str, str] | None
    report: Report


def read_products(
    found: dict[str, Path],
    type_of: TypeOf,
    root: str | Path,
    products: Sequence[str] | None,
    splits: Sequence[Split],
    group_key: str | None,
    report: Report,
) -> tuple[Sample, ...]:
    """Samples of {product: its folder}."""

    def read(name: str, folder: Path) -> Iterator[Sample]:
        product = Product(name, folder, type_of, read_groups(folder, group_key), report)
        for split in splits:
            yield from read_split(product, split)

    return each_product(found, read, root, products, splits, report)


def each_product(
    found: dict[str, Path],
    read: Callable[[str, Path], Iterable[Sample]],
    root: str | Path,
    products: Sequence[str] | None,
    splits: Sequence[Split],
    report: Report,
) -> tuple[Sample, ...]:
    """What `read` gives of each product asked for and its folder; DataError when that is nothing."""
    samples: list[Sample] = []
    for name in chosen(found, products, root, report):
        with telling(report):
            samples += read(name, found[name])
    return some(samples, root, splits, report) if found else ()


def chosen(
    found: dict[str, Path], products: Sequence[str] | None, root: str | Path, report: Report
) -> list[str]:
    """The products asked for, in that order; DataError for those that are not there."""
    names = list(found) if products is None or not found else list(products)
    if unknown := [name for name in names if name not in found]:
        with telling(report):
            raise DataError(
                f"expected products among {', '.join(found)} in {root}; got {', '.join(unknown)}. "
                "Correct the names.",
                path=Path(root),
            )
    return [name for name in names if name in found]


def some(
    samples: Sequence[Sample], root: str | Path, splits: Sequence[Split], report: Report
) -> tuple[Sample, ...]:
    """The samples; DataError when there is none."""
    if not samples:
        with telling(report):
            raise DataError(
                f"expected images in {root} for the splits {', '.join(splits)}; found none. "
                "Ask for another split.",
                kind="empty",
                path=Path(root),
            )
    return tuple(samples)


def holds_splits(folder: Path) -> bool:
    """Whether the folder is a product of this layout."""
    return any((folder / split).is_dir() for split in SPLITS)


def product_folders(
    root: Path,
    *,
    usual: Sequence[str] = (),
    is_product: Callable[[Path], bool] = holds_splits,
    layout: str = LAYOUT,
) -> dict[str, Path]:
    """{product: its folder}, naturally sorted. A root that is a product itself is the only one.

    usual: names in lower case of folders that hold the products when root does not.
    """
    if not root.is_dir():
        raise DataError(
            f"expected a dataset folder {layout}; {root} is not a folder. Check the path.", path=root
        )
    if is_product(root):
        return {root.resolve().name: root}
    inner = inner_folders(root)
    if found := {entry.name: entry for entry in inner if is_product(entry)}:
        return found
    for entry in inner:
        if entry.name.lower() in usual:
            with suppress(DataError):
                return product_folders(entry, usual=usual, is_product=is_product, layout=layout)
    if is_product is holds_splits and (flat := [entry for entry in (root, *inner) if holds_good(entry)]):
        raise DataError(
            f"expected {layout} in {root}; the types stand straight in {flat[0]}. Put them into "
            f"{flat[0] / 'test'}: {flat[0] / 'test' / GOOD} and so on.",
            path=flat[0],
        )
    seen = ", ".join(entry.name for entry in inner[:5]) or "no folder at all"
    raise DataError(
        f"expected {layout} in {root}; no folder in it is a product (it holds {seen}). "
        "Point to the folder above the products, or to one product.",
        path=root,
    )


def holds_good(folder: Path) -> bool:
    """Whether a folder of good parts stands straight inside."""
    return any(entry.name.casefold() in (GOOD, *MEANT_GOOD) for entry in inner_folders(folder))


def inner_folders(folder: Path) -> list[Path]:
    """Folders straight inside, if any, naturally sorted, without hidden ones and those of archivers."""
    seen = (entry for entry in folder.glob("*") if entry.is_dir())
    return sorted(
        (entry for entry in seen if not entry.name.startswith(".") and entry.name != ARCHIVER), key=natural
    )


def read_split(product: Product, split: Split) -> Iterator[Sample]:
    """Samples of PRODUCT/SPLIT, type by type; nothing when the split is not there."""
    folder = product.folder / split
    if not folder.is_dir():
        return
    kinds = inner_folders(folder)
    with telling(product.report):
        if not kinds:
            raise DataError(
                f"expected folders named good or after a defect type in {folder}; found none. "
                "Sort the images into them.",
                kind="empty",
                path=folder,
            )
    for kind in kinds:
        with telling(product.report):
            yield from read_kind(product, split, kind)
    if split == "test":
        refuse_masks_alone(product)


def read_kind(product: Product, split: Split, kind: Path) -> Iterator[Sample]:
    """Samples of one type folder."""
    name = product.type_of(product.name, kind)
    images = image_files(kind)
    if not images:
        raise DataError(
            f"expected images ({', '.join(EXTENSIONS)}) in {kind}; found none. "
            "Add some or remove the folder.",
            kind="empty",
            path=kind,
        )
    truth = product.folder / "ground_truth" / kind.name
    masks = {} if name is None else mask_files(truth, images, product.report)
    for image in images:
        with telling(product.report):
            group = group_of(product.groups, image.relative_to(product.folder).as_posix(), product.folder)
            if name is None:
                yield Sample(image, product.name, (), {}, split, group)
            elif masks is None or image.stem in masks:
                own = None if masks is None else {name: masks[image.stem]}
                yield Sample(image, product.name, (name,), own, split, group)


def mask_files(folder: Path, images: Sequence[Path], report: Report) -> dict[str, Path] | None:
    """{image stem: mask file} of one type; None when it has no mask folder; DataError for half a pair."""
    if not folder.is_dir():
        return None
    by_stem = {path.stem: path for path in image_files(folder)}
    masks: dict[str, Path] = {}
    for image in images:
        with telling(report):
            mask = by_stem.pop(f"{image.stem}_mask", None) or by_stem.pop(image.stem, None)
            if mask is None:
                raise DataError(
                    f"expected the mask {folder / (image.stem + '_mask.png')} of {image}; there is none. "
                    "Add it, or remove the whole folder if this type has no masks.",
                    kind="orphan_image",
                    path=image,
                )
            masks[image.stem] = mask
    for mask in by_stem.values():
        with telling(report):
            raise DataError(
                f"expected an image for each mask in {folder}; {mask.name} has none. "
                "Restore the image or remove the mask.",
                kind="orphan_mask",
                path=mask,
            )
    return masks


def refuse_masks_alone(product: Product) -> None:
    """Tells each folder of masks whose type has no folder of images."""
    shown = {entry.name for split in SPLITS for entry in inner_folders(product.folder / split)}
    for masks in inner_folders(product.folder / "ground_truth"):
        with telling(product.report):
            if masks.name not in shown and masks.name.casefold() != GOOD and image_files(masks):
                raise DataError(
                    f"expected images in {product.folder / 'test' / masks.name} for the masks in {masks}; "
                    "there is no such folder. Restore the images or remove these masks.",
                    kind="orphan_mask",
                    path=masks,
                )


def read_groups(folder: Path, key: str | None) -> dict[str, str] | None:
    """{image path inside the product: physical part} from the manifest, or None when no key is asked for."""
    if key is None:
        return None
    manifest = folder / "manifest.jsonl"
    if not manifest.is_file():
        raise DataError(
            f"expected {manifest} to tell {key!r} of each image; there is no such file. "
            "Add it or leave the group out.",
            path=manifest,
        )
    groups: dict[str, str] = {}
    for number, line in enumerate(manifest.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            groups[str(row["image"])] = str(row[key])
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(
                f'expected {{"image": ..., "{key}": ...}} in line {number} of {manifest}; got {line[:80]!r}. '
                "Correct the line.",
                path=manifest,
            ) from error
    return groups


def group_of(groups: dict[str, str] | None, key: str, folder: Path) -> str | None:
    """The physical part of one image, unique across products by the folder's name; None without groups."""
    if groups is None:
        return None
    if key not in groups:
        raise DataError(
            f"expected a line for {key} in {folder / 'manifest.jsonl'}; there is none. Add it.",
            kind="orphan_image",
            path=folder / key,
        )
    return f"{folder.name}/{groups[key]}"


def image_files(folder: Path) -> list[Path]:
    """Image files straight inside the folder, naturally sorted; hidden ones (._x.png of macOS) are not
    images.
    """
    seen = (path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    return sorted((path for path in seen if path.suffix.lower() in EXTENSIONS), key=natural)


def natural(path: Path) -> list[tuple[int, int, str]]:
    """Sort key: numbers in the name count as numbers (2 before 10)."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts]
