"""Reader of Label Studio's JSON export (labelstud.io, guide/export and guide/task_format).

::

    ROOT/*.json or ROOT/annotations/*.json   a list of tasks; the split is a word of the name, else test

An image is looked for where the task's `path` says (our own files have it, relative to the JSON file), then
by the path in its address (`?d=`, what follows `upload/PROJECT/HASH-`, or the address itself) and by its name
alone, beside the JSON file, in ROOT and in ROOT/images. The newest annotation of a task that was not
cancelled counts. Polygons and brush strokes are masks, joined by type; rectangles and ellipses give the type,
and masks None to their image. An annotation without a mark says that the part is good; a task that nobody
annotated is told, since predictions are no labels.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import numpy as np
import numpy.typing as npt

from dapo.data.annotated import Outlines, below, ordered, split_of
from dapo.data.folder import SPLITS, natural
from dapo.data.sample import JoinedMask, MaskSource, Report, Sample, Split, telling
from dapo.errors import DataError
from dapo.masks import Ring

LAYOUT = "a JSON export of Label Studio (a list of tasks) and the images beside it or in images/"
UPLOAD = re.compile(r"^[0-9a-f]{8}-")  # what Label Studio puts before the name of an uploaded file
OUTLINED, FILLED, BOXED = "polygonlabels", "brushlabels", ("rectanglelabels", "ellipselabels")
Row = dict[str, Any]


def read_label_studio(
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
        for path in export_files(root):
            split = split_of(path.stem)
            if split in splits:
                with telling(report):
                    samples += read_file(path, root, split, report)
    return ordered(samples, root, products, splits, report)


def export_files(root: Path) -> list[Path]:
    """The JSON files in ROOT/annotations, else those in ROOT; DataError for none."""
    if not root.is_dir():
        raise DataError(f"expected a folder with {LAYOUT}; {root} is not a folder. Check the path.")
    for pattern in ("annotations/*.json", "*.json"):
        if found := sorted(root.glob(pattern), key=natural):
            return [path for path in found if not path.name.startswith(".")]
    raise DataError(f"expected {LAYOUT} in {root}; there is no JSON file. Point to the folder of the export.")


def read_file(path: Path, root: Path, split: Split, report: Report) -> Iterator[Sample]:
    """The samples of one export."""
    for place, task in enumerate(read_tasks(path), start=1):
        with telling(report):
            yield read_task(task, f"{path}, task {task.get('id', place)}", path, root, split)


def read_tasks(path: Path) -> list[Row]:
    """The tasks of a JSON file; DataError when it is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"expected JSON in {path}; it cannot be read ({error}). Export it again.",
            kind="unreadable",
            path=path,
        ) from error
    if not isinstance(content, list) or not all(
        isinstance(task, dict) and isinstance(task.get("data"), dict) for task in content
    ):
        raise DataError(
            f"expected a list of tasks with `data` in {path}; got something else. Export the project in the "
            "format JSON (not JSON-MIN), or move the file away.",
            path=path,
        )
    return content


def read_task(task: Row, source: str, path: Path, root: Path, split: Split) -> Sample:
    """One image with its marks; DataError for the first thing wrong with it."""
    image = find_image(task["data"], source, path, root)
    marks = newest_annotation(task, source, image)
    sources: dict[str, list[MaskSource]] = {}
    boxes = False
    for mark in marks:
        for kind in type_names(mark, source, image):
            drawn = read_mark(mark, source, image)
            sources.setdefault(kind, []).extend([] if drawn is None else [drawn])
            boxes |= drawn is None
    types = tuple(sorted(sources))
    masks: dict[str, Path | MaskSource] = {kind: JoinedMask(tuple(sources[kind])) for kind in types}
    return Sample(image, root.name, types, None if boxes else masks, split)


def find_image(data: Row, source: str, path: Path, root: Path) -> Path:
    """The file of a task's image; DataError with what was looked for when there is none."""
    address = data.get("image")
    if not isinstance(address, str) or not address:
        raise DataError(f"expected data.image in {source}; got {address!r}. Add it.", path=path)
    told = data.get("path")
    names = [told] if isinstance(told, str) else []
    inside = address_path(address)
    names += [inside, PurePosixPath(inside).name, UPLOAD.sub("", PurePosixPath(inside).name)]
    for name in names:
        for place in (path.parent, root, root / "images"):
            if name and (file := below(place, name)).is_file():
                return file
    raise DataError(
        f"expected the image {address} of {source} beside {path}, in {root} or in {root / 'images'}, as "
        f"{' or '.join(dict.fromkeys(filter(None, names)))}; it is in none. Put it there.",
        kind="orphan_mask",
        path=root / inside,
    )


def address_path(address: str) -> str:
    """The file that an address of Label Studio means: below its document root, or as uploaded."""
    parts = urlsplit(address)
    if local := parse_qs(parts.query).get("d"):
        return local[0].replace("\\", "/").lstrip("/")
    return unquote(parts.path).replace("\\", "/").lstrip("/")


