"""``dapo data``: what it prints where, what it writes, how it ends."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jsonschema
import layouts
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from dapo.cli.data import KINDS, ending_on_signals
from dapo.cli.main import main
from dapo.cli.options import DATASETS
from dapo.cli.reference import reference
from dapo.data import DATASETS as CATALOGUE
from dapo.data.archive import STAGING
from dapo.errors import DATA_KINDS
from dapo.writers.gallery import gallery_rows

Run = Callable[..., Result]

REPORT = {
    "type": "object",
    "additionalProperties": False,
    "required": ["schema", "dataset", "root", "clean", "images", "defective", "counts", "problems", "notes"],
    "properties": {
        "schema": {"const": 1},
        "dataset": {"enum": list(DATASETS)},
        "root": {"type": "string"},
        "clean": {"type": "boolean"},
        "images": {"type": "integer"},
        "defective": {"type": "integer"},
        "notes": {"type": "array", "items": {"type": "string"}},
        "counts": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["product", "split", "type", "images", "masks"],
                "properties": {
                    "product": {"type": "string"},
                    "split": {"enum": ["train", "test"]},
                    "type": {"type": "string"},
                    "images": {"type": "integer", "minimum": 1},
                    "masks": {"type": "integer", "minimum": 0},
                },
            },
        },
        "problems": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": False,
                "required": ["path", "kind", "message"],
                "properties": {
                    "path": {"type": "string"},
                    "kind": {"enum": list(DATA_KINDS)},
                    "message": {"type": "string"},
                },
            },
        },
    },
}


@pytest.fixture
def dapo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs ``dapo data ARGUMENTS`` in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, ["data", *map(str, arguments)])

    return run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    layouts.write("folder", tmp_path / "set")
    return tmp_path / "set"


def empty_masks(root: Path, count: int) -> None:
    """More images of one type, each with an empty mask."""
    for number in range(10, 10 + count):
        shutil.copy(root / "nut/test/bent/000.png", root / f"nut/test/bent/{number:03}.png")
        mask = root / f"nut/ground_truth/bent/{number:03}_mask.png"
        Image.fromarray(np.zeros(layouts.SIZE, dtype=np.uint8)).save(mask)


def sentence(result: Result) -> str:
    """The only line on stderr; a traceback or a second line fails."""
    assert isinstance(result.exception, SystemExit | None), result.exception
    (line,) = result.stderr.strip().splitlines()
    return line


# check


def test_a_clean_set(dapo: Run, root: Path) -> None:
    result = dapo("check", "--data", root, "--dataset", "folder")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["product", "type", "train", "test", "masks"]
    assert ["nut", "good", "2", "2"] in [line.split() for line in lines]
    assert ["bent", "0", "2", "2"] in [line.split() for line in lines]
    assert lines[-1] == "12 images, 5 of them defective: clean"
    assert result.stderr == ""


def test_problems_by_kind_and_no_more_than_twenty(dapo: Run, root: Path) -> None:
    empty_masks(root, 23)
    (root / "nut/test/dent").mkdir()
    result = dapo("check", "--data", root, "--dataset", "folder")
    assert result.exit_code == 1
    assert "empty masks of defective images: 23\n" in result.stdout
    assert result.stdout.count("it is empty. Draw the defect") == 20
    assert "  and 3 more; --json lists all\n" in result.stdout
    assert "nothing inside: 1\n" in result.stdout
    assert result.stdout.splitlines()[-1] == "35 images, 28 of them defective: 24 problems"


@pytest.mark.parametrize("clean", [True, False])
def test_the_report_as_json(dapo: Run, root: Path, clean: bool) -> None:
    if not clean:
        empty_masks(root, 23)
    result = dapo("check", "--data", root, "--dataset", "folder", "--json")
    record = json.loads(result.stdout)
    jsonschema.validate(record, REPORT)
    assert record["clean"] is clean
    assert len(record["problems"]) == (0 if clean else 23)
    assert result.exit_code == (0 if clean else 1)


@pytest.mark.skipif(sys.platform == "win32", reason="no such file names there")
def test_a_problem_is_one_line(dapo: Run, root: Path) -> None:
    (root / "nut/test/bent/two\nlines.png").write_bytes(b"")
    (root / "nut/ground_truth/bent/two\nlines_mask.png").write_bytes(b"")
    result = dapo("check", "--data", root, "--dataset", "folder")
    (line,) = [line for line in result.stdout.splitlines() if "0 bytes" in line]
    assert "two lines.png" in line


def test_published_sets_have_notes_and_variants(dapo: Run, tmp_path: Path) -> None:
    layouts.write("visa", tmp_path / "visa")
    result = dapo("check", "--data", tmp_path / "visa", "--dataset", "visa")
    assert result.exit_code == 0
    assert "note: candle: train 2 (published 900), " in result.stdout
    single = dapo("check", "--data", "visa", "--dataset", "visa", "--variant", "single-type", "--json")
    everything = dapo("check", "--data", "visa", "--dataset", "visa", "--json")
    assert json.loads(single.stdout)["images"] < json.loads(everything.stdout)["images"]


def test_products_and_deep(dapo: Run, root: Path) -> None:
    image = root / "nut/test/bent/000.png"
    image.write_bytes(image.read_bytes()[:-60])
    options = ("check", "--data", root, "--dataset", "folder")
    assert dapo(*options).exit_code == 0
    result = dapo(*options, "--deep")
    assert result.exit_code == 1
    assert "files that cannot be read: 1" in result.stdout
    result = dapo(*options, "--deep", "--products", "gear")
    assert result.exit_code == 0
    assert "nut" not in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check"], ["--data"]),
        (["check", "--data", "set"], ["--dataset"]),
        (["check", "--data", "set", "--dataset", "mvtek"], ["'mvtek'", *DATASETS]),
        (["check", "--data", "nowhere", "--dataset", "folder"], ["nowhere does not exist"]),
        (
            ["check", "--data", "set", "--dataset", "coco"],
            ["annotations", "folder layout", "--dataset folder"],
        ),
        (["check", "--data", "set", "--dataset", "folder", "--products", "cog"], ["gear, nut", "cog"]),
        (["check", "--data", "set", "--dataset", "folder", "--products", ","], ["--products is empty"]),
        (["check", "--data", "set", "--dataset", "folder", "--variant", "x"], ["no variant for folder"]),
        (["add", "--dataset", "folder", "--to", "x"], ["ARCHIVE"]),
        (["add", "a.zip", "--dataset", "folder"], ["--to"]),
        (["show", "--data", "set", "--dataset", "folder"], ["--out"]),
        (["show", "--data", "set", "--dataset", "folder", "--out", "a.pdf"], [".png", ".jpg"]),
        (["show", "--data", "set", "--dataset", "folder", "--out", "a.png", "--per-type", "0"], ["1<=x<=24"]),
        (["chek"], ["'chek'"]),
    ],
)
def test_usage_is_one_sentence(dapo: Run, root: Path, arguments: list[str], words: list[str]) -> None:
    result = dapo(*arguments)
    assert result.exit_code == 2
    line = sentence(result)
    assert all(word in line for word in words), line
    assert result.stdout == ""


def test_names_are_those_of_the_package() -> None:
    assert tuple(CATALOGUE) == DATASETS
    assert tuple(KINDS) == DATA_KINDS


def test_help_and_reference_name_all_three(dapo: Run) -> None:
    result = dapo()
    assert result.exit_code == 0
    assert result.stdout == dapo("--help").stdout
    assert all(f"  {name} " in result.stdout for name in ("add", "check", "show"))
    assert all(f"## dapo data {name}\n" in reference() for name in ("add", "check", "show"))
    assert "Usage: dapo data check [OPTIONS]" in reference()


# add


def test_add_says_whose_it_is_and_what_is_next(dapo: Run, tmp_path: Path) -> None:
    layouts.write("mvtec", tmp_path / "set")
    archive = shutil.make_archive(str(tmp_path / "fetched"), "xztar", tmp_path / "set")
    result = dapo("add", archive, "--dataset", "mvtec", "--to", "data/my mvtec")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.count("CC BY-NC-SA 4.0") == 1
    assert result.stdout.count(CATALOGUE["mvtec"].home) == 1
    assert f"  {archive}\n" in result.stdout
    assert "14 images, 7 of them defective\n" in result.stdout
    assert result.stdout.endswith(f'dapo data check --data "{Path("data/my mvtec")}" --dataset mvtec\n')
    assert dapo("check", "--data", "data/my mvtec", "--dataset", "mvtec").exit_code == 0


def test_add_twice_needs_force(dapo: Run, root: Path) -> None:
    archive = shutil.make_archive("fetched", "zip", root)
    options = ("add", archive, "--dataset", "folder", "--to", "data")
    assert dapo(*options).exit_code == 0
    again = dapo(*options)
    assert again.exit_code == 2
    assert "--force" in sentence(again)
    assert dapo(*options, "--force").exit_code == 0


def test_add_of_another_layout_says_so(dapo: Run, root: Path) -> None:
    archive = shutil.make_archive("fetched", "zip", root)
    result = dapo("add", archive, "--dataset", "visa", "--to", "data")
    assert result.exit_code == 2
    assert "looks like the folder layout: pass --dataset folder" in sentence(result)


def test_add_names_what_a_part_lacks(dapo: Run, root: Path) -> None:
    (root / "nut/ground_truth/bent/000_mask.png").unlink()
    result = dapo("add", shutil.make_archive("fetched", "tar", root), "--dataset", "folder", "--to", "data")
    assert result.exit_code == 1
    assert "000_mask.png" in sentence(result)
    assert "Next: dapo data check" in result.stdout


def test_a_killed_run_leaves_no_dataset(dapo: Run, root: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive("fetched", "tar", root)
    script = (
        "import os; from dapo.data.archive import add_archives\n"
        "def die(done, total):\n"
        "    if done > total * 0.8: os._exit(9)\n"
        f"add_archives([{archive!r}], 'data', progress=die)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=False).returncode == 9
    assert not (tmp_path / "data").exists()
    assert len(list(tmp_path.glob(f"{STAGING}*"))) == 1
    result = dapo("add", archive, "--dataset", "folder", "--to", "data")
    assert result.exit_code == 0
    assert "was left by a run that was stopped" in sentence(result)


def test_a_polite_kill_ends_like_an_interrupt() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), ending_on_signals():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


# show


@pytest.mark.parametrize("name", ["coco", "visa", "folder"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_show_writes_a_picture(dapo: Run, tmp_path: Path, name: str, suffix: str) -> None:
    layouts.write(name, tmp_path / "set")
    result = dapo("show", "--data", "set", "--dataset", name, "--out", f"out/sheet.{suffix}")
    assert result.exit_code == 0, result.stderr
    with Image.open(tmp_path / "out" / f"sheet.{suffix}") as picture:
        assert result.stdout.endswith(f"{picture.width} x {picture.height} px\n")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"sheet.{suffix}"]


def test_show_is_the_same_for_a_seed(dapo: Run, tmp_path: Path) -> None:
    layouts.write("folder", tmp_path / "set", times=4)
    pictures = {}
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        options = ("--per-type", 2, "--seed", seed, "--out", f"{name}.png")
        assert dapo("show", "--data", "set", "--dataset", "folder", *options).exit_code == 0
        pictures[name] = (tmp_path / f"{name}.png").read_bytes()
    assert pictures["a"] == pictures["b"] != pictures["c"]


def test_show_outlines_a_type_in_its_colour(dapo: Run, tmp_path: Path) -> None:
    from dapo.data import open_dataset, types_of
    from dapo.writers.palette import Palette

    layouts.write("coco", tmp_path / "set")
    dapo("show", "--data", "set", "--dataset", "coco", "--products", "nut", "--out", "a.png")
    samples = open_dataset("coco", tmp_path / "set", products=["nut"])
    palette = Palette(types_of(samples))
    with Image.open(tmp_path / "a.png") as picture:
        colours = {colour for _, colour in picture.getcolors(1 << 20) or ()}
    assert {palette["bent"], palette["color stain"]} <= colours
    rows = [(row.product, row.type, row.images, row.drawn) for row in gallery_rows(samples, 2)]
    assert rows == [("nut", "good", 4, 0), ("nut", "bent", 3, 3), ("nut", "color stain", 1, 1)]


def test_show_goes_on_without_masks_and_with_broken_files(dapo: Run, root: Path) -> None:
    shutil.rmtree(root / "gear/ground_truth")
    (root / "nut/test/bent/000.png").write_bytes(b"broken")
    mask = root / "nut/ground_truth/color stain/000_mask.png"
    Image.new("L", (3, 3)).save(mask)
    result = dapo("show", "--data", root, "--dataset", "folder", "--out", "a.png")
    assert result.exit_code == 0, result.stderr
    assert Path("a.png").is_file()


def test_show_has_an_end(dapo: Run, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dapo.writers.gallery.MAX_ROWS", 3)
    result = dapo("show", "--data", root, "--dataset", "folder", "--out", "a.png")
    assert result.exit_code == 2
    assert "--products" in sentence(result)
    assert not Path("a.png").exists()
