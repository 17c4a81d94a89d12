"""The demo: samples whose truth is known, judged fairly, drawn and told; and the user's own photos."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from results import inspected
from scipy import ndimage

import dapo.demo
from dapo.cli.demo import MOST, clear, evenly, outcome_cell, sample_notes
from dapo.cli.main import main
from dapo.demo import DEFECTS, SHOTS, Judgement, Sample, Tally, judge, make_sample, make_samples
from dapo.errors import DependencyError
from dapo.writers.sheet import MAX_TILES, TILE, ContactSheet

pytest.importorskip("skimage")

FLAWED = [shot for shot in SHOTS if shot.flaws]


def picture(path: Path) -> np.ndarray:
    """The pixels of a file, which is closed again."""
    with Image.open(path) as opened:
        return np.asarray(opened)


# Samples


def test_samples_show_what_the_demo_promises() -> None:
    drawn = {name for shot in SHOTS for name in shot.flaws}
    assert 14 <= len(SHOTS) <= 18
    assert len(SHOTS) - len(FLAWED) >= 4
    assert any(len(shot.flaws) == 2 for shot in SHOTS)
    assert len({shot.name for shot in SHOTS}) == len(SHOTS)
    assert drawn < set(DEFECTS)
    assert len(set(DEFECTS) - drawn) >= 2  # names that never occur


def test_samples_follow_from_the_seed() -> None:
    shot = next(shot for shot in SHOTS if len(shot.flaws) == 2)
    first, again, other = make_sample(shot, 11), make_sample(shot, 11), make_sample(shot, 12)
    assert np.array_equal(first.image, again.image)
    assert not np.array_equal(first.image, other.image)
    for name in shot.flaws:
        assert np.array_equal(first.masks[name], again.masks[name])
        assert not np.array_equal(first.masks[name], other.masks[name])


def test_untouched_samples_do_not_depend_on_the_seed() -> None:
    shot = next(shot for shot in SHOTS if not shot.flaws)
    assert np.array_equal(make_sample(shot, 0).image, make_sample(shot, 1).image)
    assert make_sample(shot).types == ()


@pytest.mark.parametrize("shot", FLAWED, ids=lambda shot: shot.name)
def test_masks_are_where_the_picture_changed(shot: dapo.demo.Shot) -> None:
    sample, clean = make_sample(shot), make_sample(replace(shot, flaws=()))
    assert sample.image.shape == (*shot.size, 3)
    assert sample.types == shot.flaws
    change = np.abs(sample.image.astype(float) - clean.image).max(2) / 255
    for name, mask in sample.masks.items():
        assert mask.shape == shot.size
        assert mask.dtype == bool
        assert 0.001 < mask.mean() < 0.2, name
        assert change[mask].mean() > 0.1, name  # of full scale: plain to see
    union = np.logical_or.reduce(list(sample.masks.values()))
    assert sum(mask.sum() for mask in sample.masks.values()) == union.sum()  # no pixel has two types
    assert change[union].mean() > 10 * change[~union].mean()
    reach = min(shot.size) // 8  # soft rims and shadows reach a little beyond
    assert not change[~ndimage.binary_dilation(union, iterations=reach)].any()


def test_flaws_on_parts_stay_on_the_parts() -> None:
    for shot in (shot for shot in FLAWED if shot.part):
        sample = make_sample(shot)
        clean = make_sample(replace(shot, flaws=())).image
        dark = clean.max(2) < 60  # the ground
        assert dark.mean() > 0.1
        for mask in sample.masks.values():
            assert (mask & dark).sum() < 0.05 * mask.sum()


def test_without_scikit_image_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dapo.demo, "find_spec", lambda name: None)
    with pytest.raises(DependencyError, match=r"scikit-image.*dapo\[demo\]"):
        make_samples()


# Judging


def sample_with(*spots: tuple[str, float, float, float, float]) -> Sample:
    """A sample of 120 x 160 whose truth is those spots."""
    result = inspected(spots=spots)
    masks = {region.type: region.mask for region in result.regions}
    return Sample("part", np.full((120, 160, 3), 128, np.uint8), masks)


def test_a_flaw_is_called_what_covers_most_of_it() -> None:
    sample = sample_with(("scratch", 0.3, 0.3, 0.15, 0.9), ("stain", 0.7, 0.7, 0.15, 0.9))
    answer = inspected(
        spots=[
            ("scratch", 0.3, 0.3, 0.12, 0.9),
            ("pin hole", 0.7, 0.7, 0.1, 0.9),
            ("stain", 0.9, 0.1, 0.1, 1),
        ]
    )
    judgement = judge(sample, answer)
    assert judgement.right
    assert judgement.calls == {"scratch": "scratch", "stain": "pin hole"}
    assert judgement.named == 1


def test_naming_a_flaw_elsewhere_does_not_count() -> None:
    sample = sample_with(("scratch", 0.3, 0.3, 0.1, 0.9))
    assert judge(sample, inspected(spots=[("scratch", 0.8, 0.8, 0.1, 0.9)])).calls == {"scratch": None}


def test_a_part_that_passes_names_nothing() -> None:
    sample = sample_with(("scratch", 0.3, 0.3, 0.1, 0.9))
    answer = inspected(spots=[("scratch", 0.3, 0.3, 0.1, 0.9)], verdict="ok")
    judgement = judge(sample, answer)
    assert not judgement.right
    assert judgement.named == 0


def test_names_not_asked_for_are_not_held_against_the_answer() -> None:
    sample = sample_with(("scratch", 0.3, 0.3, 0.1, 0.9))
    answer = inspected(spots=[("stain", 0.3, 0.3, 0.1, 0.9)], types=("stain",))
    judgement = judge(sample, answer)
    assert judgement.calls == {}
    assert sample_notes(sample, judgement) == [("scratch: not asked for", None)]
    assert str(outcome_cell(sample, judgement)) == "found"


def test_tally_counts_found_passed_and_named() -> None:
    flawed = sample_with(("scratch", 0.3, 0.3, 0.1, 0.9))
    good = Sample("good", flawed.image)
    tally = Tally()
    for sample, judgement in (
        (flawed, Judgement(True, {"scratch": "scratch"})),
        (flawed, Judgement(True, {"scratch": "stain"})),
        (flawed, Judgement(False, {"scratch": None})),
        (good, Judgement(True, {})),
        (good, Judgement(False, {})),
    ):
        tally.add(sample, judgement)
    assert (tally.found, tally.defective) == (2, 3)
    assert (tally.passed, tally.good) == (1, 2)
    assert (tally.named, tally.flaws) == (1, 3)


@pytest.mark.parametrize(
    ("judgement", "outcome", "note"),
    [
        (Judgement(True, {"scratch": "scratch"}), "found, named", ("scratch", True)),
        (Judgement(True, {"scratch": "stain"}), "found, not named", ("scratch: called stain", False)),
        (Judgement(True, {"scratch": None}), "found, not named", ("scratch: not located", False)),
        (Judgement(False, {"scratch": None}), "missed", ("scratch: missed", False)),
    ],
)
def test_outcomes_are_told(judgement: Judgement, outcome: str, note: tuple[str, bool]) -> None:
    sample = sample_with(("scratch", 0.3, 0.3, 0.1, 0.9))
    assert str(outcome_cell(sample, judgement)) == outcome
    assert sample_notes(sample, judgement) == [note]


# The contact sheet


def test_sheet_shows_every_answer(tmp_path: Path) -> None:
    path = tmp_path / "new" / "overview.png"
    result = inspected()
    with ContactSheet(path, "Title", "subtitle", columns=3) as sheet:
        for _ in range(4):
            sheet.write(result, {region.type: region.mask for region in result.regions}, [("scratch", True)])
    height, width = picture(path).shape[:2]
    assert width > 3 * TILE[0]
    assert height > 2 * TILE[1]


def test_sheet_marks_the_truth(tmp_path: Path) -> None:
    answer = inspected(spots=[])
    truth = np.zeros((120, 160), bool)
    truth[30:90, 40:120] = True
    pictures = []
    for name, masks in (("with.png", {"scratch": truth}), ("without.png", {})):
        with ContactSheet(tmp_path / name, "Title") as sheet:
            sheet.write(answer, masks)
        pictures.append(picture(tmp_path / name).astype(int))
    rows, columns = np.nonzero(np.abs(pictures[0] - pictures[1]).sum(2))
    scale = TILE[0] / 160
    assert abs(np.ptp(rows) - 60 * scale) < 4
    assert abs(np.ptp(columns) - 80 * scale) < 4


def test_sheet_without_answers_is_not_written(tmp_path: Path) -> None:
    with ContactSheet(tmp_path / "overview.png", "Title"):
        pass
    assert not list(tmp_path.iterdir())


def test_sheet_stays_bounded(tmp_path: Path) -> None:
    result = inspected(spots=[])
    with ContactSheet(tmp_path / "overview.png", "Title", columns=8) as sheet:
        for _ in range(MAX_TILES + 3):
            sheet.write(result)
    assert len(picture(tmp_path / "overview.png")) < (MAX_TILES / 8 + 1) * (TILE[1] + 100)


# The command

Run = Callable[..., Result]


@pytest.fixture
def demo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_model: Path) -> Run:
    """Runs ``dapo demo ARGUMENTS`` with a tiny model in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Result:
        words = ["demo", "--model", str(tiny_model), *(str(argument) for argument in arguments)]
        return CliRunner().invoke(main, words)

    return run


