"""Reader of VisA (Zou et al., ECCV 2022) and of VisA_Extended, which has one mask for each type.

::

    ROOT/split_csv/1cls.csv                     object, split, label, image, mask: what is train, what test
    ROOT/PRODUCT/Data/Images/Normal/NNNN.JPG
    ROOT/PRODUCT/Data/Images/Anomaly/NNN.JPG
    ROOT/PRODUCT/Data/Masks/Anomaly/NNN.png     0 is good, every number above it is a defect
    ROOT/PRODUCT/image_anno.csv                 image, label, mask; label: "normal", or types with commas

    VisA_Extended                               instead of the last two, an assumption: see below
    ROOT/PRODUCT/Data/Masks/Anomaly/TYPE/NNN.png    or    ROOT/PRODUCT/Data/Masks/Anomaly/NNN_TYPE.png

VisA draws one mask an image: where the image has one type it is that type's; where it has several, nobody
told them apart, and the Sample has all types, masks None, and the mask as `joint`. VisA_Extended is described
as "one mask per type and image" and its files are not public: both spellings above are read, TYPE being a
label of image_anno.csv or a class of the taxonomy, blanks or underscores between words.

Without 1cls.csv nobody says which normal images are for training: every image is then test.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from dapo.data.folder import SPLITS, each_product, image_files, inner_folders, product_folders
from dapo.data.sample import JoinedMask, PositiveMask, Report, Sample, Split, telling
from dapo.data.taxonomy import Taxonomy
from dapo.errors import DataError

LAYOUT = "PRODUCT/{Data/Images/{Normal, Anomaly}, Data/Masks/Anomaly, image_anno.csv} and split_csv/1cls.csv"
NORMAL, ANOMALY = "Normal", "Anomaly"
SPLIT_FILE = "split_csv/1cls.csv"

Key = tuple[str, str]  # (Normal or Anomaly, file name): what an image is called in every table


@dataclass(frozen=True)
class Drawn:
    """What is drawn of one image: its labels as published, and {label: mask files} where told apart."""

    labels: tuple[str, ...]
    masks: dict[str, list[Path]] | None
    joint: Path | None = None


def read_visa(
    root: str | Path,
    taxonomy: Taxonomy,
    *,
    extended: bool = False,
    products: Sequence[str] | None = None,
    splits: Sequence[Split] = SPLITS,
    usual: Sequence[str] = (),
    report: Report = None,
) -> tuple[Sample, ...]:
    """Samples ordered by product, split and natural file name. extended: one mask for each type.

    Without a report, raises DataError when the tree is not there, an image has no row in a table, a row no
    image, an anomaly no mask, a mask no image, or a label is not in the taxonomy.
    """
    found: dict[str, Path] = {}
    with telling(report):
        found = product_folders(Path(root), usual=usual, is_product=holds_images, layout=LAYOUT)

    def read(name: str, folder: Path) -> list[Sample]:
        return read_product(folder, name, taxonomy, extended, splits, report)

    return each_product(found, read, root, products, splits, report)


def read_visa_extended(
    root: str | Path,
    taxonomy: Taxonomy,
    *,
    products: Sequence[str] | None = None,
    splits: Sequence[Split] = SPLITS,
    usual: Sequence[str] = (),
    report: Report = None,
) -> tuple[Sample, ...]:
    """Samples as `read_visa` gives them, with a mask for each type."""
    return read_visa(
        root, taxonomy, extended=True, products=products, splits=splits, usual=usual, report=report
    )


def holds_images(folder: Path) -> bool:
    return (folder / "Data" / "Images").is_dir()


def read_product(
    folder: Path, product: str, taxonomy: Taxonomy, extended: bool, splits: Sequence[Split], report: Report
) -> list[Sample]:
    """Samples of one product, those of the first split first."""
    images = product_images(folder)
    places = read_split_file(folder, product, images, report)
    drawn = read_extended(folder, images, report) if extended else read_labels(folder, images, report)
    samples = []
    for split in splits:
        for key, image in images.items():
            if places.get(key) == split and key in drawn and taxonomy.keeps(drawn[key].labels):
                with telling(report):
                    samples.append(as_sample(image, product, split, drawn[key], taxonomy))
    return samples


def as_sample(image: Path, product: str, split: Split, drawn: Drawn, taxonomy: Taxonomy) -> Sample:
    """The Sample of one image; the masks of labels that are one type come together."""
    types = taxonomy.types_of(product, drawn.labels, image)
    if not types:
        return Sample(image, product, (), {}, split)
    if drawn.masks is None:
        joint = None if drawn.joint is None else PositiveMask(drawn.joint)
        if joint is not None and len(types) == 1:
            return Sample(image, product, types, {types[0]: joint}, split)
        return Sample(image, product, types, None, split, joint=joint)
    files: dict[str, list[Path]] = {}
    for label, paths in drawn.masks.items():
        if (name := taxonomy.class_of(product, label)) is not None:
            files.setdefault(name, []).extend(paths)
    return Sample(image, product, types, {name: files_mask(files[name]) for name in types}, split)


def files_mask(paths: Sequence[Path]) -> PositiveMask | JoinedMask:
    masks = tuple(PositiveMask(path) for path in paths)
    return masks[0] if len(masks) == 1 else JoinedMask(masks)


def product_images(folder: Path) -> dict[Key, Path]:
    """{key: image} of both folders, the normal ones first, naturally sorted."""
    found = {
        (kind, path.name): path
        for kind in (NORMAL, ANOMALY)
        if (folder / "Data" / "Images" / kind).is_dir()
        for path in image_files(folder / "Data" / "Images" / kind)
    }
    if not found:
        raise DataError(
            f"expected images in {folder / 'Data' / 'Images'}/{{Normal, Anomaly}}; found none. "
            "Unpack the set again.",
            kind="empty",
            path=folder,
        )
    return found


def read_split_file(folder: Path, product: str, images: dict[Key, Path], report: Report) -> dict[Key, Split]:
    """{key: split} from 1cls.csv above the product; all test when there is no such file."""
    path = folder.parent / SPLIT_FILE
    if not path.is_file():
        return dict.fromkeys(images, "test")
    places: dict[Key, Split] = {}
    for row in rows(path, ("object", "split", "image")):
        if row["object"] == product:
            with telling(report):
                places[key_of(row["image"], path)] = split_of(row["split"], path)
    match(images, places, path, report)
    return places


def split_of(word: str, path: Path) -> Split:
    for split in SPLITS:
        if word == split:
            return split
    raise DataError(
        f"expected train or test in the column split of {path}; got {word!r}. Correct the row.", path=path
    )


def read_labels(folder: Path, images: dict[Key, Path], report: Report) -> dict[Key, Drawn]:
    """{key: labels and the mask of all} from image_anno.csv; images with half of that are left out."""
    path = folder / "image_anno.csv"
    labels: dict[Key, tuple[str, ...]] = {}
    for row in rows(path, ("image", "label")):
        with telling(report):
            words = tuple(word.strip() for word in row["label"].lower().split(",") if word.strip())
            labels[key_of(row["image"], path)] = words or ("normal",)
    match(images, labels, path, report)
    masks = mask_files(folder)
    drawn: dict[Key, Drawn] = {}
    for key, image in images.items():
        with telling(report):
            if key in labels:
                drawn[key] = labelled(key, labels[key], image, masks)
    stems = {image.stem for image in images.values() if image.parent.name == ANOMALY}
    refuse_alone([path for stem, path in (masks or {}).items() if stem not in stems], report)
    return drawn


def labelled(key: Key, labels: tuple[str, ...], image: Path, masks: dict[str, Path] | None) -> Drawn:
    """One image and its mask; masks is None when the product has none at all."""
    if (labels == ("normal",)) != (key[0] == NORMAL):
        raise DataError(
            f"expected the label normal in image_anno.csv for the images in {NORMAL} and for no other; "
            f"{image} has {', '.join(labels)}. Correct the row.",
            path=image,
        )
    if key[0] == NORMAL:
        return Drawn(labels, {})
    if masks is None:
        return Drawn(labels, None)
    if image.stem not in masks:
        raise DataError(
            f"expected the mask Data/Masks/{ANOMALY}/{image.stem}.png of {image}; there is none. "
            "Add it or remove the image.",
            kind="orphan_image",
            path=image,
        )
    return Drawn(labels, None, masks[image.stem])


def read_extended(folder: Path, images: dict[Key, Path], report: Report) -> dict[Key, Drawn]:
    """{key: labels and masks} from the names of the mask files; an anomaly without any is left out."""
    base = masks_folder(folder)
    nested = {entry.name: {path.stem: path for path in image_files(entry)} for entry in inner_folders(base)}
    flat = mask_files(folder) or {}
    unused = {*flat.values(), *(path for masks in nested.values() for path in masks.values())}
    drawn: dict[Key, Drawn] = {}
    for key, image in images.items():
        own: dict[str, list[Path]] = {}
        if key[0] == ANOMALY:
            own = own_masks(image.stem, nested, flat)
            unused -= {path for paths in own.values() for path in paths}
        with telling(report):
            if key[0] == ANOMALY and not own:
                raise DataError(
                    f"expected {base}/TYPE/{image.stem}.png or {image.stem}_TYPE.png for {image}; there is "
                    "neither. Add the masks or remove the image.",
                    kind="orphan_image",
                    path=image,
                )
            drawn[key] = Drawn(tuple(own), own)
    refuse_alone(sorted(unused), report)
    return drawn


def own_masks(stem: str, nested: dict[str, dict[str, Path]], flat: dict[str, Path]) -> dict[str, list[Path]]:
    """{label: mask files} of one image: TYPE/STEM and STEM_TYPE."""
    own = {label: [masks[stem]] for label, masks in nested.items() if stem in masks}
    for name, path in flat.items():
        if name.startswith(f"{stem}_"):
            own.setdefault(name.removeprefix(f"{stem}_"), []).append(path)
    return own


def masks_folder(folder: Path) -> Path:
    return folder / "Data" / "Masks" / ANOMALY


def mask_files(folder: Path) -> dict[str, Path] | None:
    """{stem: mask} straight in the product's mask folder; None when it has none."""
    base = masks_folder(folder)
    return {path.stem: path for path in image_files(base)} if base.is_dir() else None


