"""The check of a data set: each fault is found, named and of its kind; a clean set is clean."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import layouts
import numpy as np
import pytest
from PIL import Image

from dapo.data.check import Count, Report, check_dataset
from dapo.data.recognise import recognise
from dapo.errors import DATA_KINDS, ConfigError, DataError

GROUND_TRUTH = "nut/ground_truth/bent/000_mask.png"
IMAGE = "nut/test/bent/000.png"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A clean folder set: nut with good, bent, color stain; gear with good, chipped tooth."""
    layouts.write("folder", tmp_path / "set")
    return tmp_path / "set"


def found(report: Report) -> list[tuple[str, str]]:
    return [(problem.kind, problem.path.name) for problem in report.problems]


def save(path: Path, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.uint8)).save(path)


# Clean sets


@pytest.mark.parametrize("name", layouts.NAMES)
def test_every_layout_as_published_is_clean(tmp_path: Path, name: str) -> None:
    written = layouts.write(name, tmp_path)
    report = check_dataset(name, tmp_path, depth="images")
    assert report.clean, report.problems
    assert report.images == len(written.pictures)
    assert report.defective == sum(bool(picture.types) for picture in written.pictures)


def test_counts_of_product_split_and_type(tree: Path) -> None:
    assert check_dataset("folder", tree).counts == (
        Count("gear", "train", "good", 2, 0),
        Count("gear", "test", "good", 1, 0),
        Count("gear", "test", "chipped tooth", 2, 2),
        Count("nut", "train", "good", 2, 0),
        Count("nut", "test", "good", 2, 0),
        Count("nut", "test", "bent", 2, 2),
        Count("nut", "test", "color stain", 1, 1),
    )


def test_an_image_of_several_types_counts_for_each(tmp_path: Path) -> None:
    layouts.write("coco", tmp_path)
    counts = {(count.product, count.type): count.images for count in check_dataset("coco", tmp_path).counts}
    assert counts["nut", "bent"] == 3
    assert counts["nut", "color stain"] == 1


def test_types_without_masks_are_counted_and_no_fault(tree: Path) -> None:
    for path in (tree / "nut/ground_truth/bent").iterdir():
        path.unlink()
    (tree / "nut/ground_truth/bent").rmdir()
    report = check_dataset("folder", tree)
    assert report.clean
    assert Count("nut", "test", "bent", 2, 0) in report.counts


def test_products_can_be_chosen(tree: Path) -> None:
    (tree / "gear/test/good/000.png").write_bytes(b"")
    report = check_dataset("folder", tree, products=["nut"])
    assert report.clean
    assert {count.product for count in report.counts} == {"nut"}
    with pytest.raises(DataError, match=r"gear, nut.*got cog"):
        check_dataset("folder", tree, products=["cog"])


# Faults


def drop_mask(tree: Path) -> None:
    (tree / GROUND_TRUTH).unlink()


def drop_image(tree: Path) -> None:
    (tree / IMAGE).unlink()


def smaller_mask(tree: Path) -> None:
    save(tree / GROUND_TRUTH, np.full((5, 7), 255))


def grey_mask(tree: Path) -> None:
    values = np.zeros(layouts.SIZE)
    values[2:9, 3:8] = [250, 3, 255, 128, 90]
    save(tree / GROUND_TRUTH, values)


def dim_mask(tree: Path) -> None:
    values = np.zeros(layouts.SIZE)
    values[2:9] = 1
    save(tree / GROUND_TRUTH, values)


def empty_mask(tree: Path) -> None:
    save(tree / GROUND_TRUTH, np.zeros(layouts.SIZE))


def text_mask(tree: Path) -> None:
    (tree / GROUND_TRUTH).write_bytes(b"no image")


