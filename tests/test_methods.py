"""Methods: every file is whole, trains on any backbone, and differs from its base in what it states."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from labelled import labelled_tree
from safetensors.torch import load_file
from test_detector import LARGE, WORDS, pixels
from tiny import tiny_clip, tiny_tokenizer

import dapo
from dapo.cli.main import main
from dapo.config import DetectorSettings, ModelConfig, TowerTuning, TrainingSettings
from dapo.errors import ConfigError, ModelError
from dapo.learning import train
from dapo.learning.losses import IGNORE
from dapo.learning.methods import (
    ABLATIONS,
    BASELINES,
    METHODS,
    build_method_detector,
    load_method,
    merged,
    training_settings,
)
from dapo.learning.trainer import open_source, step_losses
from dapo.model.artifact import EMBEDDED, backbone_config, load, save
from dapo.model.clip import Clip, Tokenizer, save_clip

LEARNING = [name for name in METHODS if name != "clip"]
QUICK = {"batch": 4, "workers": 0, "precision": "fp32"}
CONTEXT = {"prompts.normal_context": (1, 5, 768), "prompts.abnormal_context": (1, 5, 768)}
ADAPTERS = {
    f"adapters.{m}.{leaf}": shape
    for m in range(4)
    for leaf, shape in (("weight", (768, 1024)), ("bias", (768,)))
}
LARGE_SHAPES: dict[str, dict[str, tuple[int, ...]]] = {
    "clip": {},
    "coop": CONTEXT,
    "anomalyclip": {**CONTEXT, "text_deep": (9, 4, 768)},
    "multiads": ADAPTERS,
    "dapo": {
        **dict.fromkeys(CONTEXT, (10, 5, 768)),
        **ADAPTERS,
        "text_deep": (12, 4, 768),
        "vision_deep": (24, 4, 1024),
    },
}
LARGE_COUNTS = {
    "clip": 0,
    "coop": 7_680,
    "anomalyclip": 7_680 + 27_648,
    "multiads": 3_148_800,
    "dapo": 76_800 + 36_864 + 98_304 + 3_148_800,
    "dapo-alpha-0": 3_360_768,
    "dapo-alpha-1": 3_360_768,
    "dapo-full-mask": 3_360_768,
    "dapo-no-adapters": 3_360_768 - 3_148_800,
    "dapo-no-anchors": 3_360_768,
    "dapo-no-deep-text": 3_360_768 - 36_864,
    "dapo-no-deep-vision": 3_360_768 - 98_304,
    "dapo-normal-phrase": 3_360_768,
    "dapo-one-group": 3_360_768 - 9 * 7_680,
    "dapo-unshifted-pool": 3_360_768,
}
DIFFERENCES: dict[str, dict[str, Any]] = {
    "dapo-alpha-0": {"text_deep.alpha": 0, "vision_deep.alpha": 0},
    "dapo-alpha-1": {"text_deep.alpha": 1, "vision_deep.alpha": 1},
    "dapo-full-mask": {"prompts.text_mask": "full"},
    "dapo-no-adapters": {"adapter": "none", "taps": (6, 12, 18, 24)},
    "dapo-no-anchors": {"prompts.normal_template": "{}", "prompts.abnormal_template": "{}"},
    "dapo-no-deep-text": {"text_deep.depth": 0},
    "dapo-no-deep-vision": {"vision_deep.depth": 0},
    "dapo-normal-phrase": {"prompts.normal_phrases": ("normal",)},
    "dapo-one-group": {"prompts.groups": 1},
    "dapo-unshifted-pool": {"prompts.text_pool": "unshifted"},
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled_tree(tmp_path_factory.mktemp("data") / "parts")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP with room for phrases that its tokenizer has to spell."""
    folder = tmp_path_factory.mktemp("clip") / "tiny"
    save_clip(tiny_clip(max_position_embeddings=160), folder)
    return folder


