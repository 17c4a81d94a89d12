"""Formats for other tools: what their own readers see, what comes back, and what a full disk leaves."""

from __future__ import annotations

import csv
import errno
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from results import TYPES, inspected

from dapo.data.coco import read_coco
from dapo.data.label_studio import read_label_studio
from dapo.data.yolo import read_yolo
from dapo.errors import ConfigError, DependencyError
from dapo.inspection import Failure, Inspection, Region
from dapo.masks import decode_compressed_rle, encode_compressed_rle, encode_rle
from dapo.writers import (
    CocoWriter,
    CropsWriter,
    CsvWriter,
    HtmlReport,
    JsonlWriter,
    LabelStudioWriter,
    MaskWriter,
    OverlayWriter,
    ParquetWriter,
    TiffWriter,
    YoloWriter,
    read_jsonl,
)
from dapo.writers.crops import crop_box
from dapo.writers.csv import harmless
from dapo.writers.tiff import tree_root

FAILURE = Failure("broken.png", "truncated", "the file ends before the picture does")
SIZE = (120, 160)
EDGE = 1.5  # pixels: how far a polygon's outline may lie from the mask's


def region(kind: str, mask: np.ndarray, score: float = 0.8, number: int = 1) -> Region:
    """The region of a full-size mask."""
    rows, columns = np.nonzero(mask)
    x, y = int(columns.min()), int(rows.min())
    crop = mask[y : rows.max() + 1, x : columns.max() + 1]
    centroid = (float(columns.mean()) + 0.5, float(rows.mean()) + 0.5)
    box = (x, y, crop.shape[1], crop.shape[0])
    return Region(number, kind, score, 0.1, box, int(mask.sum()), centroid, crop, mask.shape)


def ring(size: tuple[int, int] = SIZE) -> np.ndarray:
    """A ring, whose hole polygons lose, and a second part."""
    mask = np.zeros(size, dtype=bool)
    mask[20:60, 30:80] = True
    mask[35:45, 45:65] = False
    mask[90:100, 100:130] = True
    return mask


def parts(folder: Path) -> list[Inspection]:
    """Images on disk with their results: two parts and a hole, an unknown flaw beside a known one, none."""
    found = []
    for name, regions in (
        ("line 1/a.png", (region("stain", ring()),)),
        ("line 1/b.png", (region("scratch", ring()), region("unknown", ~ring(), 0.6, 2))),
        ("line 2/ä.png", ()),
    ):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE[::-1], (90, 90, 90)).save(path)
        result = inspected(str(path), (("scratch", 0.5, 0.5, 0.1, 0.9),) if regions else ())
        found.append(replace(result, regions=regions))
    return found


def save(writer: Any, results: list[Any]) -> None:
    with writer:
        for result in (*results, FAILURE):
            writer.write(result)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as stream:
        return list(csv.DictReader(stream))


# Tables


def test_csv_has_a_row_for_each_image_and_each_region(tmp_path: Path) -> None:
    save(CsvWriter(tmp_path, {"stain": "major"}), [*parts(tmp_path), inspected("c.png", types=["dent"])])
    images, regions = (read_csv(tmp_path / f"{name}.csv") for name in ("results", "regions"))
    assert [row["verdict"] for row in images] == ["defective", "defective", "ok", "defective", ""]
    assert list(images[0])[-4:] == ["type:scratch", "type:pin hole", "type:stain", "type:dent"]
    assert images[0]["type:scratch"] == "0.9" and images[0]["type:dent"] == ""
    assert (images[0]["best_type"], images[0]["best_type_score"]) == ("scratch", "0.9")
    assert images[0]["calibration"].startswith("uncalibrated")
    assert images[4]["image"] == "broken.png" and images[4]["error"].startswith("truncated: the file ends")
    assert [(row["type"], row["severity"]) for row in regions[:3]] == [
        ("stain", "major"),
        ("scratch", ""),
        ("unknown", ""),
    ]
    assert [regions[0][key] for key in ("x", "y", "width", "height")] == ["30", "20", "100", "80"]
    assert (tmp_path / "results.csv").read_bytes().startswith(b"\xef\xbb\xbfimage,verdict")


