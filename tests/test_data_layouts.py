"""The readers of the published layouts, against what the generator of layouts wrote."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from layouts import NAMES, PLANS, REAL_IAD_JSONS, SIZE, Written, save_mask, write

from dapo.data import DATASETS, Sample, open_dataset
from dapo.errors import ConfigError, DataError


def collected(name: str, root: Path, **options: object) -> tuple[tuple[Sample, ...], list[DataError]]:
    """The samples that are left, and all problems."""
    problems: list[DataError] = []
    return open_dataset(name, root, report=problems.append, **options), problems  # type: ignore[arg-type]


def by_image(samples: tuple[Sample, ...]) -> dict[Path, Sample]:
    assert len({sample.image for sample in samples}) == len(samples)
    return {sample.image: sample for sample in samples}


def assert_read(written: Written, samples: tuple[Sample, ...]) -> None:
    """The samples are what was written, masks pixel by pixel."""
    found = by_image(samples)
    assert set(found) == {picture.image for picture in written.pictures}
    for picture in written.pictures:
        sample = found[picture.image]
        assert (sample.product, sample.split, sample.types) == (picture.product, picture.split, picture.types)
        joined = sample.load_mask(*SIZE)
        assert joined is not None
        assert (joined == picture.joined).all()
        masks = sample.load_masks(*SIZE)
        assert (masks is not None) is picture.apart
        if masks is not None:
            assert set(masks) == set(picture.types)
            assert all((masks[kind] == picture.masks[kind]).all() for kind in picture.types)


@pytest.mark.parametrize("name", NAMES)
def test_every_layout_is_read_as_written(tmp_path: Path, name: str) -> None:
    written = write(name, tmp_path / "set")
    samples = open_dataset(name, written.root)
    products = PLANS[name] if name != "yolo" else {"set": {}}  # the layout knows no product
    assert {sample.product for sample in samples} == set(products)
    if name != "yolo":
        assert_read(written, samples)


@pytest.mark.parametrize("name", NAMES)
def test_a_clean_set_has_no_problem(tmp_path: Path, name: str) -> None:
    write(name, tmp_path)
    samples, problems = collected(name, tmp_path)
    assert not problems
    assert [sample.image for sample in samples] == [s.image for s in open_dataset(name, tmp_path)]


@pytest.mark.parametrize("name", NAMES)
def test_products_and_splits_are_chosen(tmp_path: Path, name: str) -> None:
    written = write(name, tmp_path / "set")
    product = list(PLANS[name])[-1] if name != "yolo" else "set"
    for split in ("train", "test"):
        samples = open_dataset(name, written.root, products=[product], splits=(split,))
        expected = [p for p in written.split(split) if name == "yolo" or p.product == product]
        assert sorted(sample.image for sample in samples) == sorted(picture.image for picture in expected)
    with pytest.raises(DataError, match=rf"{product}.*got teapot"):
        open_dataset(name, written.root, products=["teapot"])


@pytest.mark.parametrize("name", [name for name in NAMES if DATASETS[name].taxonomy])
def test_the_folder_around_the_products_will_do(tmp_path: Path, name: str) -> None:
    usual = DATASETS[name].usual[-1]
    written = write(name, tmp_path / usual.upper())
    assert len(open_dataset(name, tmp_path)) == len(written.pictures)
    (tmp_path / usual.upper()).rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"it holds elsewhere\)\. Point to the folder above"):
        open_dataset(name, tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        open_dataset(name, tmp_path / "nothing")


@pytest.mark.parametrize(
    ("name", "product"),
    [("mvtec", "screw"), ("visa", "pcb1"), ("mad_real", "Bear"), ("mad_sim", "01Gorilla")],
)
def test_one_product_is_a_set(tmp_path: Path, name: str, product: str) -> None:
    write(name, tmp_path)
    assert {s.product for s in open_dataset(name, tmp_path / product)} == {product.lstrip("01")}


@pytest.mark.parametrize("name", NAMES)
def test_files_of_the_finder_are_not_images(tmp_path: Path, name: str) -> None:
    written = write(name, tmp_path)
    for path in [*tmp_path.rglob("*")]:
        if path.is_file():
            path.with_name(f"._{path.name}").write_bytes(b"\0\5\26\7")
    (tmp_path / "__MACOSX" / "train").mkdir(parents=True)
    samples, problems = collected(name, tmp_path)
    assert not problems
    assert len(samples) == len(written.pictures)


def test_upper_case_suffixes_are_images(tmp_path: Path) -> None:
    written = write("mpdd", tmp_path)
    for path in [*tmp_path.rglob("*.png")]:
        path.rename(path.with_suffix(".PNG"))
    assert len(open_dataset("mpdd", tmp_path)) == len(written.pictures)


def test_a_name_that_is_no_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"mvtec, visa, .*yolo, label_studio; got 'imagenet'"):
        open_dataset("imagenet", tmp_path)


@pytest.mark.parametrize("name", ["folder", "coco", "yolo", "label_studio"])
def test_sets_without_a_taxonomy_have_no_variant(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=f"no variant for {name}"):
        open_dataset(name, tmp_path, variant="all")


def test_the_manifest_tells_the_part(tmp_path: Path) -> None:
    write("mpdd", tmp_path, plan={"tubes": {(): 2}}, train=0)
    rows = [{"image": f"test/good/00{number}.png", "part": 7} for number in range(2)]
    (tmp_path / "tubes" / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert {sample.group for sample in open_dataset("mpdd", tmp_path, group_key="part")} == {"tubes/7"}
    with pytest.raises(ConfigError, match="no group key for visa"):
        open_dataset("visa", tmp_path, group_key="part")


def test_the_catalogue_names_its_owners() -> None:
    assert set(DATASETS) == set(NAMES)
    for name, dataset in DATASETS.items():
        assert dataset.name == name
        assert dataset.title and dataset.layout and dataset.note and dataset.licence
        assert dataset.home.startswith("https://") is dataset.taxonomy


# What is broken, in which set, and what is then said; the rest must still be read.

Break = Callable[[Path], object]


def remove(place: str) -> Break:
    return lambda root: (root / place).unlink()


def add_mask(place: str) -> Break:
    return lambda root: save_mask(root / place, np.ones(SIZE, dtype=np.bool_))


def rename(place: str, name: str) -> Break:
    return lambda root: shutil.move(root / place, (root / place).with_name(name))


def write_text(place: str, old: str, new: str) -> Break:
    def change(root: Path) -> None:
        text = (root / place).read_text()
        assert old in text
        (root / place).write_text(text.replace(old, new, 1))

    return change


BROKEN: list[tuple[str, Break, str, str, int]] = [
    ("mvtec", remove("bottle/ground_truth/contamination/000_mask.png"), "000_mask.png", "orphan_image", 1),
    ("mvtec", remove("bottle/test/broken_large/001.png"), "001_mask.png has none", "orphan_mask", 1),
    ("mvtec", rename("screw/test/scratch_neck", "scrach_neck"), "got 'scrach_neck'", "unknown_type", 1),
    ("mad_sim", remove("02Mallard/ground_truth/Stains/001_mask.png"), "01_mask.png", "orphan_image", 1),
    ("mad_real", add_mask("Bird/ground_truth/Missing/9.png"), "9.png has none", "orphan_mask", 0),
    ("mad_real", remove("Bear/test/good/000.jpg"), "in .*good; found none", "empty", 1),
    ("mpdd", add_mask("tubes/ground_truth/dent/000_mask.png"), "test.dent for the masks", "orphan_mask", 0),
    ("folder", remove("nut/ground_truth/bent/001_mask.png"), "001_mask.png of", "orphan_image", 1),
    ("folder", add_mask("nut/ground_truth/bent/002.png"), "002.png has none", "orphan_mask", 0),
    ("visa", remove("pcb1/Data/Masks/Anomaly/002.png"), "Anomaly/002.png of", "orphan_image", 1),
    ("visa", add_mask("pcb1/Data/Masks/Anomaly/077.png"), "077.png; there is none", "orphan_mask", 0),
    ("visa", write_text("candle/image_anno.csv", ",other,", ",odd,"), "got 'odd'", "unknown_type", 1),
    (
        "visa",
        write_text("candle/image_anno.csv", ",other,", ",normal,"),
        "expected the label normal",
        "layout",
        1,
    ),
    ("visa", write_text("split_csv/1cls.csv", "pcb1,test", "pcb1,tset"), "got 'tset'", "layout", 1),
    (
        "visa",
        remove("candle/image_anno.csv"),
        "image_anno.csv with the columns image, label; it",
        "layout",
        8,
    ),
    (
        "visa",
        write_text("candle/image_anno.csv", "label", "Label"),
        "its columns are image, Label",
        "layout",
        8,
    ),
    (
        "visa_extended",
        remove("candle/Data/Masks/Anomaly/chunk of wax missing/000.png"),
        r"TYPE/000.png or 000_TYPE.png",
        "orphan_image",
        1,
    ),
    ("visa_extended", add_mask("pcb1/Data/Masks/Anomaly/077_bent.png"), "077_bent.png", "orphan_mask", 0),
    ("visa_extended", add_mask("pcb1/Data/Masks/Anomaly/000_rusty.png"), "got 'rusty'", "unknown_type", 1),
    (
        "real_iad",
        remove("realiad_1024/audiojack/NG/BX/S0004/audiojack_0004_NG_C1.png"),
        "C1.png, which .*audiojack.json names",
        "orphan_mask",
        1,
    ),
    ("real_iad", remove("realiad_jsons/realiad_jsons/mint.json"), "realiad_jsons/mint.json in", "layout", 10),
    (
        "real_iad",
        write_text("realiad_jsons/realiad_jsons/mint.json", '"YW"', '"YY"'),
        "got 'YY'",
        "unknown_type",
        1,
    ),
    (
        "real_iad",
        write_text("realiad_jsons/realiad_jsons/mint.json", '"train"', '"training"'),
        "it is something else",
        "layout",
        10,
    ),
    (
        "real_iad",
        write_text("realiad_jsons/realiad_jsons/mint.json", '"image_path"', '"image"'),
        "image_path and anomaly_class in each row",
        "layout",
        1,
    ),
]


@pytest.mark.parametrize(("name", "harm", "message", "kind", "lost"), BROKEN)
def test_what_is_broken_is_named_and_the_rest_is_read(
    tmp_path: Path, name: str, harm: Break, message: str, kind: str, lost: int
) -> None:
    written = write(name, tmp_path)
    harm(tmp_path)
    with pytest.raises(DataError, match=message):
        open_dataset(name, tmp_path)
    samples, problems = collected(name, tmp_path)
    assert len(samples) == len(written.pictures) - lost
    assert [problem.kind for problem in problems if problem.kind == kind]
    assert all(problem.path is not None for problem in problems)


def test_all_problems_are_collected(tmp_path: Path) -> None:
    written = write("mvtec", tmp_path)
    for place in ("bottle/ground_truth/contamination", "screw/ground_truth/manipulated_front"):
        (tmp_path / place / "000_mask.png").unlink()
    save_mask(tmp_path / "screw/ground_truth/scratch_neck/5_mask.png", np.ones(SIZE, dtype=np.bool_))
    (tmp_path / "screw/test/blob").mkdir()
    (tmp_path / "bottle/test/good/000.png").unlink()
    (tmp_path / "bottle/test/good/001.png").unlink()
    samples, problems = collected("mvtec", tmp_path)
    assert Counter(p.kind for p in problems) == {
        "orphan_image": 2,
        "orphan_mask": 1,
        "unknown_type": 1,
        "empty": 1,
    }
    assert len(samples) == len(written.pictures) - 4


def test_a_product_without_its_manifest_is_left_out(tmp_path: Path) -> None:
    write("folder", tmp_path)
    rows = [{"image": f"train/good/00{number}.png", "part": number} for number in range(2)]
    (tmp_path / "nut" / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    samples, problems = collected("folder", tmp_path, group_key="part")
    assert [sample.group for sample in samples] == ["nut/0", "nut/1"]
    assert Counter(problem.kind for problem in problems) == {"orphan_image": 5, "layout": 1}


def test_nothing_left_is_told_once(tmp_path: Path) -> None:
    assert [str(p).startswith("expected a dataset") for p in collected("visa", tmp_path / "x")[1]] == [True]
    write("mvtec", tmp_path, plan={"screw": {("scratch_head",): 1}}, train=0)
    samples, problems = collected("mvtec", tmp_path, splits=("train",))
    assert samples == ()
    assert [problem.kind for problem in problems] == ["empty"]


# Facts of single layouts


def test_number_of_mad_sim_is_no_name(tmp_path: Path) -> None:
    write("mad_sim", tmp_path)
    assert (tmp_path / "01Gorilla").is_dir()
    shutil.copytree(tmp_path / "01Gorilla", tmp_path / "09Gorilla")
    with pytest.raises(
        DataError, match=r"expected one folder of Gorilla; there are .*01Gorilla and .*09Gorilla"
    ):
        open_dataset("mad_sim", tmp_path)


def test_visa_without_the_split_file_is_all_test(tmp_path: Path) -> None:
    written = write("visa", tmp_path)
    shutil.rmtree(tmp_path / "split_csv")
    samples = open_dataset("visa", tmp_path)
    assert len(samples) == len(written.pictures)
    assert {sample.split for sample in samples} == {"test"}


def test_visa_without_masks_knows_the_types(tmp_path: Path) -> None:
    write("visa", tmp_path)
    shutil.rmtree(tmp_path / "pcb1/Data/Masks")
    samples = open_dataset("visa", tmp_path, products=["pcb1"], splits=("test",))
    assert {(s.types, s.masks is None, s.load_mask(*SIZE) is None) for s in samples} == {
        ((), False, False),
        (("bent",), True, True),
        (("melt", "scratch"), True, True),
    }


def test_a_visa_mask_that_does_not_fit_is_named(tmp_path: Path) -> None:
    write("visa", tmp_path)
    masks = tmp_path / "pcb1/Data/Masks/Anomaly"
    save_mask(masks / "000.png", np.ones((5, 7), dtype=np.bool_))
    (masks / "002.png").write_bytes(b"no image")
    samples = open_dataset("visa", tmp_path, products=["pcb1"], splits=("test",))
    flawed = {sample.image.stem: sample for sample in samples if sample.defective}
    with pytest.raises(DataError, match=r"32 x 24 px.*7 x 5") as hit:
        flawed["000"].load_mask(*SIZE)
    assert (hit.value.kind, hit.value.path) == ("mask_size", masks / "000.png")
    assert flawed["001"].load_mask(*SIZE) is not None
    with pytest.raises(DataError, match="cannot be read"):
        flawed["002"].load_mask(*SIZE)


def test_visa_labels_of_one_type_are_one_type(tmp_path: Path) -> None:
    """Two labels, one class: then the one mask is that type's."""
    write("visa", tmp_path, plan={"candle": {("Scratches", " small scratches "): 1}})
    flawed = open_dataset("visa", tmp_path, splits=("test",))[0]
    assert flawed.types == ("scratch",)
    masks = flawed.load_masks(*SIZE)
    assert masks is not None
    assert masks["scratch"].any()


