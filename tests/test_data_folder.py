"""The reader of the MVTec-AD tree, on trees a generator writes; and masks as they come."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dapo.data import Sample, read_folder, types_of
from dapo.errors import DataError

SIZE = (12, 16)  # height, width


def write_tree(
    root: Path,
    products: Mapping[str, Mapping[str, int]],
    *,
    train: int = 2,
    masked: Sequence[str] | None = None,
    suffix: str = ".png",
    mask_name: str = "{stem}_mask.png",
) -> Path:
    """The layout as its owner publishes it: {product: {type or good: images in test}}. masked: types with
    masks (all).
    """
    for product, kinds in products.items():
        folder = root / product
        for number in range(train):
            save(folder / "train" / "good" / f"{number:03}{suffix}")
        for kind, count in kinds.items():
            for number in range(count):
                save(folder / "test" / kind / f"{number:03}{suffix}")
                if kind != "good" and (masked is None or kind in masked):
                    save_mask(folder / "ground_truth" / kind / mask_name.format(stem=f"{number:03}"))
    return root


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*SIZE, 3), 128, dtype=np.uint8)).save(path)


def save_mask(path: Path, value: int = 255, size: tuple[int, int] = SIZE) -> None:
    """A mask whose upper half is `value`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mask = np.zeros(size, dtype=np.uint8)
    mask[: size[0] // 2] = value
    Image.fromarray(mask).save(path)


def test_a_tree_is_read_as_published(tmp_path: Path) -> None:
    root = write_tree(
        tmp_path, {"bottle": {"good": 3, "contamination": 2}, "metal nut": {"bent": 1, "color stain": 12}}
    )
    samples = read_folder(root)
    assert len(samples) == 2 + 3 + 2 + 2 + 1 + 12
    assert {sample.product for sample in samples} == {"bottle", "metal nut"}
    assert types_of(samples) == ("bent", "color stain", "contamination")
    first = samples[0]
    assert first == Sample(root / "bottle/train/good/000.png", "bottle", (), {}, "train")
    assert not first.defective
    stain = [sample for sample in samples if sample.types == ("color stain",)]
    assert [sample.image.stem for sample in stain] == [f"{number:03}" for number in range(12)]
    assert stain[3].masks == {"color stain": root / "metal nut/ground_truth/color stain/003_mask.png"}
    assert all(sample.image.is_file() for sample in samples)


def test_numbers_in_names_sort_as_numbers(tmp_path: Path) -> None:
    for number in (10, 9, 100):
        save(tmp_path / f"part{number}" / "test" / "good" / f"{number}.png")
        save(tmp_path / f"part{number}" / "test" / "good" / "2.png")
    names = [(sample.product, sample.image.stem) for sample in read_folder(tmp_path)]
    assert names == [
        ("part9", "2"),
        ("part9", "9"),
        ("part10", "2"),
        ("part10", "10"),
        ("part100", "2"),
        ("part100", "100"),
    ]


@pytest.mark.parametrize("mask_name", ["{stem}_mask.png", "{stem}.png", "{stem}_mask.bmp"])
@pytest.mark.parametrize("suffix", [".jpg", ".PNG", ".tiff"])
def test_other_suffixes_and_mask_names(tmp_path: Path, suffix: str, mask_name: str) -> None:
    samples = read_folder(
        write_tree(tmp_path, {"nut": {"bent": 2}}, suffix=suffix, mask_name=mask_name), splits=("test",)
    )
    assert [sample.masks is not None and sample.masks["bent"].is_file() for sample in samples] == [True, True]


def test_one_product_folder_is_a_dataset(tmp_path: Path) -> None:
    write_tree(tmp_path, {"nut": {"good": 1}})
    assert {sample.product for sample in read_folder(tmp_path / "nut")} == {"nut"}


def test_missing_masks_are_unknown_not_empty(tmp_path: Path) -> None:
    samples = read_folder(
        write_tree(tmp_path, {"nut": {"good": 1, "bent": 1, "cut": 1}}, train=0, masked=["bent"])
    )
    by_type = {sample.types: sample for sample in samples}
    assert by_type[("cut",)].masks is None
    assert by_type[("cut",)].load_mask(*SIZE) is None
    assert by_type[()].masks == {}
    good = by_type[()].load_mask(*SIZE)
    assert good is not None
    assert good.shape == SIZE
    assert not good.any()
    bent = by_type[("bent",)].load_mask(*SIZE)
    assert bent is not None
    assert bent.mean() == 0.5


def test_several_types_in_one_image_join(tmp_path: Path) -> None:
    save_mask(tmp_path / "a.png")
    whole = np.zeros(SIZE, dtype=np.uint8)
    whole[:, :4] = 255
    Image.fromarray(whole).save(tmp_path / "b.png")
    masks = {"bent": tmp_path / "a.png", "cut": tmp_path / "b.png"}
    sample = Sample(tmp_path / "x.png", "nut", ("bent", "cut"), masks, "test")
    loaded = sample.load_masks(*SIZE)
    joined = sample.load_mask(*SIZE)
    assert loaded is not None
    assert joined is not None
    assert (joined == (loaded["bent"] | loaded["cut"])).all()
    assert joined.sum() > max(loaded["bent"].sum(), loaded["cut"].sum())


def test_products_and_splits_can_be_chosen(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"a": {"good": 1}, "b": {"good": 1}, "c": {"good": 1}})
    chosen = read_folder(root, products=["c", "a"], splits=("train",))
    assert [sample.product for sample in chosen] == ["c", "c", "a", "a"]
    assert {sample.split for sample in chosen} == {"train"}
    with pytest.raises(DataError, match=r"a, b, c.*got d"):
        read_folder(root, products=["a", "d"])