@pytest.fixture(scope="module")
def trained(tree: Path, backbone: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Model folder of a method after two steps, or so many; each is trained once."""
    done: dict[tuple[str, int], Path] = {}

    def folder_of(name: str, steps: int = 2) -> Path:
        if (name, steps) not in done:
            method = load_method(name).for_backbone(backbone_config(backbone))
            out = tmp_path_factory.mktemp("run") / name
            settings = training_settings(method, QUICK)
            done[name, steps] = train(out, data=tree, model=backbone, settings=settings, until=steps)
        return done[name, steps]

    return folder_of


def large() -> Clip:
    """ViT-L/14 at 336 px, without values."""
    with torch.device("meta"):
        return Clip(LARGE, Tokenizer.wrap(tiny_tokenizer()))


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested settings as {"a.b": c}."""
    if not isinstance(value, dict):
        return {prefix: value}
    return {
        k: v for key, inner in value.items() for k, v in flat(inner, f"{prefix}.{key}".strip(".")).items()
    }


# Files


def test_the_names() -> None:
    assert BASELINES == ("clip", "coop", "anomalyclip", "multiads", "dapo")
    assert set(ABLATIONS) == set(DIFFERENCES)
    assert set(METHODS) == set(LARGE_COUNTS)


@pytest.mark.parametrize("name", METHODS)
def test_every_file_is_whole(name: str) -> None:
    method = load_method(name)
    assert (method.name, method.settings.method) == (name, name)
    assert method.title
    assert method.learns == (name != "clip")
    if name in BASELINES:
        assert method.source.startswith("arXiv ")
        assert method.note.endswith(".")


def test_dapo_is_the_published_default() -> None:
    assert load_method("dapo").settings == TrainingSettings(method="dapo", detector=DetectorSettings())


@pytest.mark.parametrize("name", ABLATIONS)
def test_an_ablation_differs_in_what_it_states(name: str) -> None:
    ours, theirs = (flat(load_method(n).settings.model_dump(exclude={"method"})) for n in (name, "dapo"))
    differing = {key: ours[key] for key in ours if ours[key] != theirs[key]}
    assert differing == {f"detector.{key}": value for key, value in DIFFERENCES[name].items()}


def test_multiads_says_each_type_in_six_ways_or_more() -> None:
    prompts = load_method("multiads").detector.prompts
    assert len(set(prompts.abnormal_phrases or ())) >= 6
    assert len(set(prompts.templates or ())) >= 3
    assert load_method("multiads").detector.tau == 0.01


def write(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


def test_a_file_of_your_own(tmp_path: Path) -> None:
    """Sections are merged, lists and null replace, and a base may lie beside the file."""
    mine = {"title": "Mine", "base": "anomalyclip", "settings": {"lr": 0.1, "detector": {"tau": None}}}
    write(tmp_path / "mine.yaml", mine)
    more = {
        "title": "More",
        "base": "mine.yaml",
        "settings": {"detector": {"taps": [3], "prompts": {"groups": 2}}},
    }
    method = load_method(write(tmp_path / "more.yaml", more))
    assert (method.name, method.title, method.settings.lr) == ("more", "More", 0.1)
    expected = load_method("anomalyclip").detector
    prompts = expected.prompts.model_copy(update={"groups": 2})
    assert method.detector == expected.model_copy(update={"tau": None, "taps": (3,), "prompts": prompts})
    alone = load_method(str(write(tmp_path / "alone.yml", {"title": "Alone"})))
    assert alone.settings == TrainingSettings(method="alone", detector=DetectorSettings())
    assert merged({"a": {"b": 1, "c": [1]}, "d": 2}, {"a": {"c": [2]}, "d": {"e": 3}}) == {
        "a": {"b": 1, "c": [2]},
        "d": {"e": 3},
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"title": "x", "setting": {}}, r"mine\.yaml: unknown key 'setting'; known here: base, note"),
        (
            {"title": "x", "settings": {"lrr": 1}},
            r"mine\.yaml, settings: unknown key 'lrr'; known here: .*lr",
        ),
        ({"title": "x", "settings": {"detector": {"tua": 1}}}, r"mine\.yaml, settings: .*'detector\.tua'"),
        ({"title": "x", "settings": {"lr": -1}}, r"mine\.yaml, settings: lr: .* got -1"),
        ({"settings": {}}, r"mine\.yaml: title: Field required"),
        ({"title": "x", "base": "dap"}, r"got 'dap'; did you mean dapo"),
        ({"title": "x", "base": "mine.yaml"}, r"mine\.yaml is its own base"),
        ({"title": "x", "base": "none.yaml"}, r"none\.yaml cannot be read as YAML .*No such file"),
        ("[1]", r"mine\.yaml should hold a title and settings by name, it holds a list"),
        ("", r"it holds nothing"),
        ("a: [", r"mine\.yaml cannot be read as YAML"),
    ],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_method(write(tmp_path / "mine.yaml", content))
    assert "\n" not in str(caught.value)


