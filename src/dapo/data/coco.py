"""Reader of COCO annotations (Lin et al., ECCV 2014; cocodataset.org, format of the object detection task).

::

    ROOT/annotations/*.json            the split is a word of the name: train, val, test; else test
    ROOT/SPLIT/_annotations.coco.json  with the images of the split beside it
    ROOT/*.json                        without the folders above

An image's `file_name` is looked for beside the JSON file, in ROOT, ROOT/images, and in the split's folder of
both, then where its `path` says, relative to the JSON file; the first that exists counts. Types are the
categories' names. Polygons, run lengths as numbers and COCO's compressed strings are masks, `iscrowd` or not;
parts of one type in one image are joined. An annotation with a box only gives the type, and masks None to its
image. An image without annotations is a good part. `val` counts as test.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dapo.data.annotated import Outlines, below, ordered, report_unlisted, split_of, split_word
from dapo.data.folder import SPLITS, natural
from dapo.data.sample import Report, Sample, Split, telling
from dapo.errors import DataError
from dapo.masks import Ring

LAYOUT = "annotations/{train,test}.json and images/PRODUCT/*, or SPLIT/_annotations.coco.json"
BESIDE = "_annotations.coco.json"
TABLES = ("images", "annotations", "categories")
Row = dict[str, Any]


def read_coco(
    root: str | Path,
    *,
    products: Sequence[str] | None = None,
    splits: Sequence[Split] = SPLITS,
    report: Report = None,
) -> tuple[Sample, ...]:
    """Samples ordered by product, split and natural path.

    report: told of each problem, and what it concerns is left out; without it the first problem is raised as
    DataError. Only with it, images that no file lists and images listed twice are looked for.
    """
    root = Path(root)
    samples: list[Sample] = []
    with telling(report):
        for path in annotation_files(root):
            split = split_of(path.parent.name if path.name == BESIDE else path.stem)
            if split in splits:
                with telling(report):
                    samples += read_file(path, root, split, report)
    if report is not None and set(splits) == set(SPLITS):
        report_unlisted((sample.image for sample in samples), report)
    return ordered(samples, root, products, splits, report)


def annotation_files(root: Path) -> list[Path]:
    """The JSON files of the first of the three layouts that is there; DataError for none."""
    if not root.is_dir():
        raise DataError(f"expected a dataset folder {LAYOUT}; {root} is not a folder. Check the path.")
    for pattern in ("annotations/*.json", f"*/{BESIDE}", "*.json"):
        visible = (path for path in root.glob(pattern) if not path.name.startswith("."))
        if found := sorted(visible, key=lambda path: natural(path.relative_to(root))):
            return found
    seen = ", ".join(sorted(entry.name for entry in root.iterdir())[:5]) or "nothing at all"
    raise DataError(
        f"expected {LAYOUT} in {root}; there is no JSON file (it holds {seen}). "
        "Point to the folder above annotations."
    )


def read_file(path: Path, root: Path, split: Split, report: Report) -> Iterator[Sample]:
    """The samples of one JSON file."""
    images, annotations, names = read_tables(path)
    own: dict[Any, list[Row]] = {}
    for row in annotations:
        own.setdefault(row.get("image_id"), []).append(row)
    seen: set[Any] = set()
    for image in images:
        with telling(report):
            number = image.get("id")
            if number in seen:
                raise DataError(
                    f"expected an id for each image in {path}; {number!r} stands twice. Export it again.",
                    path=path,
                )
            seen.add(number)
            yield read_image(image, own.get(number, []), names, path, root, split)
    for number in own.keys() - seen:
        with telling(report):
            raise DataError(
                f"expected an image for each annotation in {path}; some are of image_id {number!r}, "
                "which is not listed. Export the annotations again.",
                kind="orphan_mask",
                path=path,
            )


def read_tables(path: Path) -> tuple[list[Row], list[Row], dict[Any, str]]:
    """Images, annotations and {category id: name} of a JSON file; DataError when they are not there."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"expected JSON in {path}; it cannot be read ({error}). Export it again.",
            kind="unreadable",
            path=path,
        ) from error
    tables = [content.get(name) for name in TABLES] if isinstance(content, dict) else [None]
    if not all(isinstance(table, list) and all(isinstance(row, dict) for row in table) for table in tables):
        got = ", ".join(content) if isinstance(content, dict) else f"a {type(content).__name__}"
        raise DataError(
            f"expected the lists {', '.join(TABLES)} in {path}; got {got:.80}. Export it as COCO "
            "annotations, or move the file away if it is something else.",
            path=path,
        )
    images, annotations, categories = tables
    names = {row.get("id"): row.get("name") for row in categories or ()}
    if bad := [
        number for number, name in names.items() if number is None or not isinstance(name, str) or not name
    ]:
        raise DataError(
            f"expected an id and a name for each of the categories in {path}; got {bad[0]!r}. Name it.",
            path=path,
        )
    return images or [], annotations or [], {number: str(name) for number, name in names.items()}