@pytest.mark.parametrize("name", ["visa", "visa_extended"])
def test_what_you_call_good_is_good(tmp_path: Path, name: str) -> None:
    write(name, tmp_path)
    samples = open_dataset(name, tmp_path, products=["pcb1"], variant={"pcb1": {"bent": "good"}})
    bent = [sample for sample in samples if sample.image.parent.name == "Anomaly"][:2]
    assert [(sample.types, sample.masks, sample.joint) for sample in bent] == [((), {}, None)] * 2


def test_visa_extended_joins_masks_of_one_type(tmp_path: Path) -> None:
    plan = {"pcb1": {("scratch", "small scratches"): 1}, "pcb2": {("scratch", "small scratches"): 1}}
    written = write("visa_extended", tmp_path, plan=plan, train=0)
    for picture in written.pictures:
        sample = by_image(open_dataset("visa_extended", tmp_path))[picture.image]
        masks = sample.load_masks(*SIZE)
        assert masks is not None
        assert list(masks) == ["scratch"]
        assert (masks["scratch"] == picture.joined).all()


@pytest.mark.parametrize("name", ["visa", "visa_extended"])
def test_the_single_type_variant_leaves_images_out(tmp_path: Path, name: str) -> None:
    written = write(name, tmp_path)
    samples = open_dataset(name, tmp_path, variant="single-type")
    kept = {p.image for p in written.pictures if len(p.labels) < 2 and p.labels != ("other",)}
    assert set(by_image(samples)) == kept
    assert len(kept) < len(written.pictures)


