"""Good parts end to end: calibrate, save, load, inspect; the embedded model on generated product lines."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from tiny import tiny_model_folder

import dapo
from dapo.cli.main import main
from dapo.errors import ConfigError, InputError
from dapo.inspection import Inspection
from dapo.inspector import Inspector
from dapo.pretraining.lines import Line
from dapo.pretraining.scenes import World

Run = Callable[..., Result]


def plates(folder: Path, count: int, *, spot: bool = False, start: int = 0) -> list[Path]:
    """Grey plates with a seam; `spot` puts something bright onto each."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number in range(start, start + count):
        rng = np.random.default_rng(number)
        picture = rng.normal(110, 4, (48, 64, 3))
        picture[:, 30:34] -= 30
        if spot:
            y, x = rng.integers(4, 24, 2)
            picture[y : y + 16, x : x + 16] = 250
        paths.append(folder / f"{number:03d}.png")
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(paths[-1])
    return paths


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def inspector(model: Path) -> Inspector:
    return Inspector.from_pretrained(model, device="cpu", precision="fp32")


@pytest.mark.parametrize("references", [False, True])
def test_a_calibrated_inspector_comes_back_the_same_from_its_folder(
    inspector: Inspector, model: Path, tmp_path: Path, references: bool
) -> None:
    good = plates(tmp_path / "good", 20)
    out = tmp_path / "cal"
    made = dapo.calibrate(inspector, good, defects="scratch, hole", references=references, out=out)
    assert inspector.calibration is None  # the one given is left as it is
    again = Inspector.from_pretrained(model, device="cpu", precision="fp32", calibration=out)
    new = plates(tmp_path / "new", 6, start=100)
    for path in new:
        ours, theirs = made.inspect(path), again.inspect(path)
        assert ours.score == pytest.approx(theirs.score, abs=1e-5)
        np.testing.assert_allclose(ours.anomaly_map, theirs.anomaly_map, atol=1e-4)
    assert list(again.vocabulary().names) == ["scratch", "hole"]
    assert (out / "references.safetensors").is_file() == references
    result = again.inspect(new[0])
    assert result.calibrated
    assert result.threshold == 0.5
    assert "20 good parts" in result.calibration_statement
    assert set(result.to_dict()["calibration"]["type_thresholds"]) == {"scratch", "hole"}
    assert (result.verdict == "defective") == (result.raw_score >= again.calibration.promise().threshold)  # type: ignore[union-attr]


def test_at_most_the_promised_share_of_the_good_parts_themselves_alarms(
    inspector: Inspector, tmp_path: Path
) -> None:
    good = plates(tmp_path, 40)
    made = dapo.calibrate(inspector, good, false_alarm=0.1, references=False, defects="scratch")
    results = [made.inspect(path) for path in good]
    assert sum(result.verdict == "defective" for result in results) <= 4
    blank = [result for result in results if result.verdict == "ok"]
    assert sum(bool(result.regions) for result in blank) <= 4
    assert all(result.regions for result in results if result.verdict == "defective")
    lower = Inspector(made.detector, made.info, calibration=made.calibration, false_alarm=0.5)
    assert sum(lower.inspect(path).verdict == "defective" for path in good) == 20


def test_references_see_what_is_new(inspector: Inspector, tmp_path: Path) -> None:
    good = plates(tmp_path / "good", 20)
    made = dapo.calibrate(
        inspector, good, defects="scratch", defective=plates(tmp_path / "bad", 5, spot=True)
    )
    for path in plates(tmp_path / "spots", 5, spot=True, start=50):
        result = made.inspect(path)
        assert result.verdict == "defective"
        assert result.regions
    assert made.calibration is not None
    assert made.calibration.escapes is not None
    assert made.calibration.escapes["missed"] == 0


def test_other_words_tiles_or_models_are_not_what_was_calibrated(
    inspector: Inspector, model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "cal"
    dapo.calibrate(inspector, plates(tmp_path / "good", 20), defects="scratch, hole", out=out)
    calibrated = Inspector.from_pretrained(model, device="cpu", calibration=out)
    picture = plates(tmp_path, 1)[0]
    assert calibrated.inspect(picture, "scratch, hole").calibrated  # the same words may be said
    with pytest.raises(ConfigError, match=r"made for the words scratch, hole.*rust"):
        calibrated.inspect(picture, "rust")
    with pytest.raises(ConfigError, match=r"made with --tile off.*64"):
        Inspector.from_pretrained(model, device="cpu", calibration=out, tile=64)
    with pytest.raises(ConfigError, match=r"made with no --roi.*0,0 40,0 40,40"):
        Inspector.from_pretrained(model, device="cpu", calibration=out, roi="0,0 40,0 40,40")
    other = tiny_model_folder(tmp_path / "other", seed=1)
    with pytest.raises(ConfigError, match="made with the model tiny"):
        Inspector.from_pretrained(other, device="cpu", calibration=out)
    with pytest.raises(ConfigError, match=r"cannot promise 1 %.*4.76 %"):
        Inspector.from_pretrained(model, device="cpu", calibration=out, false_alarm=0.01)
    with pytest.raises(ConfigError, match="dapo calibrate --good"):
        Inspector.from_pretrained(model, device="cpu", false_alarm=0.05)
    (out / "references.safetensors").unlink()
    with pytest.raises(dapo.errors.ModelError, match="Calibrate again"):
        Inspector.from_pretrained(model, device="cpu", calibration=out)


def test_a_calibration_in_the_model_folder_is_found_and_changes_no_checksum(tmp_path: Path) -> None:
    model = tiny_model_folder(tmp_path / "tiny")
    plain = Inspector.from_pretrained(model, device="cpu")
    dapo.calibrate(plain, plates(tmp_path / "good", 20), defects="scratch", out=model)
    found = Inspector.from_pretrained(model, device="cpu")
    assert found.calibration is not None
    assert found.memory is not None
    assert found.info.sha256 == plain.info.sha256
    assert Inspector.from_pretrained(model, device="cpu", calibration=False).calibration is None
    by_hand = Inspector.from_pretrained(model, device="cpu", threshold=0.9)
    assert by_hand.threshold == 0.9
    assert "by hand" in by_hand.inspect(plates(tmp_path, 1)[0]).calibration_statement


def test_tiles_are_calibrated_and_remembered_as_tiles(model: Path, tmp_path: Path) -> None:
    tiled = Inspector.from_pretrained(model, device="cpu", tile=32)
    made = dapo.calibrate(tiled, plates(tmp_path / "good", 12), false_alarm=0.1, defects="scratch")
    assert made.calibration is not None
    assert made.calibration.setup == {"tile": "32"}
    assert made.memory is not None
    assert made.memory.images == 12
    picture = plates(tmp_path, 1, spot=True)[0]
    assert made.inspect(picture).verdict == "defective"
    judged = tiled.changed(memory=made.memory).inspect(picture, "scratch")
    assert made.inspect(picture).raw_score == judged.raw_score  # what is promised is what is asked


def test_unreadable_parts_are_told_or_raise(inspector: Inspector, tmp_path: Path) -> None:
    good = plates(tmp_path, 21)
    good[3].write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"003\.png"):
        dapo.calibrate(inspector, good, defects="scratch")
    told = []
    made = dapo.calibrate(inspector, good, defects="scratch", on_failure=told.append)
    assert [Path(failure.image).name for failure in told] == ["003.png"]
    assert made.calibration is not None
    assert len(made.calibration.scores) == 20