def test_an_unknown_name_has_a_hint() -> None:
    with pytest.raises(ConfigError, match="got 'anomaly-clip'; did you mean anomalyclip"):
        load_method("anomaly-clip")
    with pytest.raises(ConfigError, match="got 'zzz'; known: clip, coop, anomalyclip, multiads, dapo"):
        load_method("zzz")


# Backbones


@pytest.mark.parametrize("name", METHODS)
def test_nothing_is_adapted_for_the_published_backbone(name: str) -> None:
    method = load_method(name)
    assert method.for_backbone(LARGE) == method


@pytest.mark.parametrize("name", METHODS)
def test_learned_tensors_of_the_published_backbone(name: str) -> None:
    state = build_method_detector(name, large()).learned_state()
    assert sum(tensor.numel() for tensor in state.values()) == LARGE_COUNTS[name]
    if name in LARGE_SHAPES:
        assert {key: tuple(tensor.shape) for key, tensor in state.items()} == LARGE_SHAPES[name]


def test_taps_of_the_published_backbone() -> None:
    taps = {name: build_method_detector(name, large()).taps for name in (*BASELINES, "dapo-no-adapters")}
    quarters = (6, 12, 18, 24)
    assert (taps.pop("clip"), taps.pop("coop")) == ((24,), (24,))
    assert set(taps.values()) == {quarters}


def test_what_does_not_fit_a_small_backbone_is_adapted_and_said() -> None:
    """Tiny: 3 text and 4 vision layers, patch 8, 32 px."""
    facts = tiny_clip().config
    method = load_method("anomalyclip").for_backbone(facts)
    assert method.detector.text_deep == TowerTuning(depth=2)  # 9 of 12 are 2.25 of 3
    assert method.detector.taps == (1, 2, 3, 4)
    assert method.detector.side is None
    assert method.adapted == (
        "deep tokens in 2 of 3 text layers, published in 9 of 12",
        "layers 1, 2, 3, 4 of 4 are tapped, published 6, 12, 18, 24 of 24",
        "images at the native 32 px, since the patch of 8 px does not divide the published 518 px",
    )
    dapo = load_method("dapo").for_backbone(facts)
    assert len(dapo.adapted) == 1
    assert dapo.detector == DetectorSettings(side=None)
    shapes = {k: tuple(v.shape) for k, v in build_method_detector(dapo, tiny_clip()).learned_state().items()}
    assert (shapes["text_deep"], shapes["vision_deep"]) == ((3, 4, 16), (4, 4, 24))


def test_layers_are_scaled_by_their_share_of_the_depth() -> None:
    half = dataclasses.replace(
        LARGE,
        text=dataclasses.replace(LARGE.text, layers=24),
        vision=dataclasses.replace(LARGE.vision, layers=2),
    )
    method = load_method("anomalyclip").for_backbone(half)
    assert method.detector.text_deep.depth == 18
    assert method.detector.taps == (1, 2)
    assert method.detector.side == 518


