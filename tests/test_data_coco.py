"""COCO annotations: polygons and both run lengths, wherever they are found; and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import layouts
import numpy as np
import pytest
from PIL import Image

from dapo.data import open_dataset, types_of
from dapo.data.coco import read_coco
from dapo.errors import DataError
from dapo.masks import Mask, decode_compressed_rle, encode_rle, fill_ring, trace_outlines

SIZE = (20, 30)  # height, width
SQUARE = [2, 3, 8, 3, 8, 7, 2, 7]  # x 2 to 8, y 3 to 7


def save(path: Path, size: tuple[int, int] = SIZE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size[::-1], (90, 90, 90)).save(path)
    return path


def table(*images: str, **extra: Any) -> dict[str, Any]:
    """Images with ids from 1 and one category, bent = 7."""
    rows = [
        {"id": number, "file_name": name, "height": SIZE[0], "width": SIZE[1]}
        for number, name in enumerate(images, start=1)
    ]
    return {"images": rows, "annotations": [], "categories": [{"id": 7, "name": "bent"}], **extra}


def mark(segmentation: Any, image: int = 1, category: int = 7, **extra: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": image, "category_id": category, "segmentation": segmentation, **extra}


def save_table(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def one(root: Path, *annotations: dict[str, Any]) -> Any:
    """The sample of a set with one image and these annotations."""
    save(root / "images" / "a.png")
    save_table(root / "annotations" / "test.json", table("a.png", annotations=list(annotations)))
    (sample,) = read_coco(root)
    return sample


def square() -> Mask:
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[3:7, 2:8] = True
    return mask


def compressed(mask: Mask) -> str:
    """COCO's string of a mask, written from its description, number by number."""
    counts, text = encode_rle(mask)["counts"], ""
    for place, count in enumerate(counts):
        number, more = count - counts[place - 2] if place > 2 else count, True
        while more:
            group, number = number & 31, number >> 5
            more = number != (-1 if group & 16 else 0)
            text += chr(48 + group + 32 * more)
    return text


# The layout


def test_the_written_set_is_read_back(tmp_path: Path) -> None:
    written = layouts.write("coco", tmp_path)
    samples = {sample.image: sample for sample in open_dataset("coco", tmp_path)}
    assert len(samples) == len(written.pictures)
    for picture in written.pictures:
        sample = samples[picture.image]
        assert (sample.product, sample.split, sample.types) == (picture.product, picture.split, picture.types)
        masks = sample.load_masks(*layouts.SIZE)
        assert masks is not None
        assert masks.keys() == picture.masks.keys()
        assert all((masks[kind] == mask).all() for kind, mask in picture.masks.items())


def test_order_products_and_splits(tmp_path: Path) -> None:
    layouts.write("coco", tmp_path)
    samples = read_coco(tmp_path)
    assert [sample.product for sample in samples] == sorted(sample.product for sample in samples)
    assert {sample.product for sample in read_coco(tmp_path, products=["nut"])} == {"nut"}
    assert {sample.split for sample in read_coco(tmp_path, splits=("train",))} == {"train"}
    with pytest.raises(DataError, match=r"gear, nut.*got cog"):
        read_coco(tmp_path, products=["cog"])


def test_splits_with_the_annotations_beside_the_images(tmp_path: Path) -> None:
    for split in ("train", "valid", "test"):
        save(tmp_path / split / f"{split}.jpg")
        save_table(tmp_path / split / "_annotations.coco.json", table(f"{split}.jpg"))
    samples = read_coco(tmp_path)
    assert {sample.image.stem: sample.split for sample in samples} == {
        "train": "train",
        "valid": "test",
        "test": "test",
    }
    assert {sample.product for sample in samples} == {tmp_path.name}


def test_folders_named_after_the_files_split(tmp_path: Path) -> None:
    save(tmp_path / "train2017" / "a.png")
    save(tmp_path / "images" / "val2017" / "a.png")
    for name in ("instances_train2017", "instances_val2017"):
        save_table(tmp_path / "annotations" / f"{name}.json", table("a.png"))
    found = {sample.split: sample.image.parent.name for sample in read_coco(tmp_path)}
    assert found == {"train": "train2017", "test": "val2017"}


def test_one_file_at_the_top_is_all_test(tmp_path: Path) -> None:
    save(tmp_path / "images" / "nut" / "a.png")
    save(tmp_path / "images" / "b.png")
    save_table(tmp_path / "export.json", table("nut/a.png", "images\\b.png"))
    samples = read_coco(tmp_path)
    assert {sample.split for sample in samples} == {"test"}
    assert {sample.product for sample in samples} == {tmp_path.name}, "one image has no folder of a product"


