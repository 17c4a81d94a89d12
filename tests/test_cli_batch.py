"""Long runs: cut off and gone on with, in parts and joined, on a full disk."""

from __future__ import annotations

import csv
import errno
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from dapo.cli.inspect import part_of
from dapo.cli.main import main
from dapo.inspection import Failure

OUT = Path("out")
Run = Callable[..., Result]


@pytest.fixture
def inspect(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> Run:
    """Runs ``dapo inspect parts ...`` on four images and one broken file; the model has random weights."""
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        folder = Path("parts") / ("a" if number < 2 else "b")
        folder.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((48, 40), 20 + 9 * number).convert("RGB").save(folder / f"{number}.png")
    Path("parts/a/broken.png").write_bytes(b"\x89PNG no picture")

    def run(*more: object) -> Result:
        usual = ["inspect", "parts", "--model", tiny_model, "--out", OUT, "--defects", "scratch, pin hole"]
        usual += ["--threshold", 0.5, "--format", "jsonl,csv,coco,label-studio,html", "--save", "none"]
        return CliRunner().invoke(main, [str(word) for word in (*usual, *more)])

    return run


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The images that a model looked at."""
    from dapo.inspector import Inspector

    whole, found = Inspector.stream, []

    def stream(self: Inspector, paths: Any, *rest: Any, **named: Any) -> Iterator[Any]:
        for result in whole(self, paths, *rest, **named):
            found.append(Path(result.image).name)
            yield result

    monkeypatch.setattr(Inspector, "stream", stream)
    return found


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    from dapo.inspector import Inspector

    whole = Inspector.stream

    def stream(self: Inspector, *rest: Any, **named: Any) -> Iterator[Any]:
        results = whole(self, *rest, **named)
        for _ in range(count):
            yield next(results)
        raise error

    monkeypatch.setattr(Inspector, "stream", stream)


def records(folder: Path = OUT) -> list[dict[str, Any]]:
    lines = (folder / "results.jsonl").read_text("utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    for record in found:
        record.pop("timing_ms", None)
    return found


def table(folder: Path = OUT) -> list[tuple[str, str]]:
    with (folder / "results.csv").open(encoding="utf-8-sig", newline="") as stream:
        return [(Path(row["image"]).name, row["verdict"]) for row in csv.DictReader(stream)]


def test_resuming_does_the_rest_and_all_files_tell_all(
    inspect: Run, seen: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = inspect("--out", "whole")
    assert whole.exit_code == 1, whole.output
    seen.clear()
    with monkeypatch.context() as patch:
        stop_after(2, patch, KeyboardInterrupt())
        assert inspect().exit_code == 130
    assert len(records()) == 2 and len(table()) == 2
    assert "The run was cut short" in (OUT / "report.html").read_text("utf-8")
    first = records()
    seen.clear()
    result = inspect("--resume")
    assert result.exit_code == 1, "the broken file still is"
    assert "2 inspected and 2 kept" in result.stdout and "1 failed" in result.stdout
    assert seen == ["broken.png", "2.png", "3.png"]
    assert records() == records(Path("whole")) and records()[:2] == first
    for name in ("results.csv", "regions.csv", "label-studio/label-studio.json"):
        assert (OUT / name).read_bytes() == (Path("whole") / name).read_bytes(), name
    one, other = (
        json.loads((folder / "coco/coco.json").read_text("utf-8")) for folder in (OUT, Path("whole"))
    )
    assert one["annotations"] == other["annotations"]
    assert (OUT / "report.html").read_text("utf-8").count("data:image/jpeg") == 4, "photos of kept ones too"


def test_nothing_is_done_twice_and_failures_are_tried_again(inspect: Run, seen: list[str]) -> None:
    assert inspect("--save", "overlay").exit_code == 1
    before = [record for record in records() if "error" not in record]
    Image.new("RGB", (48, 40)).save("parts/a/broken.png")
    (OUT / "overlay/b/3.jpg").unlink()
    seen.clear()
    result = inspect("--resume", "--save", "overlay")
    assert result.exit_code == 0, result.output
    assert seen == ["broken.png", "3.png"], "the one that failed and the one whose picture is gone"
    names = [Path(record["image"]).name for record in records()]
    assert names == ["0.png", "1.png", "broken.png", "2.png", "3.png"]
    assert [record for record in records() if "broken" not in record["image"]] == before
    assert (OUT / "overlay/b/3.jpg").is_file()
    seen.clear()
    assert inspect("--resume", "--save", "overlay").exit_code == 0 and seen == []


def test_stopping_again_loses_nothing(inspect: Run, seen: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    inspect()
    whole = records()
    lines = (OUT / "results.jsonl").read_text("utf-8").splitlines(keepends=True)
    (OUT / "results.jsonl").write_text("".join([lines[0], *lines[3:]]) + lines[0][:50], "utf-8")
    with monkeypatch.context() as patch:
        stop_after(0, patch, KeyboardInterrupt())
        assert inspect("--resume").exit_code == 130
    assert [name for name, _ in table()] == ["0.png", "2.png", "3.png"], "what was kept is in all files"
    assert inspect("--resume").exit_code == 1
    assert records() == whole


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (("--threshold", 0.6), "threshold"),
        (("--defects", "scratch, pin hole, dent"), "vocabulary"),
    ],
)
def test_results_of_other_settings_are_neither_mixed_nor_lost(
    inspect: Run, seen: list[str], change: tuple[Any, ...], word: str
) -> None:
    inspect()
    before = {path.name: path.read_bytes() for path in OUT.iterdir() if path.is_file()}
    seen.clear()
    result = inspect("--resume", *change)
    assert result.exit_code == 2 and seen == []
    assert len(result.stderr.splitlines()) == 1
    assert word in result.stderr and "results.jsonl" in result.stderr and "--out" in result.stderr
    assert {path.name: path.read_bytes() for path in OUT.iterdir() if path.is_file()} == before


def test_other_phrases_are_another_vocabulary(inspect: Run, tmp_path: Path, tiny_model: Path) -> None:
    run = ["inspect", "parts", "--model", str(tiny_model), "--vocabulary", "w.yaml"]
    run += ["--save", "none", "--format", "jsonl"]
    codes = []
    for phrase in ("scratch", "scratch", "long scratch"):
        line = f"  - {{name: scratch, phrases: [{phrase}]}}"
        (tmp_path / "w.yaml").write_text(f"defects:\n{line}\n", "utf-8")
        codes.append(CliRunner().invoke(main, [*run, *(["--resume"] if codes else [])]).exit_code)
    assert codes == [1, 1, 2]


def test_parts_of_a_run_are_joined(inspect: Run, seen: list[str]) -> None:
    inspect("--out", "whole")
    assert [inspect("--shard", f"{number}/3", "--save", "overlay").exit_code for number in (1, 2, 3)] == [
        0,
        1,
        0,
    ]
    assert not (OUT / "results.jsonl").exists()
    parts = [len(records(OUT / f"shard-{number}-of-3")) for number in (1, 2, 3)]
    assert sum(parts) == 5 and max(parts) - min(parts) <= 1
    seen.clear()
    assert inspect("--resume", "--save", "overlay").exit_code == 1
    assert seen == ["broken.png"], "all others are taken from the parts"
    joined, whole = records(), records(Path("whole"))
    assert [row["image"] for row in joined] == [row["image"] for row in whole]
    for ours, theirs in zip(joined, whole, strict=True):  # other batches: equal but for rounding
        assert ours.keys() == theirs.keys()
        assert ours.get("score") == pytest.approx(theirs.get("score"), abs=1e-2)
    names = sorted(path.relative_to(OUT).as_posix() for path in (OUT / "overlay").rglob("*.jpg"))
    assert names == ["overlay/a/0.jpg", "overlay/a/1.jpg", "overlay/b/2.jpg", "overlay/b/3.jpg"]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20])
def test_parts_are_even_and_complete(count: int) -> None:
    files = [Path(f"{number}.png") for number in range(9)]
    failures = [Failure(name, "missing", "no such file") for name in ("x", "y")]
    parts = [part_of(files, failures, (number, count)) for number in range(1, count + 1)]
    assert [file for own, _ in parts for file in own] == files
    assert [failure for _, own in parts for failure in own] == failures
    sizes = [len(own) + len(bad) for own, bad in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--shard", "0/3"], ["0/3"]),
        (["--shard", "4/3"], ["4/3"]),
        (["--shard", "half"], ["half", "i/n", "1/n"]),
        (["--resume", "--format", "csv"], ["--resume", "jsonl"]),
        (["--coco-segmentation", "box"], ["rle", "polygon"]),
    ],
)
def test_wrong_options_are_one_sentence(inspect: Run, options: list[str], words: list[str]) -> None:
    result = inspect(*options)
    assert result.exit_code == 2 and len(result.stderr.splitlines()) == 1
    assert any(word in result.stderr for word in words)
    assert not OUT.exists()


def test_a_wrong_path_loses_no_results(inspect: Run) -> None:
    inspect()
    before = records()
    wrong = CliRunner().invoke(main, ["inspect", "prats", "--resume", "--out", str(OUT)])
    assert wrong.exit_code == 1 and "prats" in wrong.stderr
    assert records() == before


def test_a_full_disk_is_one_sentence(inspect: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        stop_after(2, patch, OSError(errno.ENOSPC, "No space left on device", str(OUT / "overlay")))
        result = inspect()
    assert result.exit_code == 2
    assert len(result.stderr.splitlines()) == 1
    assert "disk is full after 2 of 5 images" in result.stderr and "--resume" in result.stderr
    assert len(records()) == 2
    assert inspect("--resume").exit_code == 1
    assert len(records()) == 5


def test_every_format_and_picture_in_one_run(inspect: Run) -> None:
    pytest.importorskip("pyarrow")
    result = inspect(
        "--save", "overlay,heatmap,mask,tiff,crops",
        "--format", "jsonl,csv,parquet,coco,yolo,label-studio,html",
        "--coco-segmentation", "polygon",
    )  # fmt: skip
    assert result.exit_code == 1, result.output
    files = "results.jsonl results.csv regions.csv results.parquet regions.parquet coco/coco.json run.json"
    more = "label-studio/label-studio.json label-studio/label-studio.xml yolo/data.yaml report.html"
    pictures = "overlay/a/0.jpg heatmap/a/0.jpg mask/a/0.png anomaly_maps/a/0.tiff mask/types.json"
    for name in f"{files} {more} {pictures}".split():
        assert (OUT / name).stat().st_size > 0, name
        assert name.split("/")[0] in result.stdout or name in ("run.json", "mask/types.json")
    assert not list(OUT.rglob("*.part"))


def test_what_was_written_is_a_data_set(inspect: Run) -> None:
    assert inspect("--format", "jsonl,coco,yolo,label-studio", "--threshold", 0).exit_code == 1
    Path("parts/a/broken.png").unlink()  # nobody said what it shows
    tasks = OUT / "label-studio/label-studio.json"
    check = ["data", "check", "--json", "--dataset"]
    alone = CliRunner().invoke(main, [*check, "label_studio", "--data", str(tasks.parent)])
    assert alone.exit_code != 0 and "nobody submitted" in alone.output
    rows = json.loads(tasks.read_text("utf-8"))
    for row in rows:
        row["annotations"] = [{"result": row["predictions"][0]["result"]}]
    tasks.write_text(json.dumps(rows), "utf-8")
    for name, folder in (("coco", "coco"), ("yolo", "yolo"), ("label_studio", "label-studio")):
        result = CliRunner().invoke(main, [*check, name, "--data", str(OUT / folder)])
        assert result.exit_code == 0, (name, result.output)


# what comes in


def drawn() -> np.ndarray:
    """A grey ramp (24, 32) uint8."""
    return np.tile(np.linspace(20, 230, 32, dtype=np.uint8), (24, 1))


def test_every_kind_of_picture_is_taken(inspect: Run) -> None:
    grey = drawn()
    rgb, folder = Image.fromarray(np.stack([grey] * 3, axis=2)), Path("kinds")
    folder.mkdir()
    for name in ("a.jpg", "a.png", "a.bmp", "a.tif", "a.webp"):
        rgb.save(folder / name)
    for mode, name in (("L", "grey.jpg"), ("LA", "la.png"), ("RGBA", "rgba.webp"), ("P", "p.png")):
        rgb.convert(mode).save(folder / name)
    for name in ("cmyk.jpg", "cmyk.tif"):
        rgb.convert("CMYK").save(folder / name)
    for name in ("deep.png", "deep.tif"):
        Image.fromarray(grey.astype(np.uint16) * 257).save(folder / name)
    Image.fromarray(grey.astype(np.float32) / 255).save(folder / "float.tif")
    turned = Image.Exif()
    turned[0x0112] = 6
    rgb.save(folder / "turned.jpg", exif=turned)
    rgb.save(folder / "pages.tif", save_all=True, append_images=[rgb])
    found = inspect(folder)
    taken = {Path(record["image"]).name: record for record in records() if "kinds" in record["image"]}
    pages = {"pages.tif#page=1", "pages.tif#page=2"}
    assert set(taken) == {path.name for path in folder.iterdir()} - {"pages.tif"} | pages, found.output
    assert all("error" not in record for record in taken.values()), found.stderr
    assert (taken["turned.jpg"]["height"], taken["turned.jpg"]["width"]) == (32, 24)
    same = {
        name: record["score"] for name, record in taken.items() if name.endswith((".png", ".bmp", ".tif"))
    }
    assert max(same.values()) - min(same.values()) < 0.02, "the ramp is the ramp"


def spoiled(folder: Path) -> dict[str, str]:
    """Files that cannot be inspected, and a word that each refusal must have."""
    picture, whole = Image.fromarray(drawn()), {}
    for kind in ("png", "jpg", "bmp", "webp", "tif"):
        picture.save(folder / f"cut.{kind}")
        whole[kind] = (folder / f"cut.{kind}").read_bytes()
        (folder / f"cut.{kind}").write_bytes(whole[kind][: len(whole[kind]) * 2 // 3])
    size = bytes(4) + (24).to_bytes(4, "big")
    header = b"IHDR" + size + whole["png"][24:29]
    for name, body in (
        ("zero.png", header),
        ("bomb.png", header.replace(size, (60_000).to_bytes(4, "big") * 2)),
    ):
        crc = zlib.crc32(body).to_bytes(4, "big")
        (folder / name).write_bytes(whole["png"][:12] + body + crc + whole["png"][33:])
    (folder / "start.tif").write_bytes(whole["tif"][:12])
    (folder / "empty.png").touch()
    (folder / "text.png").write_text("no picture")
    broken = drawn().astype(np.float32) / 255
    broken[3, 4] = np.nan
    Image.fromarray(broken).save(folder / "nan.tif")
    Image.fromarray(drawn().astype(np.float32)).save(folder / "levels.tif")
    picture.crop((0, 0, 1, 1)).save(folder / "one.png")
    return {
        "cut.png": "ends early or is damaged",
        "cut.jpg": "damaged",
        "cut.bmp": "ends early or is damaged",
        "cut.tif": "damaged",
        "cut.webp": "header is damaged, cut off or tells 0 pixels",
        "start.tif": "came a TIFF that is damaged or of a rare kind",
        "zero.png": "tells 0 pixels",
        "bomb.png": "at most 200,000,000 pixels, came 60000 x 60000",
        "empty.png": "0 bytes",
        "text.png": "10 bytes of something else",
        "nan.tif": "1 NaN or infinite of 768",
        "levels.tif": "from 0 to 1, came 20 to 230; scale them, or use uint8",
        "one.png": "at least 8 pixels a side, came 1 x 1",
    }


@pytest.mark.filterwarnings("error")  # Pillow warns of what it meets in damaged files
def test_each_refusal_is_one_clear_line(inspect: Run, tmp_path: Path) -> None:
    folder = tmp_path / "bad"
    folder.mkdir()
    words = spoiled(folder)
    found = inspect(folder)
    assert found.exit_code == 1
    lines = {Path(line.split("'")[1]).name: line for line in found.stderr.splitlines()}
    assert len(found.stderr.splitlines()) == len(words) + 1 == len(lines), "and that of the usual broken file"
    for name, word in words.items():
        line = lines[name]
        assert line.startswith(f"dapo: '{folder / name}': expected "), line
        assert word in line and ", came " in line and "; " in line, line
    assert sum("error" in record for record in records()) == len(lines)