def test_groups_come_from_the_manifest(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"a": {"good": 2}, "b": {"good": 1}}, train=0)
    for product, rows in {"a": [("000", 7), ("001", 7)], "b": [("000", 7)]}.items():
        lines = [json.dumps({"image": f"test/good/{stem}.png", "tile": tile}) for stem, tile in rows]
        (root / product / "manifest.jsonl").write_text("\n".join(lines) + "\n\n")
    assert [sample.group for sample in read_folder(root, group_key="tile")] == ["a/7", "a/7", "b/7"]
    assert {sample.group for sample in read_folder(root)} == {None}


def test_a_manifest_that_does_not_tell_is_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"a": {"good": 2}}, train=0)
    with pytest.raises(DataError, match=r"manifest\.jsonl to tell 'tile'"):
        read_folder(root, group_key="tile")
    manifest = root / "a" / "manifest.jsonl"
    manifest.write_text('{"image": "test/good/000.png", "tile": 1}\n')
    with pytest.raises(DataError, match=r"a line for test/good/001\.png"):
        read_folder(root, group_key="tile")
    manifest.write_text('{"image": "test/good/000.png", "tile": 1}\n{"image": "test/good/001.png"}\n')
    with pytest.raises(DataError, match="line 2"):
        read_folder(root, group_key="tile")
    manifest.write_text("no json\n")
    with pytest.raises(DataError, match="line 1"):
        read_folder(root, group_key="tile")


def test_files_beside_the_images_are_ignored(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"a": {"good": 1}}, train=0)
    (root / "license.txt").write_text("free")
    (root / "docs").mkdir()
    (root / "a" / "test" / "readme.md").write_text("notes")
    (root / "a" / "test" / "good" / "Thumbs.db").write_bytes(b"0")
    (root / "a" / "test" / "good" / "._000.png").write_bytes(b"0")
    assert len(read_folder(root)) == 1


def test_no_dataset_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        read_folder(tmp_path / "nothing")
    with pytest.raises(DataError, match="no folder at all"):
        read_folder(tmp_path)
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match="it holds images"):
        read_folder(tmp_path)
    (tmp_path / "images" / "test").mkdir()
    with pytest.raises(DataError, match="named good or after a defect type"):
        read_folder(tmp_path)
    (tmp_path / "images" / "test" / "bent").mkdir()
    with pytest.raises(DataError, match=r"images .* in .*bent; found none"):
        read_folder(tmp_path)