def test_building_does_not_train(backbone: Path) -> None:
    clip = tiny_clip(max_position_embeddings=160)
    detector = build_method_detector("clip", clip).eval()
    assert detector.learned_state() == {}
    with torch.no_grad():
        assert detector(pixels(), WORDS).types.shape == (3, 4, 4, 4)


# Training


@pytest.mark.parametrize("name", LEARNING)
def test_two_steps_then_an_image_in_other_words(name: str, trained: Any, tree: Path, backbone: Path) -> None:
    folder = trained(name)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["recipe"]["method"] == name
    before, after = (load_file(path / "model.safetensors") for path in (backbone, folder / "backbone"))
    assert all(torch.equal(before[key], after[key]) for key in {**before, **after})

    expected = build_method_detector(name, tiny_clip(max_position_embeddings=160)).learned_state()
    start, learned = (load_file(path / "model.safetensors") for path in (trained(name, 0), folder))
    assert {k: v.shape for k, v in learned.items()} == {k: v.shape for k, v in expected.items()}
    assert not [key for key in learned if torch.equal(learned[key], start[key])], "all of it has moved"

    image = next(tree.rglob("test/scratch/*.png"))
    result = dapo.Inspector.from_pretrained(folder, precision="fp32").inspect(image, ["zig zag", "odd spot"])
    assert set(result.types) == {"zig zag", "odd spot"}
    assert 0 <= result.score <= 1
    assert result.anomaly_map.std() > 0


@pytest.mark.parametrize("name", ["coop", "anomalyclip", "multiads"])
def test_there_and_back(name: str, trained: Any, tmp_path: Path) -> None:
    detector, _ = load(trained(name))
    again, _ = load(save(detector, tmp_path / "again", ModelConfig(name="again")))
    assert again.settings == detector.settings
    assert detector.settings == load_method(name).for_backbone(detector.clip).detector
    with torch.no_grad():
        x = pixels()
        detector.precision = again.precision = "fp32"
        for ours, theirs in zip(
            dataclasses.astuple(detector(x, WORDS)), dataclasses.astuple(again(x, WORDS)), strict=True
        ):
            assert ours is theirs is None or torch.equal(ours, theirs)


