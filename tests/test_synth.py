"""``dapo data synth``: a drawn data set that the other commands take as any other."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from dapo.cli.main import main
from dapo.data import read_folder
from dapo.data.check import check_dataset
from dapo.errors import DataError
from dapo.pretraining.synth import RECORD, Plan, families, synthesise


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["data", "synth", *(str(argument) for argument in arguments)])


def pictures(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*.png"))}


def test_it_is_a_clean_data_set(tmp_path: Path) -> None:
    result = run(
        "--out", tmp_path / "set", "--lines", 2, "--good", 3, "--flawed", 2, "--kinds", 3, "--size", "96x80"
    )
    assert result.exit_code == 0, result.output
    assert "24 pictures of 2 products" in result.output
    report = check_dataset("folder", tmp_path / "set", depth="images")
    assert report.clean and (report.images, report.defective) == (24, 12)
    samples = read_folder(tmp_path / "set")
    assert {sample.product for sample in samples} == {"line-01", "line-02"}
    with Image.open(samples[0].image) as image:
        assert image.size == (96, 80)
    assert json.loads((tmp_path / "set" / RECORD).read_text())["seed"] == 0


def test_flaws_lie_under_their_masks(tmp_path: Path) -> None:
    """A flaw changes what is under its mask more than what is not, against a good part of the line."""
    synthesise(tmp_path, Plan(lines=1, train=6, good=1, flawed=3, types=("hole", "stain"), h=96, w=96))
    good = np.median([np.asarray(Image.open(p)) for p in (tmp_path / "line-01/train/good").iterdir()], axis=0)
    inside, outside = [], []
    for path in (tmp_path / "line-01/ground_truth").rglob("*.png"):
        mask = np.asarray(Image.open(path)) > 0
        image = np.asarray(
            Image.open(tmp_path / "line-01/test" / path.parent.name / path.name.replace("_mask", ""))
        )
        change = np.abs(image - good).mean(-1)
        inside.append(change[mask].mean())
        outside.append(change[~mask].mean())
    assert len(inside) == 6
    assert np.mean(inside) > 1.5 * np.mean(outside)


def test_the_same_arguments_give_the_same_pictures(tmp_path: Path) -> None:
    plan = Plan(lines=1, train=1, good=1, flawed=1, kinds=2, h=64, w=64)
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        synthesise(tmp_path / name, Plan(**{**vars(plan), "seed": seed}))
    assert pictures(tmp_path / "a") == pictures(tmp_path / "b")
    assert list(pictures(tmp_path / "c").values()) != list(pictures(tmp_path / "a").values())


def test_flaws_of_boards_are_drawn_on_boards(tmp_path: Path) -> None:
    result = run(
        "--out",
        tmp_path / "b",
        "--defects",
        "open circuit",
        "--lines",
        1,
        "--good",
        1,
        "--flawed",
        2,
        "--size",
        "96x96",
    )
    assert result.exit_code == 0, result.output
    assert len(list((tmp_path / "b/line-01/test/open circuit").iterdir())) == 2


def test_a_name_is_found_by_any_wording() -> None:
    said = ["Pinhole", "rust", "fissure", "gas pocket"]  # the last is never taught, and drawn all the same
    assert families(said) == {"Pinhole": "hole", "rust": "rust", "fissure": "crack", "gas pocket": "pit"}
    with pytest.raises(DataError, match=r"can be drawn \(scratch.*got 'banana'"):
        families(["banana"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--size", "big"], "such as 640x480"),
        (["--size", "9x9"], "64 to 2048 pixels"),
        (["--defects", "banana"], "got 'banana'"),
        (["--defects", ","], "--defects is empty"),
    ],
)
def test_what_cannot_be_drawn_is_said(tmp_path: Path, arguments: list[str], said: str) -> None:
    result = run("--out", tmp_path / "x", *arguments)
    assert result.exit_code == 2
    assert said in result.output
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/photo.png").write_bytes(b"mine")
    result = run("--out", tmp_path / "mine")
    assert result.exit_code == 2 and "holds something" in result.output
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["photo.png"]


def test_nothing_stays_of_a_run_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("dapo.pretraining.synth._save", full)
    with pytest.raises(OSError, match="No space"):
        synthesise(tmp_path / "x", Plan(lines=1, train=1, good=1, flawed=0))
    assert list(tmp_path.iterdir()) == []