def test_numbers_in_names_sort_as_numbers(tmp_path: Path) -> None:
    names = [f"{number}.png" for number in (10, 9, 100)]
    for name in names:
        save(tmp_path / name)
    save_table(tmp_path / "a.json", table(*names))
    assert [sample.image.name for sample in read_coco(tmp_path)] == ["9.png", "10.png", "100.png"]


# Masks


@pytest.mark.parametrize("form", ["polygon", "numbers", "string", "crowd"])
def test_each_form_gives_the_same_mask(tmp_path: Path, form: str) -> None:
    numbers = dict(encode_rle(square()))
    string = {"size": list(SIZE), "counts": compressed(square())}
    segmentation = {"polygon": [SQUARE], "numbers": numbers, "string": string, "crowd": numbers}[form]
    sample = one(tmp_path, mark(segmentation, iscrowd=int(form == "crowd")))
    assert sample.types == ("bent",)
    assert (sample.load_masks(*SIZE)["bent"] == square()).all()


def test_parts_of_one_type_are_joined(tmp_path: Path) -> None:
    other = [12, 0, 14, 0, 14, 20, 12, 20]
    sample = one(tmp_path, mark([SQUARE, other]), mark(dict(encode_rle(square()[::-1].copy()))))
    mask = sample.load_masks(*SIZE)["bent"]
    assert (mask[:, 12:14]).all()
    assert (mask == (square() | square()[::-1] | (np.arange(30) // 2 == 6))).all()


def test_our_own_run_lengths_at_the_original_size_come_back(tmp_path: Path) -> None:
    mask = np.zeros(SIZE, dtype=np.bool_)
    mask[-1, -1] = mask[0, :5] = mask[4:9, 10] = True
    sample = one(tmp_path, mark(dict(encode_rle(mask)), score=0.93, bbox=[0, 0, 30, 20]))
    assert (sample.load_mask(*SIZE) == mask).all()


def test_a_box_is_a_type_and_not_a_mask(tmp_path: Path) -> None:
    boxed = one(tmp_path, mark([], bbox=[2, 3, 6, 4]), mark([SQUARE]))
    assert boxed.types == ("bent",)
    assert boxed.masks is None
    missing = {key: value for key, value in mark(None).items() if key != "segmentation"}
    assert one(tmp_path, missing).masks is None


def test_no_annotation_is_a_good_part(tmp_path: Path) -> None:
    sample = one(tmp_path)
    assert not sample.defective
    assert sample.masks == {}


def test_another_size_than_the_image_is_named(tmp_path: Path) -> None:
    polygon = one(tmp_path, mark([SQUARE])).masks["bent"]
    with pytest.raises(DataError, match=r"15 x 10 px.*they are on 30 x 20") as caught:
        polygon.read(10, 15)
    assert caught.value.kind == "mask_size"
    run = one(tmp_path, mark({"size": [5, 4], "counts": [3, 17]})).masks["bent"]
    with pytest.raises(DataError, match="they are on 4 x 5"):
        run.read(*SIZE)


@pytest.mark.parametrize("counts", [[3, 17], [-1, 601], [0.5, 599.5], "07a", "å", "5", "PPPPPPPPPPPPPP"])
def test_run_lengths_that_do_not_fill_the_picture(tmp_path: Path, counts: object) -> None:
    source = one(tmp_path, mark({"size": list(SIZE), "counts": counts})).masks["bent"]
    with pytest.raises(DataError, match=r"image 1: .*run length.*Export the annotations again"):
        source.read(*SIZE)


# Run lengths and rings


def test_a_string_decoded_by_hand() -> None:
    # 2, 3, 40 = 8 + 1 x 32 in two groups (8 + more, 1), 15 as the difference 12 to 3
    assert encode_rle(decode_compressed_rle("23X1<", 10, 6))["counts"] == [2, 3, 40, 15]
    # 5, 9, 1, 1 as the difference -8 to 9: 24 in five bits, of which the highest is the sign
    assert encode_rle(decode_compressed_rle(b"591H", 4, 4))["counts"] == [5, 9, 1, 1]


@pytest.mark.parametrize("seed", range(20))
def test_strings_of_any_mask_come_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random(rng.integers(1, 90, 2)) > rng.random()
    assert (decode_compressed_rle(compressed(mask), *mask.shape) == mask).all()


def test_strings_of_the_coco_api_come_back() -> None:
    coco = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(0).random((70, 33)) > 0.7
    string = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert (decode_compressed_rle(string, 70, 33) == mask).all()
    assert string.decode() == compressed(mask)


def test_a_ring_marks_the_pixels_whose_middle_it_holds() -> None:
    triangle = np.array([[0, 0], [4, 0], [0, 4]], dtype=float)
    assert fill_ring(triangle, 4, 5).astype(int).tolist() == [
        [1, 1, 1, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
    bow_tie = np.array([[0, 0], [6, 6], [6, 0], [0, 6]], dtype=float)
    assert not fill_ring(bow_tie, 6, 6)[0:2, 2:4].any(), "even-odd"
    assert fill_ring(triangle - 100, 4, 5).sum() == 0
    assert fill_ring(triangle * 100, 4, 5).all()


def test_a_thin_ring_is_not_lost() -> None:
    line = np.array([[1, 2.6], [7, 2.6], [7, 2.8], [1, 2.8]])
    mask = fill_ring(line, 5, 9)
    assert mask[2, 1:7].all()
    assert not mask[[0, 1, 3, 4]].any()
    assert fill_ring(np.array([[3.2, 1.2]] * 3), 5, 9).sum() == 1


def test_traced_outlines_fill_to_the_same_mask() -> None:
    mask = np.zeros((40, 50), dtype=np.bool_)
    mask[5:9, 7] = mask[20:30, 10:40] = mask[25:39, 30:34] = True
    filled = np.any([fill_ring(ring, 40, 50) for ring in trace_outlines(mask)], axis=0)
    assert (filled != mask).mean() < 0.002  # smoothed corners


# What is wrong with them


@pytest.mark.parametrize(
    ("content", "kind", "words"),
    [
        ({"images": []}, "layout", "lists images, annotations, categories"),
        ([1, 2], "layout", "got a list"),
        (table("a.png", categories=[{"id": 7}]), "layout", "name for each of the categories"),
        (table("a.png", annotations=[mark([SQUARE], category=8)]), "unknown_type", r"one of \[7\].*got 8"),
        (table("a.png", annotations=[mark([SQUARE], image=5)]), "orphan_mask", "image_id 5"),
        (table("a.png", annotations=[mark([[1, 2, 3, 4]])]), "layout", "segmentation of polygons"),
        (table("a.png", annotations=[mark([[1, 2, 3, 4, 5, None]])]), "layout", "segmentation of polygons"),
        (table("a.png", annotations=[mark({"counts": [600]})]), "layout", "segmentation of polygons"),
        (table("b.png"), "orphan_mask", r"b\.png.*Restore it"),
        (table(""), "layout", "a file_name"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: object, kind: str, words: str) -> None:
    save(tmp_path / "images" / "a.png")
    save_table(tmp_path / "annotations" / "test.json", content)
    with pytest.raises(DataError, match=words) as caught:
        read_coco(tmp_path)
    assert caught.value.kind == kind


def test_what_is_wrong_with_one_image_leaves_out_that_image(tmp_path: Path) -> None:
    for name in "abc":
        save(tmp_path / "images" / f"{name}.png")
    marks = [mark([SQUARE], image=1), mark([SQUARE], image=2, category=99)]
    rows = table("a.png", "b.png", "lost.png", annotations=marks)
    save_table(tmp_path / "annotations" / "test.json", rows)
    told: list[DataError] = []
    samples = read_coco(tmp_path, report=told.append)
    assert [sample.image.name for sample in samples] == ["a.png"], "b is not a good part"
    kinds = {(error.kind, Path(error.path or "").name) for error in told}
    assert ("unknown_type", "b.png") in kinds
    assert ("orphan_mask", "lost.png") in kinds
    assert ("orphan_image", "c.png") in kinds


def test_an_image_listed_in_train_and_test_is_told(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a.png")
    for name in ("train", "test"):
        save_table(tmp_path / "annotations" / f"{name}.json", table("a.png"))
    told: list[DataError] = []
    read_coco(tmp_path, report=told.append)
    assert [error.kind for error in told] == ["twice"]
    assert "train and test" in str(told[0])


def test_an_id_that_stands_twice_is_told(tmp_path: Path) -> None:
    for name in "ab":
        save(tmp_path / "images" / f"{name}.png")
    rows = table("a.png", "b.png", annotations=[mark([SQUARE])])
    rows["images"][1]["id"] = 1
    save_table(tmp_path / "annotations" / "test.json", rows)
    with pytest.raises(DataError, match="stands twice"):
        read_coco(tmp_path)


def test_no_annotations_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        read_coco(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"no JSON file \(it holds nothing at all\)"):
        read_coco(tmp_path)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "test.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="expected JSON in") as caught:
        read_coco(tmp_path)
    assert caught.value.kind == "unreadable"


def test_types_come_from_the_categories(tmp_path: Path) -> None:
    layouts.write("coco", tmp_path)
    assert types_of(read_coco(tmp_path)) == ("bent", "chipped tooth", "color stain")