def test_demo_runs_end_to_end(demo: Run, tmp_path: Path) -> None:
    out = tmp_path / "out" / "demo"
    result = demo()
    assert result.exit_code == 0, result.stderr
    records = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    names = [shot.name for shot in SHOTS]
    assert [Path(record["image"]).stem for record in records] == names
    assert [kind["name"] for kind in records[0]["types"]] == list(DEFECTS)
    for folder, suffix in (("images", ".png"), ("overlay", ".jpg"), ("heatmap", ".jpg")):
        assert sorted(path.name for path in (out / folder).iterdir()) == sorted(n + suffix for n in names)
    assert picture(out / "overview.png").shape[1] > 4 * TILE[0]
    assert "<html" in (out / "report.html").read_text(encoding="utf-8")

    rows = {line.split()[0]: line for line in result.stdout.splitlines() if line.split()[:1]}
    for shot, record in zip(SHOTS, records, strict=True):
        assert record["verdict"] in rows[shot.name]
        assert (", ".join(shot.flaws) or "untouched") in rows[shot.name]
    flawed = [record["verdict"] for record, shot in zip(records, SHOTS, strict=True) if shot.flaws]
    good = [record["verdict"] for record, shot in zip(records, SHOTS, strict=True) if not shot.flaws]
    assert (
        f"Found {flawed.count('defective')} of {len(flawed)} defective samples, "
        f"passed {good.count('ok')} of {len(good)} untouched ones, named "
    ) in result.stdout
    assert "overview.png" in result.stdout
    assert "demo --images FOLDER" in result.stdout