def test_the_variant_of_a_screw(tmp_path: Path) -> None:
    write("mvtec", tmp_path)

    def types(variant: object) -> Counter[str]:
        samples = open_dataset("mvtec", tmp_path, products=["screw"], splits=("test",), variant=variant)  # type: ignore[arg-type]
        return Counter(name for sample in samples for name in sample.types)

    assert types(None) == types("front-as-bent") == {"bent": 2, "scratch": 2}
    assert types("front-as-fabric") == {"fabric": 2, "scratch": 2}
    assert types({"screw": {"scratch_head": "head scratch"}}) == {"bent": 2, "scratch": 1, "head scratch": 1}
    assert types({"bottle": {"scratch_head": "head scratch"}}) == {"bent": 2, "scratch": 2}
    assert types({"*": {"Manipulated Front": "good"}}) == {"scratch": 2}


@pytest.mark.parametrize("variant", REAL_IAD_JSONS)
def test_real_iad_splits(tmp_path: Path, variant: str) -> None:
    written = write("real_iad", tmp_path)
    samples = open_dataset("real_iad", tmp_path, variant=variant)
    every = {picture.image for picture in written.pictures}
    if variant == "single_view":
        assert {s.image for s in samples} == {image for image in every if "_C1" in image.name}
    elif variant == "fuiad":
        train = [sample for sample in samples if sample.split == "train"]
        assert sum(sample.defective for sample in train) == 4
    else:
        assert_read(written, samples)