def read_image(
    image: Row, annotations: Sequence[Row], names: dict[Any, str], path: Path, root: Path, split: Split
) -> Sample:
    """One image with its annotations; DataError for the first thing wrong with it."""
    name, source = image.get("file_name"), f"{path}, image {image.get('id')!r}"
    if not isinstance(name, str) or not name:
        raise DataError(f"expected a file_name in {source}; got {name!r}. Add it.", path=path)
    file = find_image(name, path, root, image.get("path"))
    size: Any = image.get("height"), image.get("width")
    told = size if all(isinstance(side, int) for side in size) else None
    rings: dict[str, list[Ring]] = {}
    runs: dict[str, list[Row]] = {}
    boxes = False
    for row in annotations:
        kind = names.get(row.get("category_id"))
        if kind is None:
            raise DataError(
                f"expected the category_id of an annotation to be one of {list(names)} in {source}; "
                f"got {row.get('category_id')!r}. Add the category or correct the annotation.",
                kind="unknown_type",
                path=file,
            )
        parts, run = read_segmentation(row.get("segmentation"), source)
        rings.setdefault(kind, []).extend(parts)
        runs.setdefault(kind, []).extend(run)
        boxes |= not parts and not run
    types = tuple(sorted(rings))
    masks = {kind: Outlines(source, tuple(rings[kind]), tuple(runs[kind]), told) for kind in types}
    return Sample(file, root.name, types, None if boxes else masks, split)


def find_image(name: str, path: Path, root: Path, told: object = None) -> Path:
    """The file of an image; DataError with the places looked at when there is none."""
    places = [path.parent, root, root / "images"]
    if word := split_word(path.stem):
        places += [root / word, root / "images" / word]
    inside = name.replace("\\", "/")
    for place in places:
        if (place / inside).is_file():
            return place / inside
    if isinstance(told, str) and (file := below(path.parent, told)).is_file():
        return file
    looked = ", ".join(str(place) for place in dict.fromkeys(places))
    raise DataError(
        f"expected the image {name} of {path} in {looked}; it is in none. "
        "Restore it or correct its file_name.",
        kind="orphan_mask",
        path=root / inside,
    )


def read_segmentation(drawn: Any, source: str) -> tuple[list[Ring], list[Row]]:
    """Rings and run lengths of one annotation; both empty when it has none. DataError for another form."""
    if not drawn:
        return [], []
    if isinstance(drawn, dict):
        size, counts = drawn.get("size"), drawn.get("counts")
        whole = isinstance(size, list) and len(size) == 2 and all(isinstance(side, int) for side in size)
        if whole and isinstance(counts, (list, str)):
            return [], [{"size": size, "counts": counts}]
    elif isinstance(drawn, list) and all(is_polygon(part) for part in drawn):
        return [np.array(part, dtype=np.float64).reshape(-1, 2) for part in drawn], []
    raise DataError(
        f"expected a segmentation of polygons [[x, y, x, y, x, y, ...], ...] or run lengths "
        f'{{"size": [h, w], "counts": ...}} in {source}; got {drawn!s:.60}. Export the annotations again.'
    )


def is_polygon(part: Any) -> bool:
    """At least three points of finite numbers, x and y in turn."""
    if not isinstance(part, list) or len(part) < 6 or len(part) % 2:
        return False
    return all(isinstance(value, (int, float)) and abs(value) < 1e9 for value in part)