def test_references_help_on_generated_product_lines(tmp_path: Path) -> None:
    """The embedded model: good parts of a line lift what is found on it, words still name it."""
    plain = Inspector.from_pretrained(device="cpu", calibration=False)
    words = "scratch, hole, stain, crack, dent"
    without, found = [], []
    for number in (3, 4, 6):
        line = Line(World(seed=31, other=True), number, 160, 160)
        good = [line.scene(i, good=True).image for i in range(12)]
        made = dapo.calibrate(plain, good, false_alarm=0.1, defects=words)
        flawed = [scene.image for scene in (line.scene(i, good=False) for i in range(6)) if scene.masks]
        fresh = [line.scene(100 + i, good=True).image for i in range(6)]
        for inspector, kept in ((plain, without), (made, found)):
            bad, fine = (
                [r.raw_score for r in inspector.inspect(images, words)] for images in (flawed, fresh)
            )
            kept.append(np.mean([one > other for one in bad for other in fine]))
    assert np.mean(found) >= 0.9
    assert np.mean(found) >= np.mean(without)


@pytest.fixture
def run(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)

    def call(verb: str, *arguments: object) -> Result:
        line = [verb, *arguments, "--model", model, "--device", "cpu"]
        return CliRunner().invoke(main, [str(argument) for argument in line])

    return call


def test_the_command_says_what_it_promises(run: Run, tmp_path: Path) -> None:
    plates(tmp_path / "good", 20)
    plates(tmp_path / "bad", 4, spot=True)
    result = run("calibrate", "--good", "good", "--defects", "scratch", "--out", "cal", "--defective", "bad")
    assert result.exit_code == 0, result.output
    for words in ("20 good parts", "at most 5 %", "4.76 %", "escapes: 0 of 4", "--calibration cal"):
        assert words in result.stdout
    record = json.loads(run("calibrate", "--good", "good", "--out", "cal", "--json").stdout)
    assert record["false_alarm"] == 0.05


def test_too_few_parts_are_refused_before_any_is_looked_at(run: Run, tmp_path: Path) -> None:
    plates(tmp_path / "good", 20)
    for rate in ("0.5%", "0.005"):
        result = run("calibrate", "--good", "good", "--false-alarm", rate, "--out", "cal")
        assert result.exit_code == 2
        assert "cannot promise 0.5 %" in result.stderr
        assert "at least 199" in result.stderr
    assert not Path("cal").exists()
    assert "is not a rate" in run("calibrate", "--good", "good", "--false-alarm", "often").stderr
    assert run("calibrate", "--good", "nowhere", "--out", "cal").exit_code == 2


def test_a_line_gives_the_same_picture_twice_and_flaws_with_masks() -> None:
    line = Line(World(seed=1), 5, 96, 96)
    again = Line(World(seed=1), 5, 96, 96)
    assert np.array_equal(line.scene(2, good=False).image, again.scene(2, good=False).image)
    assert not np.array_equal(line.scene(1, good=True).image, line.scene(2, good=True).image)
    assert not line.scene(0, good=True).masks
    flawed = [line.scene(i, good=False) for i in range(5)]
    assert sum(bool(scene.masks) for scene in flawed) >= 4
    assert {scene.part for scene in flawed} == {line.scene(0, good=True).part}
    other = Line(World(seed=1), 6, 96, 96)
    assert not np.array_equal(line.scene(0, good=True).image, other.scene(0, good=True).image)
    assert all(isinstance(scene.image, np.ndarray) and scene.image.shape == (96, 96, 3) for scene in flawed)


def test_inspections_of_calibrated_parts_fit_the_schema(inspector: Inspector, tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    from dapo.inspection import json_schema

    made = dapo.calibrate(inspector, plates(tmp_path, 20), defects="scratch")
    result = made.inspect(plates(tmp_path, 1, spot=True, start=70)[0])
    assert isinstance(result, Inspection)
    jsonschema.validate(result.to_dict(), json_schema())