@pytest.mark.parametrize("text", ["=1+2", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_no_spreadsheet_runs_a_name(tmp_path: Path, text: str) -> None:
    assert harmless(text) == f"'{text}" and harmless("a=1") == "a=1" and harmless(-1.5) == -1.5
    save(CsvWriter(tmp_path), [inspected(text, ((text, 0.3, 0.3, 0.1, 0.9),), types=[text])])
    for name in ("results", "regions"):
        cells = [cell for row in read_csv(tmp_path / f"{name}.csv") for cell in row.values()]
        assert f"'{text}" in cells and text not in cells


def test_parquet_holds_the_same_tables_with_types(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    save(ParquetWriter(tmp_path), [*parts(tmp_path), inspected("caf\udce9.png")])
    images = parquet.read_table(tmp_path / "results.parquet").to_pylist()
    regions = parquet.read_table(tmp_path / "regions.parquet").to_pylist()
    assert images[0]["type:scratch"] == pytest.approx(0.9) and images[0]["error"] is None
    assert images[3]["image"] == "caf\\udce9.png"
    assert images[4]["score"] is None and images[4]["error"].startswith("truncated")
    assert [row["area_px"] for row in regions[:3]] == [int(ring().sum())] * 2 + [int((~ring()).sum())]


def test_parquet_without_its_package_says_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DependencyError, match=r"pip install 'dapo\[parquet\]'"):
        ParquetWriter(tmp_path / "out")
    assert not (tmp_path / "out").exists()


# COCO


@given(arrays.arrays(np.bool_, st.tuples(st.integers(1, 40), st.integers(1, 40))))
@settings(max_examples=100, deadline=None)
def test_compressed_run_lengths_are_those_of_pycocotools(mask: np.ndarray) -> None:
    tool = pytest.importorskip("pycocotools.mask")
    text = encode_compressed_rle(encode_rle(mask))
    assert (decode_compressed_rle(text, *mask.shape) == mask).all()
    assert tool.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode() == text


def test_large_run_lengths_survive() -> None:
    rle = {"size": [9000, 9000], "counts": [80_999_000, 7, 993]}
    assert decode_compressed_rle(encode_compressed_rle(rle), 9000, 9000).sum() == 7


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # pycocotools 2.0.11 with NumPy 2.4
@pytest.mark.parametrize("segmentation", ["rle", "polygon"])
def test_pycocotools_reads_our_file(tmp_path: Path, segmentation: Any, capsys: Any) -> None:
    coco = pytest.importorskip("pycocotools.coco")
    results = parts(tmp_path / "photos")
    save(CocoWriter(tmp_path / "out" / "coco.json", tmp_path / "photos", segmentation), results)
    read = coco.COCO(str(tmp_path / "out" / "coco.json"))
    assert [row["name"] for row in read.loadCats(read.getCatIds())] == [*TYPES, "unknown"]
    assert [row["file_name"] for row in read.loadImgs(read.getImgIds())] == [
        "line 1/a.png",
        "line 1/b.png",
        "line 2/ä.png",
    ]
    (first,) = read.loadAnns(read.getAnnIds(imgIds=[1]))
    drawn = read.annToMask(first).astype(bool)
    if segmentation == "rle":
        assert (drawn == ring()).all()
    else:
        assert len(first["segmentation"]) == 2, "all parts"
    assert (first["area"], first["iscrowd"]) == (int(ring().sum()), 0)
    assert first["bbox"] == [30, 20, 100, 80] and first["score"] == pytest.approx(0.8)


def test_a_corrected_coco_file_is_read_back_exactly(tmp_path: Path) -> None:
    results = parts(tmp_path / "photos")
    path = tmp_path / "out" / "coco.json"
    save(CocoWriter(path, tmp_path / "photos"), results)
    samples = read_coco(path.parent)
    assert [sample.image.resolve() for sample in samples] == [Path(one.image).resolve() for one in results]
    for sample, result in zip(samples, results, strict=True):
        masks = sample.load_masks(*SIZE)
        assert masks is not None
        assert {kind: mask.tolist() for kind, mask in masks.items()} == {
            found.type: found.mask.tolist() for found in result.regions
        }
    table = json.loads(path.read_text("utf-8"))
    table["annotations"][0]["category_id"] = 2  # a person says: pin hole
    del table["annotations"][2]
    path.write_text(json.dumps(table), "utf-8")
    assert [sample.types for sample in read_coco(path.parent)] == [("pin hole",), ("scratch",), ()]
    for image in table["images"]:
        del image["path"]  # as another tool would export it
    (tmp_path / "photos" / "corrected.json").write_text(json.dumps(table), "utf-8")
    assert [sample.types for sample in read_coco(tmp_path / "photos")] == [("pin hole",), ("scratch",), ()]


# YOLO


def near(one: np.ndarray, other: np.ndarray) -> bool:
    """Whether two masks differ only within EDGE of the outline."""
    from scipy import ndimage

    inside = ndimage.distance_transform_edt(one) + ndimage.distance_transform_edt(~one)
    return bool((inside[one != other] <= EDGE).all())


def filled(mask: np.ndarray) -> np.ndarray:
    from scipy import ndimage

    return np.asarray(ndimage.binary_fill_holes(mask))


def test_yolo_is_a_data_set_that_can_be_read_back(tmp_path: Path) -> None:
    results = parts(tmp_path / "images")
    save(YoloWriter(tmp_path / "out", tmp_path / "images"), results)
    labels = (tmp_path / "out/labels/line 1/a.txt").read_text("utf-8").splitlines()
    assert [line.split()[0] for line in labels] == ["2", "2"], "one line for each part"
    assert (tmp_path / "out/labels/line 2/ä.txt").read_bytes() == b""
    assert (tmp_path / "out/images/line 2/ä.png").read_bytes() == Path(results[2].image).read_bytes()
    samples = read_yolo(tmp_path / "out")
    assert [(sample.types, sample.split) for sample in samples] == [
        (("stain",), "test"),
        (("scratch", "unknown"), "test"),
        ((), "test"),
    ]
    masks = samples[0].load_masks(*SIZE)
    assert masks is not None and near(masks["stain"], filled(ring()))
    save(YoloWriter(tmp_path / "out", tmp_path / "images"), results)  # again, over it
    path = tmp_path / "out/labels/line 1/a.txt"
    path.write_text("".join(f"0{line[1:]}\n" for line in labels), "utf-8")
    assert read_yolo(tmp_path / "out")[0].types == ("scratch",)


def test_yolo_keeps_pixels_that_have_no_file(tmp_path: Path) -> None:
    save(YoloWriter(tmp_path), [inspected("array"), replace(inspected("lost.png"), pixels=None)])
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["array.png"]
    assert sorted(path.name for path in (tmp_path / "labels").iterdir()) == ["array.txt", "lost.txt"]


def test_yolo_without_results_still_names_something(tmp_path: Path) -> None:
    save(YoloWriter(tmp_path), [])
    assert "names:" in (tmp_path / "data.yaml").read_text("utf-8")


# Label Studio


def test_label_studio_tasks_name_local_files_in_percent(tmp_path: Path) -> None:
    results = parts(tmp_path / "photos")
    save(LabelStudioWriter(tmp_path / "label-studio.json", tmp_path / "photos"), results)
    tasks = json.loads((tmp_path / "label-studio.json").read_text("utf-8"))
    assert [task["data"]["image"] for task in tasks] == [
        "/data/local-files/?d=line%201/a.png",
        "/data/local-files/?d=line%201/b.png",
        "/data/local-files/?d=line%202/%C3%A4.png",
    ]
    (prediction,) = tasks[0]["predictions"]
    assert prediction["model_version"] == "dapo 0.1.0" and prediction["score"] == pytest.approx(0.9)
    assert len(prediction["result"]) == 2, "all parts"
    points = np.array(prediction["result"][0]["value"]["points"]) * SIZE[::-1] / 100
    assert np.abs(points.min(axis=0) - [30, 20]).max() <= EDGE
    assert np.abs(points.max(axis=0) - [80, 60]).max() <= EDGE
    config = ElementTree.parse(tmp_path / "label-studio.xml").getroot()
    for tool, name in (("PolygonLabels", "polygon"), ("BrushLabels", "brush"), ("RectangleLabels", "box")):
        (control,) = config.iter(tool)
        assert control.attrib == {"name": name, "toName": "image"}
        assert [label.get("value") for label in control] == [*TYPES, "unknown"]
    entry = prediction["result"][0]
    assert (entry["from_name"], entry["to_name"], entry["type"]) == ("polygon", "image", "polygonlabels")


def test_a_corrected_label_studio_export_is_read_back(tmp_path: Path) -> None:
    results = parts(tmp_path / "photos")
    path = tmp_path / "out" / "label-studio.json"
    save(LabelStudioWriter(path, tmp_path / "photos"), results)
    tasks = json.loads(path.read_text("utf-8"))
    for task in tasks:  # a person submits what was found, with one label changed
        task["annotations"] = [{"result": task["predictions"][0]["result"]}]
    for mark in tasks[0]["annotations"][0]["result"]:
        mark["value"]["polygonlabels"] = ["pin hole"]
    path.write_text(json.dumps(tasks), "utf-8")
    samples = read_label_studio(path.parent)
    assert [sample.types for sample in samples] == [("pin hole",), ("scratch", "unknown"), ()]
    masks = samples[0].load_masks(*SIZE)
    assert masks is not None and near(masks["pin hole"], filled(ring()))


def test_hostile_names_stay_names_in_the_configuration(tmp_path: Path) -> None:
    name = '"><Hack x="&'
    save(LabelStudioWriter(tmp_path / "t.json"), [inspected(types=[name], spots=())])
    config = ElementTree.parse(tmp_path / "t.xml").getroot()
    assert next(config.iter("Label")).get("value") == name and not list(config.iter("Hack"))


# Pictures


def test_masks_number_the_types(tmp_path: Path) -> None:
    first, second = np.zeros((2, *SIZE), dtype=bool)
    first[10:50, 10:50] = second[30:70, 30:70] = True
    regions = (region("stain", first, 0.9), region("unknown", second, 0.5, 2))
    save(MaskWriter(tmp_path), [replace(inspected("a.jpg"), regions=regions)])
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.mode == "P" and picture.size == SIZE[::-1]
        numbers = np.asarray(picture)
        assert picture.convert("RGB").getpixel((0, 0)) == (0, 0, 0)
        assert picture.convert("RGB").getpixel((20, 20)) == (240, 228, 66)  # the stain of the overlays
    assert numbers[40, 40] == 3, "the higher score wins"
    assert np.array_equal(numbers == 3, first) and np.array_equal(numbers == 255, second & ~first)
    assert json.loads((tmp_path / "types.json").read_text()) == {
        "0": "background",
        "1": "scratch",
        "2": "pin hole",
        "3": "stain",
        "255": "unknown",
    }
    many = inspected(spots=(), types=[f"type {number}" for number in range(255)])
    with pytest.raises(ConfigError, match="254 types"):
        save(MaskWriter(tmp_path), [many])
    assert not (tmp_path / "part.png").exists()


def test_anomaly_maps_lie_in_the_tree_of_mvtec(tmp_path: Path) -> None:
    root = tmp_path / "mvtec"
    images = [str(root / "nut/test" / name) for name in ("bent/000.png", "good/000.png")]
    assert tree_root(images) == root.as_posix()
    assert tree_root([*images, str(root / "nut/new/000.png")]) is None
    result = inspected(images[0], (("stain", 0.3, 0.3, 0.1, 0.123456),))
    save(TiffWriter(tmp_path / "anomaly_maps", tree_root(images)), [result])
    with Image.open(tmp_path / "anomaly_maps/nut/test/bent/000.tiff") as picture:
        assert picture.mode == "F"
        assert np.array_equal(np.asarray(picture), result.anomaly_map)


def test_crops_show_the_untouched_flaw_with_its_surroundings(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    regions = (region("pin hole/new", ring(), 0.914), region("stain", ~ring(), 0.5, 2))
    result = replace(inspected("a.png", pixels=pixels), regions=regions)
    save(CropsWriter(tmp_path, limit=1), [result])
    (path,) = tmp_path.iterdir()
    assert path.name == "a-01-pin_hole_new-0.91.png"
    assert crop_box(regions[0]) == (5, 0, 155, 120)
    assert crop_box(region("x", ring((4000, 4000)))) == (5, 0, 155, 125)
    with Image.open(path) as picture:
        assert np.array_equal(np.asarray(picture), pixels[0:120, 5:155])
    assert CropsWriter(tmp_path, limit=1).has(result) and not CropsWriter(tmp_path).has(result)


# Records


def test_a_record_gives_back_its_inspection(tmp_path: Path) -> None:
    results = [*parts(tmp_path), inspected("caf\udce9.png", calibration={"statement": "x"})]
    with JsonlWriter(tmp_path / "r.jsonl", shape="both") as writer:
        for result in results:
            writer.write(result)
    for (_, record), result in zip(read_jsonl(tmp_path / "r.jsonl"), results, strict=True):
        again = Inspection.from_dict(record)
        assert again.to_dict("both") == result.to_dict("both")
        assert all(np.array_equal(a.mask, b.mask) for a, b in zip(again.regions, result.regions, strict=True))
        polygons = Inspection.from_dict(result.to_dict("polygon"))
        assert all(
            near(a.mask, filled(b.mask)) for a, b in zip(polygons.regions, result.regions, strict=True)
        )


# Interruptions and full disks

Make = Callable[[Path], Any]
DOCUMENTS: list[tuple[str, Make]] = [
    ("results.csv", lambda folder: CsvWriter(folder)),
    ("coco.json", lambda folder: CocoWriter(folder / "coco.json")),
    ("label-studio.json", lambda folder: LabelStudioWriter(folder / "label-studio.json")),
    ("report.html", lambda folder: HtmlReport(folder / "report.html")),
    ("data.yaml", lambda folder: YoloWriter(folder)),
]
PICTURES: list[tuple[str, Make]] = [
    ("part.jpg", OverlayWriter),
    ("part.png", MaskWriter),
    ("part.tiff", TiffWriter),
    ("labels/part.txt", YoloWriter),
]


@pytest.mark.parametrize(("name", "make"), DOCUMENTS)
def test_an_interrupted_run_leaves_whole_files(tmp_path: Path, name: str, make: Make) -> None:
    with pytest.raises(KeyboardInterrupt), make(tmp_path) as writer:
        writer.write(inspected())
        raise KeyboardInterrupt
    text = (tmp_path / name).read_text("utf-8-sig")
    assert "scratch" in text
    if name.endswith(".json"):
        json.loads(text)
    assert not list(tmp_path.rglob("*.part"))


class FullDisk(BytesIO):
    """Takes a few bytes."""

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > 40:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Fills the disk."""
    usual = Path.open

    def limited(self: Path, mode: str = "r", *rest: Any, **named: Any) -> Any:
        stream = usual(self, mode, *rest, **named)
        if "w" not in mode:
            return stream
        stream.close()
        return FullDisk()

    return lambda: monkeypatch.setattr(Path, "open", limited)


@pytest.mark.parametrize(("name", "make"), [*DOCUMENTS[:4], *PICTURES])
def test_a_full_disk_is_named_and_older_files_stay(
    tmp_path: Path, full_disk: Callable[[], None], name: str, make: Make
) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("older")
    full_disk()
    with pytest.raises(OSError, match="No space left") as caught, make(tmp_path) as writer:
        writer.write(inspected())
    assert caught.value.errno == errno.ENOSPC and str(tmp_path) in str(caught.value.filename)
    assert (tmp_path / name).read_text() == "older"
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize("make", [OverlayWriter, MaskWriter, TiffWriter, CropsWriter])
def test_a_picture_that_does_not_fit_is_not_there(tmp_path: Path, make: Make) -> None:
    resource = pytest.importorskip("resource")  # not on Windows
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0).integers(0, 255, (*SIZE, 3), dtype=np.uint8)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))  # the system takes what fits, then fails
    try:
        with pytest.raises(OSError) as caught, make(tmp_path) as writer:
            writer.write(inspected(pixels=noise))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.errno == errno.EFBIG
    assert [path.name for path in tmp_path.iterdir() if path.name != "types.json"] == []


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Limited(FileIO):
        def write(self, data: Any) -> int:
            room = 1500 - self.tell()
            if room <= 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(bytes(data)[:room])  # a full disk takes what fits

    monkeypatch.setattr("dapo.writers.jsonl.FileIO", Limited)
    path = tmp_path / "r.jsonl"
    with pytest.raises(OSError, match=r"r\.jsonl"), JsonlWriter(path) as writer:
        for _ in range(9):
            writer.write(inspected())
    monkeypatch.undo()
    whole = list(read_jsonl(path))
    assert len(whole) == 1 and path.read_bytes().count(b"\n") == 1
    with JsonlWriter(path, append=True) as writer:
        writer.write(inspected())
    assert len(list(read_jsonl(path))) == 2
