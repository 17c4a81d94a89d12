"""``dapo train``: a dataset or generated scenes to a model folder, by settings in a file or on the line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result
from labelled import labelled_tree
from tiny import tiny_clip, tiny_settings

from dapo.cli.main import main
from dapo.cli.train import assign, put
from dapo.errors import ConfigError
from dapo.model.clip import save_clip

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_tree(tmp_path_factory.mktemp("data") / "parts")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clip") / "tiny"
    save_clip(tiny_clip(max_position_embeddings=160), folder)
    return folder


@pytest.fixture
def dapo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backbone: Path) -> Run:
    """``dapo train ARGUMENTS`` on a tiny backbone, exact, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    detector = tiny_settings().model_dump(mode="json")
    facts = {"detector": detector, "workers": 0, "precision": "fp32", "batch": 4, "epochs": 1}
    Path("tiny.yaml").write_text(yaml.safe_dump(facts), encoding="utf-8")

    def run(*arguments: object, config: str = "tiny.yaml") -> Result:
        line = ["train", "--model", backbone, "--config", config, *arguments]
        return CliRunner().invoke(main, [str(argument) for argument in line])

    return run


def test_a_dataset_becomes_a_model(dapo: Run, tree: Path) -> None:
    result = dapo("--data", tree, "--out", "run", "--seed", 3)
    assert result.exit_code == 0, result.output
    assert result.stdout.endswith("the model is in run/model\n")
    assert "step 5 of 5" in result.stderr
    config = json.loads(Path("run/model/config.json").read_text(encoding="utf-8"))
    assert config["seed"] == 3
    assert config["defects"] == ["pin hole", "scratch", "stain"]
    image = next(tree.rglob("test/scratch/*.png"))
    seen = CliRunner().invoke(main, ["inspect", str(image), "--model", "run/model", "--json"])
    assert seen.exit_code == 0, seen.output
    assert {row["name"] for row in json.loads(seen.stdout)["types"]} == set(config["defects"])


def test_generated_scenes_become_a_model(dapo: Run) -> None:
    result = dapo(
        "--dataset", "generated", "--samples", 8, "--out", "run", "--set", "generated.names=[2, 3]", "--json"
    )
    assert result.exit_code == 0, result.output
    outcome = json.loads(result.stdout)
    assert (outcome["model"], outcome["steps"], outcome["skipped"]) == ("run/model", 2, {})
    assert set(outcome["losses"]) == {"loss", "local", "global"}
    assert Path("run/model/model.safetensors").is_file()


def test_a_run_goes_on(dapo: Run, tree: Path) -> None:
    assert dapo("--data", tree, "--out", "run").exit_code == 0
    refused = dapo("--data", tree, "--out", "run")
    assert refused.exit_code == 2
    assert "--resume" in refused.stderr
    result = dapo("--data", tree, "--out", "run", "--resume", "--set", "epochs=2", "--json")
    assert json.loads(result.stdout)["steps"] == 10
    ended = dapo("--data", tree, "--out", "run", "--resume", "--set", "epochs=2")
    assert ended.exit_code == 0
    assert "had ended" in ended.stdout


def test_a_corrupt_image_is_exit_1(dapo: Run, tmp_path: Path) -> None:
    tree = labelled_tree(tmp_path / "data")
    broken = tree / "cup/test/good/2.png"
    broken.write_bytes(b"")
    result = dapo("--data", tree, "--out", "run", "--set", "epochs=2")
    assert result.exit_code == 1
    assert result.stderr.count("2.png") == 1, "named once, not in every epoch"
    assert "1 images skipped" in result.stdout
    assert Path("run/model/config.json").is_file()
    stopped = dapo("--data", tree, "--out", "other", "--set", "bad_images=stop")
    assert stopped.exit_code == 2
    assert "2.png" in stopped.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--data"]),
        (["--dataset", "generated", "--data", "x"], ["--data"]),
        (["--data", "x", "--samples", "3"], ["--samples", "generated"]),
        (["--data", "nowhere"], ["nowhere", "not a folder"]),
        (["--dataset", "generated", "--textures", "nowhere"], ["textures", "nowhere"]),
        (["--dataset", "generated", "--set", "lr"], ["a.b=c", "'lr'"]),
        (["--dataset", "generated", "--set", "lrr=1"], ["lrr", "lr"]),
        (["--dataset", "generated", "--set", "lr=fast"], ["lr", "fast"]),
        (["--dataset", "generated", "--set", "lr.x=1", "--set", "lr=2", "--set", "lr.x=1"], ["lr", "value"]),
        (["--dataset", "generated", "--set", "detector.prompts.groups=0"], ["detector.prompts.groups"]),
        (["--dataset", "generated", "--set", "lr=[1"], ["lr", "quote"]),
    ],
)
def test_wrong_usage_is_one_sentence(dapo: Run, arguments: list[str], words: list[str]) -> None:
    result = dapo(*arguments)
    assert result.exit_code == 2, result.output
    assert isinstance(result.exception, SystemExit)
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert all(word in result.stderr for word in words), result.stderr


def test_a_config_that_is_none(dapo: Run) -> None:
    for content, word in (("- a list", "list"), ("a: [", "YAML")):
        Path("bad.yaml").write_text(content, encoding="utf-8")
        result = dapo("--dataset", "generated", config="bad.yaml")
        assert result.exit_code == 2
        assert word in result.stderr
    missing = dapo("--dataset", "generated", config="missing.yaml")
    assert missing.exit_code == 2
    assert "missing.yaml" in missing.stderr


def test_settings_on_the_line() -> None:
    raw: dict[str, Any] = {"detector": None, "lr": 1}
    for change in ("detector.tau=0.1", "detector.taps=[4, 6]", "lr=1e-4", "ema=null", "name=a b"):
        put(raw, change)
    assert raw == {"detector": {"tau": 0.1, "taps": [4, 6]}, "lr": "1e-4", "ema": None, "name": "a b"}
    with pytest.raises(ConfigError, match="not a section"):
        assign(raw, "lr.x", 1)
    with pytest.raises(ConfigError, match=r"a\.b=c"):
        put(raw, "detector.=3")


def test_help_is_light_and_whole() -> None:
    text = CliRunner().invoke(main, ["train", "--help"]).stdout
    for option in (
        "--data",
        "--dataset",
        "--config",
        "--set",
        "--seed",
        "--resume",
        "--out",
        "--model",
        "--textures",
    ):
        assert option in text