def test_samples_on_disk_are_the_samples(demo: Run, tmp_path: Path) -> None:
    assert demo("--seed", 5, "--out", "here", "--defects", "scratch, crack").exit_code == 0
    shot = FLAWED[0]
    saved = picture(tmp_path / "here" / "images" / f"{shot.name}.png")
    assert np.array_equal(saved, make_sample(shot, 5).image)
    record = json.loads((tmp_path / "here" / "results.jsonl").read_text().splitlines()[0])
    assert [kind["name"] for kind in record["types"]] == ["scratch", "crack"]


def photos(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    for index in range(count):
        Image.effect_noise((48, 40), 10 + index).save(folder / f"{index}.png")
    return folder


def test_own_photos(demo: Run, tmp_path: Path) -> None:
    folder = photos(tmp_path / "parts" / "test" / "bad weld", 2).parents[1]
    photos(tmp_path / "parts" / "ground_truth" / "bad weld", 2)
    result = demo("--images", folder, "--defects", "scratch, pin hole")
    assert result.exit_code == 0, result.stderr
    out = tmp_path / "out" / "demo"
    records = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert [Path(record["image"]).parent.name for record in records] == ["bad weld", "bad weld"]
    assert all("ground_truth" not in record["image"] for record in records)
    assert [kind["name"] for kind in records[0]["types"]] == ["scratch", "pin hole"]
    assert len(list((out / "overlay").rglob("*.jpg"))) == 2
    assert (out / "overview.png").is_file()
    assert not (out / "images").exists()
    assert "Found" not in result.stdout  # nothing is known about them


def test_a_large_folder_is_sampled_evenly(demo: Run, tmp_path: Path) -> None:
    folder = photos(tmp_path / "parts", MOST + 16)
    result = demo("--images", folder, "--defects", "scratch")
    assert result.exit_code == 0, result.stderr
    lines = (tmp_path / "out" / "demo" / "results.jsonl").read_text().splitlines()
    assert len(lines) == MOST
    assert f"{MOST} of the {MOST + 16} photos" in result.stdout
    assert f"inspect {folder}" in result.stdout
    assert Path(json.loads(lines[-1])["image"]).name == f"{MOST + 15}.png"


def test_a_broken_photo_does_not_stop_the_others(demo: Run, tmp_path: Path) -> None:
    folder = photos(tmp_path / "parts", 2)
    (folder / "1.png").write_bytes(b"")
    result = demo("--images", folder, "--defects", "scratch")
    assert result.exit_code == 1
    assert "1.png" in result.stderr
    assert "1 inspected" in result.stdout
    assert "1 failed" in result.stdout


def test_a_folder_that_does_not_exist(demo: Run, tmp_path: Path) -> None:
    result = demo("--images", tmp_path / "nowhere")
    assert result.exit_code == 2
    assert "nowhere" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_seed_belongs_to_the_samples(demo: Run, tmp_path: Path) -> None:
    result = demo("--images", photos(tmp_path / "parts", 1), "--seed", 1)
    assert result.exit_code == 2
    assert "--seed" in result.stderr


def test_without_scikit_image_the_command_says_so(demo: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dapo.demo, "find_spec", lambda name: None)
    result = demo()
    assert result.exit_code == 2
    assert "pip install 'dapo[demo]'" in result.stderr
    assert not Path("out").exists()


def test_only_an_earlier_demo_is_cleared(tmp_path: Path) -> None:
    kept = tmp_path / "overlay" / "mine.jpg"
    kept.parent.mkdir()
    kept.touch()
    clear(tmp_path, ("overlay",))
    assert kept.exists()
    for name in ("overview.png", "results.jsonl"):
        (tmp_path / name).touch()
    clear(tmp_path, ("overlay",))
    assert not kept.exists()


@given(count=st.integers(0, 500), most=st.integers(2, 40))
def test_evenly_spaced(count: int, most: int) -> None:
    paths = [Path(str(index)) for index in range(count)]
    taken = [int(path.name) for path in evenly(paths, most)]
    assert len(taken) == min(count, most)
    assert taken == sorted(set(taken))
    if count:
        assert taken[0] == 0
        assert taken[-1] == count - 1
        steps = np.diff(taken)
        assert steps.size == 0 or steps.max() - steps.min() <= 1