def test_real_iad_parts_are_groups(tmp_path: Path) -> None:
    write("real_iad", tmp_path)
    samples = open_dataset("real_iad", tmp_path / "realiad_1024")
    groups = Counter(sample.group for sample in samples)
    assert set(groups.values()) == {2}
    assert "audiojack/NG/BX/S0004" in groups
    both = [sample for sample in samples if sample.group == "audiojack/NG/BX/S0004"]
    assert [sample.types for sample in both] == [("deformation",), ()]  # the second camera does not see it


def test_real_iad_without_a_mask_is_not_good(tmp_path: Path) -> None:
    write("real_iad", tmp_path)
    table = tmp_path / "realiad_jsons/realiad_jsons/mint.json"
    content = json.loads(table.read_text())
    for row in content["test"]:
        row["mask_path"] = None
    table.write_text(json.dumps(content))
    flawed = [s for s in open_dataset("real_iad", tmp_path, products=["mint"]) if s.defective]
    assert [sample.masks for sample in flawed] == [None, None]


def test_real_iad_split_files_lie_beside_the_products_too(tmp_path: Path) -> None:
    written = write("real_iad", tmp_path)
    inner = tmp_path / "realiad_jsons"
    for folder in [*inner.iterdir()]:
        folder.rename(tmp_path / "realiad_1024" / folder.name)
    inner.rmdir()
    assert len(open_dataset("real_iad", tmp_path / "realiad_1024")) == len(written.pictures)


def test_real_iad_needs_one_split_file(tmp_path: Path) -> None:
    write("real_iad", tmp_path)
    shutil.copytree(
        tmp_path / "realiad_jsons/realiad_jsons_fuiad_0.1", tmp_path / "realiad_jsons/realiad_jsons_fuiad_0.4"
    )
    with pytest.raises(DataError, match="expected one split file of audiojack; there are"):
        open_dataset("real_iad", tmp_path, variant="fuiad")
    assert open_dataset("real_iad", tmp_path, variant="fuiad_0.4")
