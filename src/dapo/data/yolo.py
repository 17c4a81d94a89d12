"""Reader of YOLO segmentation labels (docs.ultralytics.com, datasets/segment).

::

    ROOT/data.yaml           names: [TYPE, ...] or {0: TYPE}; train, val, test: a folder, a .txt list of
                             images, or several; relative to `path`, which is relative to the file
    ROOT/images/SPLIT/*      images, at any depth
    ROOT/labels/SPLIT/*.txt  the same path with `labels` for `images`: CLASS x y x y x y ..., shares of 0 to 1

Each line is one polygon; those of one type in one image are joined. A line CLASS x y w h is a box: it gives
the type, and masks None to its image. An image without label file, or with an empty one, is a good part.
`val` counts as test. A `path` that is not there (that of the machine the file was written on) is the folder
of the file, and so is what stands below `../` when it is not where it says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dapo.data.annotated import Outlines, ordered
from dapo.data.folder import SPLITS, image_files, natural
from dapo.data.sample import Report, Sample, Split, telling
from dapo.errors import DataError
from dapo.images import EXTENSIONS
from dapo.masks import Ring

LAYOUT = "data.yaml, images/SPLIT/* and labels/SPLIT/*.txt"
ENTRIES: dict[str, Split] = {"train": "train", "val": "test", "test": "test"}
NOT_LABELS = ("classes.txt", "notes.txt")  # what labelling tools leave beside them
SLACK = 0.01  # share of the side that a point may lie outside: rounding


def read_yolo(
    root: str | Path,
    *,
    products: Sequence[str] | None = None,
    splits: Sequence[Split] = SPLITS,
    report: Report = None,
) -> tuple[Sample, ...]:
    """Samples ordered by product, split and natural path.

    report: told of each problem, and what it concerns is left out; without it the first problem is raised as
    DataError. Only with it, images listed twice are looked for.
    """
    root = Path(root)
    samples: list[Sample] = []
    with telling(report):
        config, content = read_config(root)
        names = type_names(content, config)
        for entry, split in ENTRIES.items():
            if split in splits and content.get(entry):
                samples += read_entry(content, entry, split, config, names, report)
        refuse_unlabelled([sample.image for sample in samples])
    return ordered(samples, root, products, splits, report)


def read_entry(
    content: dict[str, Any], entry: str, split: Split, config: Path, names: dict[int, str], report: Report
) -> Iterator[Sample]:
    """The samples of `train`, `val` or `test`."""
    images = list(dict.fromkeys(entry_images(content, entry, config, report)))
    for image in images:
        with telling(report):
            types, masks = read_labels(label_file(image), names)
            yield Sample(image, config.parent.name, types, masks, split)
    report_orphans(images, report)


def refuse_unlabelled(images: Sequence[Path]) -> None:
    """DataError when not one folder of labels exists: a wrong path would make every part good."""
    folders = sorted({label_file(image).parent for image in images})
    if folders and not any(folder.is_dir() for folder in folders):
        raise DataError(
            f"expected the labels in {folders[0]}; neither it nor any other folder of labels exists, so "
            "nothing tells a good part from a defective one. Add the labels."
        )


def read_config(root: Path) -> tuple[Path, dict[str, Any]]:
    """data.yaml, else the first other .yaml with `names`, and its content; DataError for none."""
    import yaml

    if not root.is_dir():
        raise DataError(f"expected a dataset folder {LAYOUT}; {root} is not a folder. Check the path.")
    files = [path for path in root.glob("*.y*ml") if not path.name.startswith(".")]
    found = sorted(files, key=lambda path: (path.stem != "data", path.name))
    for path in found:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            why = " ".join(str(error).split())
            raise DataError(
                f"expected YAML in {path}; it cannot be read ({why}). Correct it.",
                kind="unreadable",
                path=path,
            ) from error
        if isinstance(content, dict) and "names" in content:
            return path, content
    seen = ", ".join(sorted(entry.name for entry in root.iterdir())[:5]) or "nothing at all"
    raise DataError(
        f"expected {LAYOUT} in {root}; no .yaml file in it has names (it holds {seen}). "
        "Point to the folder of data.yaml."
    )


def type_names(content: dict[str, Any], path: Path) -> dict[int, str]:
    """{class: type} of `names`, a list or {number: name}."""
    names = content["names"]
    pairs = dict(enumerate(names)) if isinstance(names, list) else names
    whole = isinstance(pairs, dict) and all(isinstance(number, int) for number in pairs)
    if not whole or not pairs or not all(isinstance(name, (str, int, float)) for name in pairs.values()):
        raise DataError(
            f"expected names to be a list of types or {{0: type, ...}} in {path}; got {names!r:.60}. "
            "Correct it.",
            path=path,
        )
    return {number: str(name) for number, name in pairs.items()}


def entry_images(content: dict[str, Any], entry: str, config: Path, report: Report) -> Iterator[Path]:
    """The images of `train`, `val` or `test`, naturally sorted within each folder."""
    places = content[entry]
    for place in places if isinstance(places, list) else [places]:
        with telling(report):
            path = entry_path(str(place), content, config)
            if path.is_dir():
                yield from images_below(path)
            elif path.suffix == ".txt" and path.is_file():
                yield from listed_images(path, report)
            else:
                raise DataError(
                    f"expected a folder of images or a .txt list for {entry} in {config}; {path} is neither. "
                    "Correct the entry.",
                    path=path,
                )


def entry_path(place: str, content: dict[str, Any], config: Path) -> Path:
    """Where an entry is: below `path`, or below the folder of the file (see above)."""
    place = place.replace("\\", "/")
    base = config.parent / str(content.get("path") or "").replace("\\", "/")
    inside = re.sub(r"^(\.\./)+", "", place)  # some exporters write ../train/images for train/images
    tries = [base / place, config.parent / place, base / inside, config.parent / inside]
    return next((path for path in tries if path.exists()), tries[1] if not base.is_dir() else tries[0])


def images_below(folder: Path) -> list[Path]:
    """All images at any depth, hidden files left out."""
    found = (path for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    seen = [path for path in found if not path.name.startswith(".") and path.is_file()]
    return sorted(seen, key=lambda path: [natural(Path(part)) for part in path.parts])


def listed_images(path: Path, report: Report) -> Iterator[Path]:
    """The images a .txt file lists, one a line, relative to the file."""
    for line in path.read_text(encoding="utf-8-sig").splitlines():
        with telling(report):
            image = path.parent / line.strip().replace("\\", "/")
            if not image.is_file() and line.strip():
                raise DataError(
                    f"expected the image {image} that {path} lists; there is no such file. "
                    "Restore it or remove the line.",
                    kind="orphan_mask",
                    path=image,
                )
            if line.strip():
                yield image


def label_file(image: Path) -> Path:
    """The label file of an image: the last folder `images` of its path becomes `labels`."""
    parts = list(image.parts)
    if "images" in parts[:-1]:
        last = len(parts) - 2 - parts[-2::-1].index("images")
        parts[last] = "labels"
    return Path(*parts).with_suffix(".txt")


def report_orphans(images: Sequence[Path], report: Report) -> None:
    """Tells of each label file without an image beside those given: it may be missing or misspelt."""
    folders = {label_file(image).parent: image.parent for image in images}
    for folder, beside in sorted(folders.items()):
        shown = {image.stem for image in image_files(beside)}
        for path in sorted(folder.glob("*.txt"), key=natural):
            if path.stem not in shown and path.name not in NOT_LABELS and not path.name.startswith("."):
                with telling(report):
                    raise DataError(
                        f"expected an image for the label file {path} in {beside}; there is none. "
                        "Restore the image or remove the file.",
                        kind="orphan_mask",
                        path=path,
                    )


def read_labels(path: Path, names: dict[int, str]) -> tuple[tuple[str, ...], dict[str, Outlines] | None]:
    """Types and masks of one label file; both empty for a good part."""
    if not path.is_file():
        return (), {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"expected text in {path}; it cannot be read ({error}). Export it again.",
            kind="unreadable",
            path=path,
        ) from error
    rings: dict[str, list[Ring]] = {}
    boxes = False
    for number, line in enumerate(lines, start=1):
        if line.strip():
            kind, ring = read_line(line, names, f"line {number} of {path}", path)
            rings.setdefault(kind, []).extend([] if ring is None else [ring])
            boxes |= ring is None
    types = tuple(sorted(rings))
    return types, None if boxes else {
        kind: Outlines(str(path), tuple(rings[kind]), shares=True) for kind in types
    }


def read_line(line: str, names: dict[int, str], where: str, path: Path) -> tuple[str, Ring | None]:
    """Type and ring of one line; the ring is None for a box."""
    first, *rest = line.split()
    try:
        number, values = int(first), np.array([float(word) for word in rest])
    except ValueError:
        number, values = -1, np.empty(0)
    if number >= 0 and number not in names:
        known = f"0 to {max(names)}" if len(names) == max(names) + 1 else ", ".join(map(str, sorted(names)))
        raise DataError(
            f"expected a class of {known} in {where}; got {number}. "
            "Add its name to data.yaml or correct the line.",
            kind="unknown_type",
            path=path,
        )
    points = values.size >= 6 and values.size % 2 == 0
    inside = values.size and bool((values >= -SLACK).all() and (values <= 1 + SLACK).all())
    if number < 0 or not inside or not (points or values.size == 4):
        raise DataError(
            f"expected CLASS and at least three points x y, shares of 0 to 1, in {where}; got "
            f"{line.strip():.60}. Export the labels as YOLO segmentation, without confidences.",
            path=path,
        )
    return names[number], values.reshape(-1, 2) if points else None