def newest_annotation(task: Row, source: str, image: Path) -> list[Row]:
    """The marks of the annotation that counts; DataError when nobody annotated the task."""
    done = [row for row in task.get("annotations") or () if not row.get("was_cancelled")]
    if not done:
        raise DataError(
            f"expected an annotation for {image.name} in {source}; nobody submitted one (predictions are no "
            "labels). Submit it in Label Studio or leave it out of the export.",
            kind="orphan_image",
            path=image,
        )
    newest = max(done, key=lambda row: str(row.get("updated_at") or row.get("created_at") or ""))
    return [mark for mark in newest.get("result") or () if isinstance(mark.get("value"), dict)]


def type_names(mark: Row, source: str, image: Path) -> list[str]:
    """The labels of a mark; texts and choices have none. DataError for a shape without."""
    kind = mark.get("type")
    if kind not in (OUTLINED, FILLED, *BOXED):
        return []
    labels = mark["value"].get(kind)
    if not labels or not all(isinstance(label, str) and label for label in labels):
        raise DataError(
            f"expected a label on each mark of {image.name} in {source}; one of {kind} has {labels!r}. "
            "Label it or delete the mark.",
            kind="unknown_type",
            path=image,
        )
    return [str(label) for label in labels]


def read_mark(mark: Row, source: str, image: Path) -> MaskSource | None:
    """The mask of a polygon or brush stroke; None for a box."""
    if mark["type"] in BOXED:
        return None
    size = mark.get("original_height"), mark.get("original_width")
    if not all(isinstance(side, int) and side > 0 for side in size) or mark.get("image_rotation"):
        raise DataError(
            f"expected original_width and original_height and no rotation in the marks of {image.name} in "
            f"{source}; got {size} and {mark.get('image_rotation')!r}. Export the annotations again.",
            path=image,
        )
    height, width = int(str(size[0])), int(str(size[1]))
    if mark["type"] == FILLED:
        return BrushStroke(source, tuple(mark["value"].get("rle") or ()), (height, width))
    ring = ring_of(mark["value"].get("points"), source)
    return Outlines(source, (ring,), size=(height, width), shares=True)


def ring_of(points: Any, source: str) -> Ring:
    """The ring of a polygon's points in percent, as shares; DataError for fewer than three."""
    try:
        ring = np.array(points, dtype=np.float64) / 100
    except (TypeError, ValueError):
        ring = np.empty(0)
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3 or not np.isfinite(ring).all():
        raise DataError(
            f"expected at least three points [x, y] in percent in {source}; got {points!s:.60}. "
            "Draw the polygon again."
        )
    return ring


@dataclass(frozen=True, eq=False)
class BrushStroke:
    """A mask painted with the brush: run lengths of an RGBA picture. A MaskSource."""

    source: str
    codes: tuple[int, ...]  # bytes
    size: tuple[int, int]  # height, width

    def read(self, height: int, width: int) -> npt.NDArray[np.bool_]:
        """The mask of an image of this size; DataError when it was painted on another one or is broken."""
        if self.size != (height, width):
            raise DataError(
                f"expected the masks of {self.source} on a picture of {width} x {height} px like the image; "
                f"they are on {self.size[1]} x {self.size[0]}. Label the images as they are.",
                kind="mask_size",
            )
        try:
            values = unpack(bytes(self.codes))
            opacity = values.reshape(height, width, 4)[..., 3]
        except (ValueError, IndexError) as error:
            raise DataError(f"{self.source}: a brush stroke is broken ({error}). Export it again.") from error
        return np.asarray(opacity > 0)


def unpack(data: bytes) -> npt.NDArray[np.uint8]:
    """The values of run lengths as Label Studio's brush packs them (the format of thi.ng/rle-pack).

    Bits, high first: 32 for the number of values, 5 for a value's width less one, four times 4 for the widths
    of a count less one. Then blocks: 1 bit tells a run from single values, 2 bits which width the count has,
    the count less one, and one value or that many.
    """
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
    place = 0

    def number(width: int) -> int:
        nonlocal place
        if place + width > bits.size:
            raise ValueError("it ends too early")
        word = bits[place : place + width]
        place += width
        return int(word.dot(1 << np.arange(width - 1, -1, -1, dtype=np.int64)))

    total, width = number(32), number(5) + 1
    if width != 8:
        raise ValueError(f"its values have {width} bits")
    counts = [number(4) + 1 for _ in range(4)]
    blocks, found = [], 0
    while found < total:
        run, count = number(1), number(counts[number(2)]) + 1
        if run:
            blocks.append(np.full(count, number(width), dtype=np.uint8))
        else:
            blocks.append(np.packbits(bits[place : place + count * width]))
            place += count * width
        found += count
    values = np.concatenate(blocks) if blocks else np.zeros(0, dtype=np.uint8)
    return values[:total]