def test_good_in_capitals_is_good(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"a": {"good": 2, "bent": 1}}, train=0)
    (root / "a/test/good").rename(root / "a/test/Good")
    assert sorted(sample.types for sample in read_folder(root)) == [(), (), ("bent",)]


@pytest.mark.parametrize("name", ["OK", "normal", "Gut"])
def test_another_word_for_good_is_no_defect_type(tmp_path: Path, name: str) -> None:
    root = write_tree(tmp_path, {"a": {"good": 2, "bent": 1}}, train=0)
    (root / "a/test/good").rename(root / "a/test" / name)
    with pytest.raises(DataError, match=rf"Rename .*{name} to good") as hit:
        read_folder(root)
    assert (hit.value.kind, hit.value.path) == ("unknown_type", root / "a/test" / name)


@pytest.mark.parametrize("inside", ["", "a"])
def test_types_straight_in_the_product_are_told_where_to_go(tmp_path: Path, inside: str) -> None:
    for kind in ("good", "stain"):
        (tmp_path / inside / kind).mkdir(parents=True)
    with pytest.raises(DataError, match=rf"Put them into .*{inside}.?test: .*good"):
        read_folder(tmp_path)


def test_an_absent_split_is_named(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"a": {"good": 1}}, train=0)
    with pytest.raises(DataError, match="splits train; found none"):
        read_folder(root, splits=("train",))


def test_half_a_pair_is_an_error(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"a": {"bent": 2}})
    mask = root / "a/ground_truth/bent/001_mask.png"
    mask.rename(mask.with_name("777_mask.png"))
    with pytest.raises(DataError, match=r"001_mask\.png.*there is none"):
        read_folder(root)
    save_mask(mask)
    with pytest.raises(DataError, match=r"an image for each mask.*777_mask\.png"):
        read_folder(root)


def masked_sample(path: Path) -> Sample:
    return Sample(path, "a", ("bent",), {"bent": path}, "test")


def test_masks_binarise_above_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[0, 3, 127, 128, 250, 255]], dtype=np.uint8)).save(path)
    mask = masked_sample(path).load_mask(1, 6)
    assert mask is not None
    assert mask.tolist() == [[False, False, False, True, True, True]]
    Image.fromarray(np.array([[[255, 255, 255], [0, 0, 0]]], dtype=np.uint8)).save(path)  # saved in colour
    coloured = masked_sample(path).load_mask(1, 2)
    assert coloured is not None
    assert coloured.tolist() == [[True, False]]


@pytest.mark.parametrize("mode", ["1", "P", "LA", "RGBA"])
def test_masks_of_other_modes(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert(mode).save(path)
    mask = masked_sample(path).load_mask(1, 2)
    assert mask is not None
    assert mask.tolist() == [[False, True]]


def test_masks_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    with pytest.raises(DataError, match="no such file"):
        masked_sample(path).load_mask(*SIZE)
    path.write_bytes(b"not an image")
    with pytest.raises(DataError, match="cannot be read"):
        masked_sample(path).load_mask(*SIZE)
    save_mask(path, size=(5, 7))
    with pytest.raises(DataError, match=r"16 x 12 px.*7 x 5"):
        masked_sample(path).load_mask(*SIZE)
    save_mask(path, value=1)
    with pytest.raises(DataError, match="largest value is 1"):
        masked_sample(path).load_mask(*SIZE)


def test_an_empty_mask_is_a_mask(tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    save_mask(path, value=0)
    mask = masked_sample(path).load_mask(*SIZE)
    assert mask is not None
    assert not mask.any()


SHARED = Path(__file__).parents[2] / "shared/data"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real images are not on this machine")
def test_the_real_images_are_read() -> None:
    tiles = read_folder(SHARED / "magnetic_tile", splits=("test",), group_key="tile")
    assert types_of(tiles) == ("blowhole", "break", "crack", "fray", "uneven")
    assert sum(sample.defective for sample in tiles) == 388
    assert all(sample.masks is not None and sample.group for sample in tiles)
    steel = read_folder(SHARED / "steel_strip")
    assert len(types_of(steel)) == 7
    assert {sample.masks is None for sample in steel} == {True}
