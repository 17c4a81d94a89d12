"""Reader of the MVTec-AD tree with any names (Bergmann et al., CVPR 2019, and all that copy its layout).

::

    ROOT/PRODUCT/train/good/*            images of good parts
    ROOT/PRODUCT/test/good/*
    ROOT/PRODUCT/test/TYPE/STEM.png      images with the defect type TYPE (the folder's name, spaces allowed)
    ROOT/PRODUCT/ground_truth/TYPE/STEM_mask.png     0 and 255, the size of the image; STEM.png also passes
    ROOT/PRODUCT/manifest.jsonl          optional: {"image": "test/TYPE/STEM.png", GROUP_KEY: part} a line

In: ROOT, or one PRODUCT folder. Out: Samples. `ground_truth`, or the folder of one type in it, may be
missing: those samples then have masks None. A type folder of masks that lacks the mask of one image is an
error, not a good part.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from dapo.data.sample import Sample, Split
from dapo.errors import DataError
from dapo.images import EXTENSIONS

GOOD = "good"
SPLITS: tuple[Split, ...] = ("train", "test")
LAYOUT = "PRODUCT/{train/good, test/good, test/TYPE, ground_truth/TYPE/STEM_mask.png}"


def read_folder(
    root: str | Path,
    *,
    products: Sequence[str] | None = None,
    splits: Sequence[Split] = SPLITS,
    group_key: str | None = None,
) -> tuple[Sample, ...]:
    """Samples of the tree, ordered by product, split, type and natural file name.

    products: only these, in this order. splits: only these. group_key: the manifest's key of the physical
    part. Raises DataError when the tree is not there, a folder holds no image, a mask or an image of a pair
    is missing, or the manifest does not tell the group.
    """
    found = product_folders(Path(root))
    names = list(found) if products is None else list(products)
    if unknown := [name for name in names if name not in found]:
        raise DataError(
            f"expected products among {', '.join(found)} in {root}; got {', '.join(unknown)}. "
            "Correct the names."
        )
    samples = tuple(
        sample
        for name in names
        for split in splits
        for sample in read_split(found[name], name, split, read_groups(found[name], group_key))
    )
    if not samples:
        raise DataError(
            f"expected images in {root} for the splits {', '.join(splits)}; found none. "
            "Ask for another split."
        )
    return samples


def product_folders(root: Path) -> dict[str, Path]:
    """{product: its folder}, naturally sorted. A root that holds train or test itself is one product."""
    if not root.is_dir():
        raise DataError(f"expected a dataset folder {LAYOUT}; {root} is not a folder. Check the path.")
    if any((root / split).is_dir() for split in SPLITS):
        return {root.resolve().name: root}
    inner = sorted((entry for entry in root.iterdir() if entry.is_dir()), key=natural)
    found = {entry.name: entry for entry in inner if any((entry / split).is_dir() for split in SPLITS)}
    if not found:
        seen = ", ".join(entry.name for entry in inner[:5]) or "no folder at all"
        raise DataError(
            f"expected {LAYOUT} in {root}; no folder in it holds train or test (it holds {seen}). "
            "Point to the folder above the products, or to one product."
        )
    return found


def read_split(folder: Path, product: str, split: Split, groups: dict[str, str] | None) -> Iterator[Sample]:
    """Samples of PRODUCT/SPLIT, type by type; nothing when the split is not there."""
    if not (folder / split).is_dir():
        return
    kinds = sorted((entry for entry in (folder / split).iterdir() if entry.is_dir()), key=natural)
    if not kinds:
        raise DataError(
            f"expected folders named good or after a defect type in {folder / split}; found none. "
            "Sort the images into them."
        )
    for kind in kinds:
        images = image_files(kind)
        if not images:
            raise DataError(
                f"expected images ({', '.join(EXTENSIONS)}) in {kind}; found none. "
                "Add some or remove the folder."
            )
        good = kind.name == GOOD
        masks = None if good else mask_files(folder / "ground_truth" / kind.name, images)
        for image in images:
            own = {} if good else None if masks is None else {kind.name: masks[image.stem]}
            group = group_of(groups, image.relative_to(folder).as_posix(), folder)
            yield Sample(image, product, () if good else (kind.name,), own, split, group)


def mask_files(folder: Path, images: Sequence[Path]) -> dict[str, Path] | None:
    """{image stem: mask file} of one type; None when it has no mask folder; DataError for half a pair."""
    if not folder.is_dir():
        return None
    by_stem = {path.stem: path for path in image_files(folder)}
    masks: dict[str, Path] = {}
    for image in images:
        mask = by_stem.pop(f"{image.stem}_mask", None) or by_stem.pop(image.stem, None)
        if mask is None:
            raise DataError(
                f"expected the mask {folder / (image.stem + '_mask.png')} of {image}; there is none. "
                "Add it, or remove the whole folder if this type has no masks."
            )
        masks[image.stem] = mask
    if by_stem:
        raise DataError(
            f"expected an image for each mask in {folder}; {len(by_stem)} have none, the first is "
            f"{min(by_stem.values()).name}. Restore the images or remove these masks."
        )
    return masks


def read_groups(folder: Path, key: str | None) -> dict[str, str] | None:
    """{image path inside the product: physical part} from the manifest, or None when no key is asked for."""
    if key is None:
        return None
    manifest = folder / "manifest.jsonl"
    if not manifest.is_file():
        raise DataError(
            f"expected {manifest} to tell {key!r} of each image; there is no such file. "
            "Add it or leave the group out."
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
                "Correct the line."
            ) from error
    return groups


def group_of(groups: dict[str, str] | None, key: str, folder: Path) -> str | None:
    """The physical part of one image, unique across products by the folder's name; None without groups."""
    if groups is None:
        return None
    if key not in groups:
        raise DataError(f"expected a line for {key} in {folder / 'manifest.jsonl'}; there is none. Add it.")
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
