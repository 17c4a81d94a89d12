"""YOLO segmentation labels: as they are exported, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import layouts
import numpy as np
import pytest
from PIL import Image

from dapo.data import open_dataset
from dapo.data.yolo import read_yolo
from dapo.errors import DataError

SIZE = (20, 40)  # height, width
QUARTER = "0 0 0 0.5 0 0.5 0.5 0 0.5"  # the upper left


def save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE[::-1], (90, 90, 90)).save(path)
    return path


def save_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def one(root: Path, label: str | None, config: str = "val: images/val\nnames: [bent, cut]\n") -> Path:
    """A set of one image with this label file, and a good one."""
    save_text(root / "data.yaml", config)
    save(root / "images" / "val" / "a.png")
    save(root / "images" / "val" / "good.png")
    save_text(root / "labels" / "val" / "good.txt", "")
    if label is not None:
        save_text(root / "labels" / "val" / "a.txt", label)
    return root


def test_the_written_set_is_read_back(tmp_path: Path) -> None:
    written = layouts.write("yolo", tmp_path / "plate")
    samples = {sample.image: sample for sample in open_dataset("yolo", tmp_path / "plate")}
    assert len(samples) == len(written.pictures)
    for picture in written.pictures:
        sample = samples[picture.image]
        assert (sample.product, sample.split, sample.types) == (picture.product, picture.split, picture.types)
        masks = sample.load_masks(*layouts.SIZE)
        assert masks is not None
        assert masks.keys() == picture.masks.keys()
        assert all((masks[kind] == mask).all() for kind, mask in picture.masks.items())


def test_polygons_are_shares_of_the_image_and_joined(tmp_path: Path) -> None:
    sample = read_yolo(one(tmp_path, f"{QUARTER}\n1 0.5 0.5 1 0.5 1 1 0.5 1\n\n0 0.9 0 1 0 1 0.1 0.9 0.1\n"))[
        0
    ]
    assert sample.types == ("bent", "cut")
    masks = sample.load_masks(*SIZE)
    assert masks is not None
    bent = np.zeros(SIZE, dtype=np.bool_)
    bent[:10, :20] = bent[:2, 36:] = True
    assert (masks["bent"] == bent).all()
    assert masks["cut"].sum() == 10 * 20
    larger = sample.load_masks(40, 80)
    assert larger is not None
    assert larger["cut"].sum() == 4 * masks["cut"].sum()


def test_a_box_is_a_type_and_not_a_mask(tmp_path: Path) -> None:
    sample = read_yolo(one(tmp_path, f"1 0.5 0.5 0.2 0.2\n{QUARTER}\n"))[0]
    assert sample.types == ("bent", "cut")
    assert sample.masks is None


@pytest.mark.parametrize("label", [None, "", "\n \n"])
def test_no_line_is_a_good_part(tmp_path: Path, label: str | None) -> None:
    samples = read_yolo(one(tmp_path, label))
    assert [(sample.types, sample.masks) for sample in samples] == [((), {}), ((), {})]


@pytest.mark.parametrize(
    "config",
    [
        "train: images/train\nval: images/val\nnames: {0: bent, 3: cut}\n",
        "path: .\ntrain: [images/train]\nval: images/val\nnames: {0: bent, 3: cut}\n",
        "path: ../SET\ntrain: images/train\ntest: images/val\nnames: {0: bent, 3: cut}\n",
        "path: X:/data/of/another/machine\ntrain: images\\train\nval: images/val\nnames: {0: bent, 3: cut}\n",
        "train: ../images/train\nval: ../images/val\nnames: {0: bent, 3: cut}\n",
        "train: train.txt\nval: val.txt\nnames: {0: bent, 3: cut}\n",
    ],
)
def test_entries_as_exporters_write_them(tmp_path: Path, config: str) -> None:
    root = tmp_path / "SET"
    save(root / "images" / "train" / "b.jpg")
    save(root / "images" / "val" / "a.png")
    save_text(root / "labels" / "val" / "a.txt", QUARTER.replace("0", "3", 1))
    save_text(root / "train.txt", "./images/train/b.jpg\n")
    save_text(root / "val.txt", "images/val/a.png\n\n")
    save_text(root / "data.yaml", config)
    samples = read_yolo(root)
    assert [(sample.split, sample.types) for sample in samples] == [("train", ()), ("test", ("cut",))]


def test_the_products_folder_below_images(tmp_path: Path) -> None:
    save_text(tmp_path / "my.yml", "val: images\nnames: [bent]\n")
    for product in ("nut", "gear"):
        save(tmp_path / "images" / product / "1.png")
        save_text(tmp_path / "labels" / product / "1.txt", QUARTER)
    assert [sample.product for sample in read_yolo(tmp_path)] == ["gear", "nut"]
    assert [sample.product for sample in read_yolo(tmp_path, products=["nut"])] == ["nut"]


@pytest.mark.parametrize(
    ("label", "kind", "words"),
    [
        ("2 0 0 1 0 1 1", "unknown_type", r"class of 0 to 1 in line 1 .*got 2"),
        (f"{QUARTER}\n0 1 2 3", "layout", "line 2"),
        ("0 10 20 30 20 30 40", "layout", "shares of 0 to 1"),
        ("0 0 0 1 0 1 1 0.98", "layout", "without confidences"),
        ("bent 0 0 1 0 1 1", "layout", "CLASS"),
        ("-1 0 0 1 0 1 1", "layout", "CLASS"),
        ("0 nan 0 1 0 1 1", "layout", "shares"),
        ("0", "layout", "at least three points"),
    ],
)
def test_lines_that_cannot_be_used(tmp_path: Path, label: str, kind: str, words: str) -> None:
    root = one(tmp_path, label)
    with pytest.raises(DataError, match=words) as caught:
        read_yolo(root)
    assert caught.value.kind == kind
    told: list[DataError] = []
    samples = read_yolo(root, report=told.append)
    assert [sample.image.name for sample in samples] == ["good.png"], "it is not a good part"
    assert [Path(error.path or "").name for error in told] == ["a.txt"]


def test_a_label_without_image_is_named(tmp_path: Path) -> None:
    root = one(tmp_path, QUARTER)
    save_text(root / "labels" / "val" / "classes.txt", "bent\n")
    assert len(read_yolo(root)) == 2
    save_text(root / "labels" / "val" / "lost.txt", QUARTER)
    with pytest.raises(DataError, match=r"image for the label file .*lost\.txt") as caught:
        read_yolo(root)
    assert caught.value.kind == "orphan_mask"


def test_a_listed_image_that_is_missing_is_named(tmp_path: Path) -> None:
    root = one(tmp_path, QUARTER, "val: val.txt\nnames: [bent]\n")
    save_text(root / "val.txt", "images/val/a.png\nimages/val/lost.png\n")
    with pytest.raises(DataError, match=r"lost\.png that .*val\.txt lists"):
        read_yolo(root)


def test_a_wrong_path_does_not_make_all_parts_good(tmp_path: Path) -> None:
    save_text(tmp_path / "data.yaml", "val: pictures\nnames: [bent]\n")
    save(tmp_path / "pictures" / "a.png")
    save_text(tmp_path / "labels" / "a.txt", QUARTER)
    assert len(read_yolo(tmp_path)) == 1, "without a folder images the labels lie beside them"
    save(tmp_path / "images" / "a.png")
    save_text(tmp_path / "data.yaml", "val: images\nnames: [bent]\n")
    assert read_yolo(tmp_path)[0].types == ("bent",)
    (tmp_path / "labels").rename(tmp_path / "label")
    with pytest.raises(DataError, match="nothing tells a good part from a defective one"):
        read_yolo(tmp_path)


def test_an_image_in_train_and_val_is_told(tmp_path: Path) -> None:
    root = one(tmp_path, QUARTER, "train: images/val\nval: images/val\ntest: images/val\nnames: [bent]\n")
    told: list[DataError] = []
    read_yolo(root, report=told.append)
    assert {error.kind for error in told} == {"twice"}
    assert any("train and test" in str(error) for error in told)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ("names: [", "expected YAML"),
        ("train: a", "no .yaml file in it has names"),
        ("names: 3\nval: images", "names to be a list"),
        ("names: {a: b}\nval: images", "names to be a list"),
        ("names: []\nval: images", "names to be a list"),
        ("names: [bent]\nval: nowhere", "for val in .*nowhere is neither"),
        ("names: [bent]", "found none"),
    ],
)
def test_configurations_that_cannot_be_used(tmp_path: Path, config: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_yolo(one(tmp_path, QUARTER, config))


def test_no_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        read_yolo(tmp_path / "nothing")
    with pytest.raises(DataError, match="it holds nothing at all"):
        read_yolo(tmp_path)
