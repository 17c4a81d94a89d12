"""Label Studio's export: polygons, brush strokes and boxes; where images are found; what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pytest
from PIL import Image

from dapo.data import open_dataset
from dapo.data.label_studio import address_path, read_label_studio, unpack
from dapo.data.sample import Sample
from dapo.errors import DataError
from dapo.masks import Mask

SIZE = (20, 30)  # height, width
# a mask of 4 x 6 with row 1, columns 2 to 4 set, packed by Label Studio's own SDK (encode_rle, 2.1.2)
PACKED_BY_LABEL_STUDIO = [0, 0, 0, 96, 57, 27, 254, 31, 0, 183, 255, 140, 192, 0]


def save(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (90, 90, 90)).save(path)
    return path


def mark(kind: str, value: dict[str, Any], *labels: str, **changes: Any) -> dict[str, Any]:
    size = {"original_width": SIZE[1], "original_height": SIZE[0], "image_rotation": 0}
    return {"type": kind, "value": {**value, kind: list(labels)}, **size, **changes}


def square(*labels: str, **changes: Any) -> dict[str, Any]:
    """x 3 to 9, y 4 to 8"""
    points = [[10, 20], [30, 20], [30, 40], [10, 40]]
    return mark("polygonlabels", {"points": points}, *(labels or ("bent",)), **changes)


def task(*marks: dict[str, Any], image: str = "/data/local-files/?d=a.png", **changes: Any) -> dict[str, Any]:
    annotation = {"was_cancelled": False, "updated_at": "2025-01-02", "result": list(marks)}
    return {"id": 5, "data": {"image": image}, "annotations": [annotation], **changes}


def read(root: Path, *tasks: Any) -> Sequence[Sample]:
    save(root / "a.png")
    (root / "export.json").write_text(json.dumps(list(tasks)), encoding="utf-8")
    return read_label_studio(root)


def set_square() -> Mask:
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[4:8, 3:9] = True
    return mask


def test_the_written_set_is_read_back(tmp_path: Path) -> None:
    written = layouts.write("label_studio", tmp_path)
    samples = {sample.image: sample for sample in open_dataset("label_studio", tmp_path)}
    assert len(samples) == len(written.pictures)
    for picture in written.pictures:
        sample = samples[picture.image]
        assert (sample.product, sample.split, sample.types) == (picture.product, picture.split, picture.types)
        masks = sample.load_masks(*layouts.SIZE)
        assert masks is not None and masks.keys() == picture.masks.keys()
        assert all((masks[kind] == mask).all() for kind, mask in picture.masks.items())


def test_polygons_of_one_type_are_joined_and_boxes_have_no_mask(tmp_path: Path) -> None:
    other = mark("polygonlabels", {"points": [[50, 50], [60, 50], [60, 60]]}, "bent")
    (sample,) = read(tmp_path, task(square(), other))
    masks = sample.load_masks(*SIZE)
    assert sample.types == ("bent",) and masks is not None
    assert (masks["bent"] & set_square() == set_square()).all() and masks["bent"].sum() > set_square().sum()
    box = mark("rectanglelabels", {"x": 1, "y": 1, "width": 5, "height": 5}, "dent")
    (sample,) = read(tmp_path, task(square(), box))
    assert sample.types == ("bent", "dent") and sample.masks is None


def test_an_empty_annotation_is_a_good_part_and_other_controls_are_no_marks(tmp_path: Path) -> None:
    note = {"type": "textarea", "value": {"text": ["looks fine"]}}
    (sample,) = read(tmp_path, task(note))
    assert sample.types == () and sample.masks == {}


def test_the_newest_annotation_that_was_not_cancelled_counts(tmp_path: Path) -> None:
    rows = [
        {"updated_at": "2025-01-01", "result": [square("old")]},
        {"updated_at": "2025-03-01", "result": [square("cancelled")], "was_cancelled": True},
        {"updated_at": "2025-02-01", "result": [square("new")]},
    ]
    (sample,) = read(tmp_path, task(annotations=rows))
    assert sample.types == ("new",)


@pytest.mark.parametrize(
    ("address", "path"),
    [
        ("/data/local-files/?d=line%203/a%20b.png", "line 3/a b.png"),
        ("/data/local-files/?d=line+3/a.png", "line 3/a.png"),
        ("/data/upload/1/0a1b2c3d-a.png", "data/upload/1/0a1b2c3d-a.png"),
        ("http://host:8080/pics/a%23.png?x=1", "pics/a#.png"),
        ("a.png", "a.png"),
    ],
)
def test_addresses_mean_files(address: str, path: str) -> None:
    assert address_path(address) == path


@pytest.mark.parametrize(
    "address", ["/data/upload/7/0a1b2c3d-a.png", "s3://bucket/deep/a.png", "/data/local-files/?d=x/a.png"]
)
def test_an_image_is_found_by_its_name(tmp_path: Path, address: str) -> None:
    (sample,) = read(tmp_path, task(image=address))
    assert sample.image == tmp_path / "a.png"


def test_brush_strokes_of_the_tool_itself_are_read() -> None:
    mask = np.zeros((4, 6), dtype=np.uint8)
    mask[1, 2:5] = 255
    assert (unpack(bytes(PACKED_BY_LABEL_STUDIO)).reshape(4, 6, 4)[..., 3] == mask).all()


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (task(annotations=[]), ["nobody submitted", "a.png"]),
        (task(square(polygonlabels=[]) | {"value": {"points": [], "polygonlabels": []}}), ["label"]),
        (task(mark("polygonlabels", {"points": [[1, 2], [3, 4]]}, "bent")), ["three points"]),
        (task(square(image_rotation=90)), ["rotation"]),
        (task(square(original_width=None)), ["original_width"]),
        (task(image="b.png"), ["b.png", "images"]),
        (task(data={"image": 7}), ["data.image"]),
        ({"image": "a.png", "label": []}, ["JSON-MIN"]),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, broken: Any, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, broken)
    assert all(word in str(caught.value) for word in words), caught.value


def test_masks_of_another_size_or_broken_are_told_when_read(tmp_path: Path) -> None:
    (sample,) = read(tmp_path, task(square()))
    with pytest.raises(DataError, match="30 x 20"):
        sample.load_masks(40, 60)
    for codes in ([1, 2, 3], layouts.brush_rle(np.ones((3, 3), dtype=np.bool_)), [0, 0, 0, 9, 255, 255, 255]):
        stroke = mark("brushlabels", {"format": "rle", "rle": codes}, "bent")
        (sample,) = read(tmp_path, task(stroke))
        with pytest.raises(DataError, match="brush stroke is broken"):
            sample.load_masks(*SIZE)


def test_problems_are_collected_and_the_rest_is_read(tmp_path: Path) -> None:
    save(tmp_path / "a.png")
    (tmp_path / "export.json").write_text(json.dumps([task(annotations=[]), task(square())]), "utf-8")
    problems: list[DataError] = []
    assert len(read_label_studio(tmp_path, report=problems.append)) == 1
    assert [problem.kind for problem in problems] == ["orphan_image"]


def test_a_folder_without_an_export(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no JSON file"):
        read_label_studio(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        read_label_studio(tmp_path / "none")
    (tmp_path / "x.json").write_text("{", "utf-8")
    with pytest.raises(DataError, match="cannot be read"):
        read_label_studio(tmp_path)