def truncated_mask(tree: Path) -> None:
    content = (tree / GROUND_TRUTH).read_bytes()
    (tree / GROUND_TRUTH).write_bytes(content[: len(content) // 2])


def empty_image(tree: Path) -> None:
    (tree / IMAGE).write_bytes(b"")


def empty_type(tree: Path) -> None:
    (tree / "nut/test/dent").mkdir()


@pytest.mark.parametrize(
    ("spoil", "kind", "name", "words"),
    [
        (drop_mask, "orphan_image", "000.png", "there is none"),
        (drop_image, "orphan_mask", "000_mask.png", "expected an image for each mask"),
        (smaller_mask, "mask_size", "000_mask.png", "32 x 24 px like its image; it is 7 x 5"),
        (grey_mask, "mask_values", "000_mask.png", "it holds 6 values (0, 3, 90, 128, 250, 255)"),
        (dim_mask, "mask_values", "000_mask.png", "it holds 2 values (0, 1)"),
        (empty_mask, "mask_empty", "000_mask.png", "marks something"),
        (text_mask, "unreadable", "000_mask.png", "cannot be read"),
        (truncated_mask, "unreadable", "000_mask.png", "cannot be read"),
        (empty_image, "unreadable", "000.png", "0 bytes"),
        (empty_type, "empty", "dent", "found none"),
    ],
)
def test_each_fault_is_named(
    tree: Path, spoil: Callable[[Path], None], kind: str, name: str, words: str
) -> None:
    spoil(tree)
    report = check_dataset("folder", tree)
    assert found(report) == [(kind, name)]
    assert words in report.problems[0].message


def test_images_beside_the_type_folders_are_named(tree: Path) -> None:
    (tree / GROUND_TRUTH).parents[2].joinpath("test/loose.png").write_bytes((tree / IMAGE).read_bytes())
    report = check_dataset("folder", tree)
    assert found(report) == [("layout", "loose.png")]
    assert "is not read" in report.problems[0].message


def test_jpeg_noise_is_no_mask(tree: Path) -> None:
    values = np.zeros(layouts.SIZE)
    values[5:15, 5:17] = 255
    save((tree / GROUND_TRUTH).with_suffix(".jpg"), values)
    (tree / GROUND_TRUTH).unlink()
    (problem,) = check_dataset("folder", tree).problems
    assert problem.kind == "mask_values"
    assert "..." in problem.message
    assert "as PNG" in problem.message


def test_a_truncated_image_is_found_by_decoding_it(tree: Path) -> None:
    content = (tree / IMAGE).read_bytes()
    (tree / IMAGE).write_bytes(content[: len(content) // 2])
    assert check_dataset("folder", tree).clean, "its header is whole"
    assert found(check_dataset("folder", tree, depth="images")) == [("unreadable", "000.png")]


def test_the_structure_alone_opens_no_file(tree: Path) -> None:
    for spoil in (grey_mask, empty_image):
        spoil(tree)
    assert check_dataset("folder", tree, depth="structure").clean


def test_all_faults_are_found_in_one_go(tree: Path) -> None:
    for number, spoil in enumerate((drop_mask, empty_type)):
        spoil(tree)
        assert len(check_dataset("folder", tree).problems) == number + 1
    save(tree / "nut/ground_truth/bent/001_mask.png", np.zeros(layouts.SIZE))
    report = check_dataset("folder", tree)
    assert {kind for kind, _ in found(report)} == {"orphan_image", "empty", "mask_empty"}
    assert report.images == 11, "the others are there"


def test_faults_of_annotations_come_with_their_kind(tmp_path: Path) -> None:
    layouts.write("coco", tmp_path)
    path = tmp_path / "annotations/test.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["images"][-1]["width"] += 1
    for row in content["annotations"]:
        if row["image_id"] == content["images"][-2]["id"]:
            row["segmentation"] = [[200, 200, 210, 200, 210, 210]]
    path.write_text(json.dumps(content), encoding="utf-8")
    assert sorted(kind for kind, _ in found(check_dataset("coco", tmp_path))) == ["mask_empty", "mask_size"]


def test_unknown_type_folders_of_a_published_set(tmp_path: Path) -> None:
    layouts.write("mvtec", tmp_path)
    (tmp_path / "bottle/test/contamination").rename(tmp_path / "bottle/test/contaminatoin")
    report = check_dataset("mvtec", tmp_path)
    assert ("unknown_type", "contaminatoin") in found(report)


def test_a_lying_camera_is_no_fault(tree: Path) -> None:
    picture = Image.new("RGB", layouts.SIZE, (9, 9, 9))  # width and height exchanged
    exif = Image.Exif()
    exif[0x0112] = 6
    (tree / IMAGE).unlink()
    picture.save((tree / IMAGE).with_suffix(".jpg"), exif=exif)
    assert check_dataset("folder", tree).clean


# Notes and options


def test_counts_that_differ_from_the_published_are_notes(tmp_path: Path) -> None:
    layouts.write("mvtec", tmp_path)
    report = check_dataset("mvtec", tmp_path)
    assert report.clean
    assert "bottle: train 2 (published 209), test 5 (published 83), " in report.notes[0]
    assert "broken 2 (published 42)" in report.notes[0]
    assert "not here: " in report.notes[-1]
    assert "leather" in report.notes[-1]
    assert "leather" not in " ".join(check_dataset("mvtec", tmp_path, products=["bottle"]).notes)
    assert check_dataset("folder", tmp_path).notes == ()


def test_progress_counts_to_the_end(tree: Path) -> None:
    seen: list[tuple[int, int]] = []
    check_dataset("folder", tree, progress=lambda done, total: seen.append((done, total)), workers=3)
    assert seen == [(number, 12) for number in range(1, 13)]


def test_the_report_as_json(tree: Path) -> None:
    empty_mask(tree)
    record = json.loads(json.dumps(check_dataset("folder", tree).to_dict()))
    assert record.keys() == {
        "schema", "dataset", "root", "clean", "images", "defective", "counts", "problems", "notes",
    }  # fmt: skip
    assert record["schema"] == 1
    assert record["counts"][0] == {
        "product": "gear", "split": "train", "type": "good", "images": 2, "masks": 0,
    }  # fmt: skip
    assert record["problems"][0].keys() == {"path", "kind", "message"}
    assert record["problems"][0]["kind"] in DATA_KINDS


# What is no such data set


def test_a_folder_that_is_not_there_or_empty(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        check_dataset("visa", tmp_path / "nothing")
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="is a file"):
        check_dataset("visa", tmp_path / "file")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"is empty. Unpack .*dapo data add ARCHIVE --dataset visa"):
        check_dataset("visa", tmp_path / "empty")


def test_a_wrong_name_lists_the_right_ones(tree: Path) -> None:
    with pytest.raises(ConfigError, match=r"mvtec.*yolo.*got 'mvtek'"):
        check_dataset("mvtek", tree)


@pytest.mark.parametrize(
    ("here", "asked"),
    [("visa", "mvtec"), ("coco", "folder"), ("yolo", "visa"), ("real_iad", "coco"), ("mad_sim", "yolo")],
)
def test_another_layout_is_recognised(tmp_path: Path, here: str, asked: str) -> None:
    layouts.write(here, tmp_path)
    with pytest.raises(DataError, match=rf"looks like the {here}\b.* pass --dataset {here}"):
        check_dataset(asked, tmp_path)


def test_a_folder_too_far_up_is_recognised(tmp_path: Path) -> None:
    layouts.write("folder", tmp_path / "inner" / "set")
    with pytest.raises(DataError, match=r"inner.set looks like it: pass that folder"):
        check_dataset("folder", tmp_path)
    with pytest.raises(DataError, match=r"inner.set looks like the folder layout: .*and that folder"):
        check_dataset("coco", tmp_path)


@pytest.mark.parametrize("name", layouts.NAMES)
def test_every_layout_is_recognised(tmp_path: Path, name: str) -> None:
    layouts.write(name, tmp_path)
    seen = recognise(tmp_path)
    assert seen is not None
    assert name in seen.names
    (tmp_path / "nothing").mkdir()
    assert recognise(tmp_path / "nothing") is None