def refuse_alone(masks: Iterable[Path], report: Report) -> None:
    """Tells each mask whose image is not there."""
    for mask in masks:
        with telling(report):
            raise DataError(
                f"expected an image for the mask {mask}; there is none. Restore it or remove the mask.",
                kind="orphan_mask",
                path=mask,
            )


def match(images: Mapping[Key, Path], listed: Iterable[Key], table: Path, report: Report) -> None:
    """Tells each image without a row, and each row without an image."""
    listed = set(listed)
    for key in sorted(images.keys() - listed):
        with telling(report):
            raise DataError(
                f"expected a row of {images[key]} in {table}; there is none. Add it or remove the image.",
                kind="orphan_image",
                path=images[key],
            )
    for key in sorted(listed - images.keys()):
        with telling(report):
            raise DataError(
                f"expected the image {'/'.join(key)}, which has a row in {table}; there is none. "
                "Restore the image or remove the row.",
                kind="orphan_mask",
                path=table,
            )


def rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows of a CSV file with these columns, every value trimmed."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if set(columns) <= set(reader.fieldnames or ()):
                return [{name: (row[name] or "").strip() for name in columns} for row in reader]
        came = f"its columns are {', '.join(reader.fieldnames or ()) or 'none'}"
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        came = f"it cannot be read ({error})"
    raise DataError(
        f"expected a table {path} with the columns {', '.join(columns)}; {came}. Take the file as published.",
        path=path,
    )


def key_of(image: str, path: Path) -> Key:
    """(Normal or Anomaly, file name) of an image as a table names it."""
    parts = PurePosixPath(image.replace("\\", "/")).parts
    if len(parts) < 2 or parts[-2] not in (NORMAL, ANOMALY):
        raise DataError(
            f"expected an image .../{{Normal, Anomaly}}/NAME in {path}; got {image!r}. Correct the row.",
            path=path,
        )
    return parts[-2], parts[-1]