@torch.no_grad()
def test_a_folder_from_before_methods_reads_as_it_did(trained: Any, tmp_path: Path) -> None:
    folder = shutil.copytree(trained("dapo"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del config["detector"]["patch_attention"], config["recipe"]["method"]
    for key in ("abnormal_phrases", "binary_phrase"):
        del config["detector"]["prompts"][key]
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    old, new, x = load(folder)[0], load(trained("dapo"))[0], pixels()
    assert old.settings == new.settings
    assert torch.equal(old(x, WORDS).types, new(x, WORDS).types)


@pytest.mark.parametrize(
    ("model", "weights", "message"),
    [
        ("coop", "anomalyclip", "has a foreign weight 'text_deep'"),
        ("anomalyclip", "coop", "lacks weight 'text_deep'"),
        ("multiads", "coop", r"lacks weight 'adapters\.0\.bias' and 7 more"),
        ("dapo", "dapo-one-group", r"'prompts\.normal_context' has shape \(1, 5, 16\).* \(10, 5, 16\)"),
    ],
)
def test_weights_of_another_method_are_refused(
    model: str, weights: str, message: str, trained: Any, tmp_path: Path
) -> None:
    folder = shutil.copytree(trained(model), tmp_path / "model")
    shutil.copy(trained(weights) / "model.safetensors", folder)
    with pytest.raises(ModelError, match=message):
        load(folder)


def test_binary_training_learns_damaged_or_not(tree: Path) -> None:
    """Labels of all types are one; pixels nobody knows stay unknown; names have no say."""
    clip = tiny_clip(max_position_embeddings=160)
    method = load_method("anomalyclip").for_backbone(clip)
    detector, settings = build_method_detector(method, clip).train(), training_settings(method, QUICK)
    source = open_source(tree, settings, detector)
    batch = next(b for b in map(source.batch, range(2)) if len(b.pixels) > 1)
    labels = batch.labels.clone()
    labels[0, :2] = IGNORE
    labels[1, 2:4] = 2
    batch = dataclasses.replace(batch, labels=labels, vocabulary=WORDS)
    binary = batch.binary("damaged object")
    assert binary.vocabulary.names == ("damaged object",)
    assert (binary.labels[0, :2] == IGNORE).all()
    assert set(binary.labels.unique().tolist()) == {0, 1, IGNORE}
    losses = step_losses(detector, batch, settings)["loss"]
    renamed = dataclasses.replace(batch, labels=torch.where(labels == 2, 1, labels))
    torch.testing.assert_close(losses, step_losses(detector, renamed, settings)["loss"])
    losses.backward()
    assert detector.text_deep.grad.abs().sum() > 0


def test_changes_come_last_and_may_leave_nothing() -> None:
    method = load_method("coop").for_backbone(tiny_clip().config)
    settings = training_settings(method, {"lr": 0.5, "detector": {"prompts": {"context": 3}}})
    assert (settings.lr, settings.method) == (0.5, "coop")
    assert settings.detector is not None
    assert (settings.detector.prompts.context, settings.detector.prompts.groups) == (3, 1)
    assert training_settings(load_method("clip"), {"detector": {"adapter": "residual"}}).method == "clip"
    with pytest.raises(ConfigError, match=r"mine\.yaml: unknown key 'lrr'"):
        training_settings(method, {"lrr": 1}, "mine.yaml")
    with pytest.raises(ConfigError, match=r"nothing to learn.*dapo evaluate --method clip"):
        training_settings(load_method("clip"), {})


def test_sizes_of_a_backbone_without_its_weights(trained: Any, backbone: Path) -> None:
    facts = tiny_clip(max_position_embeddings=160).config
    read = backbone_config(backbone)
    assert read == backbone_config(trained("coop"))
    assert (read.text, read.vision, read.patch, read.side) == (
        facts.text,
        facts.vision,
        facts.patch,
        facts.side,
    )
    if (EMBEDDED / "config.json").is_file():
        assert backbone_config().vision.layers > 0


# The command line


def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *arguments: object) -> Any:
    monkeypatch.chdir(tmp_path)
    return CliRunner().invoke(main, ["train", *map(str, arguments)])


def test_method_then_config_then_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tree: Path, backbone: Path
) -> None:
    write(tmp_path / "mine.yaml", {**QUICK, "epochs": 1, "detector": {"prompts": {"context": 4}, "tau": 0.5}})
    arguments = ["--method", "anomalyclip", "--config", "mine.yaml", "--set", "detector.tau=0.2"]
    done = run(tmp_path, monkeypatch, "--data", tree, "--model", backbone, "--out", "run", *arguments)
    assert done.exit_code == 0, done.output
    assert "anomalyclip fitted to this backbone: deep tokens in 2 of 3 text layers" in done.stderr
    config = json.loads(Path("run/model/config.json").read_text(encoding="utf-8"))
    assert config["recipe"]["method"] == "anomalyclip"
    detector = config["detector"]
    assert (detector["tau"], detector["prompts"]["context"], detector["prompts"]["groups"]) == (0.2, 4, 1)
    assert detector["patch_attention"] == "value-value"
    assert "method: anomalyclip" in Path("run/model/README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "clip"], ["nothing to learn", "dapo evaluate --method clip"]),
        (["--method", "dap"], ["'dap'", "did you mean dapo"]),
        (["--method", "nowhere.yaml"], ["nowhere.yaml"]),
        (["--method", "coop", "--set", "detector.prompts.group=2"], ["detector.prompts.group"]),
    ],
)
def test_a_method_that_cannot_be_trained_is_one_sentence(
    arguments: list[str],
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tree: Path,
    backbone: Path,
) -> None:
    result = run(tmp_path, monkeypatch, "--data", tree, "--model", backbone, *arguments)
    assert result.exit_code == 2, result.output
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert all(word in result.stderr for word in words), result.stderr
    assert not (tmp_path / "out").exists()
