"""``dapo train --dataset NAME`` on every layout as its owner publishes it, and what the card says of it."""

from __future__ import annotations

import json
from pathlib import Path

import layouts
import pytest
import yaml
from click.testing import CliRunner, Result
from tiny import tiny_clip_folder, tiny_settings

from dapo.cli.main import main
from dapo.cli.options import DATASETS
from dapo.data.catalogue import DATASETS as CATALOGUE


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_clip_folder(tmp_path_factory.mktemp("clip") / "tiny")


def dapo_train(out: Path, backbone: Path, *arguments: object) -> Result:
    facts = {"detector": tiny_settings().model_dump(mode="json"), "workers": 0, "epochs": 1, "batch": 4}
    out.mkdir(exist_ok=True)
    (out / "tiny.yaml").write_text(yaml.safe_dump(facts), encoding="utf-8")
    line = ["train", "--model", backbone, "--config", out / "tiny.yaml", "--out", out / "run", *arguments]
    return CliRunner().invoke(main, [str(argument) for argument in line])


def test_names_on_the_command_line_are_the_catalogue() -> None:
    assert tuple(CATALOGUE) == DATASETS


@pytest.mark.parametrize("name", layouts.NAMES)
def test_every_layout_can_be_learned_from(tmp_path: Path, backbone: Path, name: str) -> None:
    root = tmp_path / "data"
    written = layouts.write(name, root)
    result = dapo_train(tmp_path / "out", backbone, "--data", root, "--dataset", name)
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "out/run/model/config.json").read_text(encoding="utf-8"))
    data = config["training_data"][0]
    count = sum(picture.split == "test" for picture in written.pictures)
    assert data["note"].startswith(f"{count} images, ")
    own = name in ("folder", "coco", "yolo", "label_studio")
    assert data["name"] == ("data" if own else CATALOGUE[name].title)
    assert data["licence"] == ("not stated" if own else CATALOGUE[name].licence)
    card = (tmp_path / "out/run/model/README.md").read_text(encoding="utf-8")
    assert ("not for commercial use" in card) == (name in ("mvtec", "mpdd", "real_iad"))


def test_some_products_and_a_variant(tmp_path: Path, backbone: Path) -> None:
    root = tmp_path / "data"
    layouts.write("mvtec", root)
    line = ("--data", root, "--dataset", "mvtec", "--products", "screw", "--variant")
    result = dapo_train(tmp_path / "out", backbone, *line, "front-as-fabric", "--set", "data_licence=mine")
    assert result.exit_code == 0, result.output
    config = json.loads((tmp_path / "out/run/model/config.json").read_text(encoding="utf-8"))
    assert "fabric" in config["defects"] and "bent" not in config["defects"]
    assert config["training_data"][0]["note"].endswith("1 products")
    assert config["training_data"][0]["licence"] == "mine"
    wrong = dapo_train(tmp_path / "out", backbone, *line, "nonsense")
    assert wrong.exit_code == 2 and "nonsense" in wrong.stderr


def test_wrong_names(tmp_path: Path, backbone: Path) -> None:
    root = tmp_path / "data"
    layouts.write("folder", root)
    cases = {
        ("--data", root, "--products", "bolt"): "bolt",
        ("--dataset", "mvtec"): "--data",
        ("--data", root, "--dataset", "other"): "mvtec",
        ("--dataset", "generated", "--products", "nut"): "--products",
        ("--data", root, "--track", "paper"): "tensorboard",
        ("--data", root, "--set", "held_out=[dent]"): "dent",
    }
    for number, (arguments, word) in enumerate(cases.items()):
        result = dapo_train(tmp_path / str(number), backbone, *arguments)
        assert result.exit_code == 2, arguments
        assert word in result.stderr, result.stderr
