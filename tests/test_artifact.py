"""Model folders: what is written is read back, and what is not a whole folder is named in one sentence."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_clip_folder, tiny_detector, tiny_model_folder
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from dapo.config import DetectorSettings, ModelConfig, TrainingData
from dapo.errors import ConfigError, ModelError
from dapo.model import artifact
from dapo.model.artifact import load, save
from dapo.model.clip import Clip, ClipConfig, Tokenizer
from dapo.model.detector import Detector
from dapo.model.weights import read_json, write_json
from dapo.vocabulary import Vocabulary

WORDS = Vocabulary.of("scratch, hole")


@torch.no_grad()
def test_round_trip(tmp_path: Path) -> None:
    before = tiny_detector(tau=0.1, binary="max")
    config = ModelConfig(name="m", version="3", seed=5, threshold=0.4, metrics={"auroc": 0.9})
    after, info = load(save(before, tmp_path / "m", config))
    after.precision = "fp32"
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(after(x, WORDS).types, before(x, WORDS).types)
    assert after.settings == before.settings
    assert info.config == config.model_copy(update={"detector": before.settings})
    assert not any(p.requires_grad for p in after.parameters())
    assert not after.training
    assert list(tmp_path.iterdir()) == [tmp_path / "m"]  # nothing temporary stays


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_whoever_reads_other_files_reads_the_model(tmp_path: Path) -> None:
    usual = tmp_path / "any"
    usual.touch()
    folder = tiny_model_folder(tmp_path / "m")
    modes = {path.name: path.stat().st_mode for path in folder.rglob("*") if path.is_file()}
    assert modes == dict.fromkeys(modes, usual.stat().st_mode)


def test_weights_hold_only_what_was_learned(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "m")
    assert set(load_file(folder / "model.safetensors")) == set(tiny_detector().learned_state())
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    backbone = {
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert files == {"config.json", "model.safetensors", "README.md"} | {
        f"backbone/{name}" for name in backbone
    }


def test_half_precision_on_disk_is_single_in_memory(tmp_path: Path) -> None:
    config = ModelConfig(name="m")
    full, half = (
        save(tiny_detector(), tmp_path / kind, config, dtype=kind) for kind in ("float32", "float16")
    )
    for name in ("model.safetensors", "backbone/model.safetensors"):
        assert {t.dtype for t in load_file(half / name).values()} == {torch.float16}
    detector, _ = load(half)
    assert {p.dtype for p in detector.parameters()} == {torch.float32}
    exact, _ = load(full)
    torch.testing.assert_close(detector.vision_deep, exact.vision_deep, atol=1e-3, rtol=1e-3)


def test_saving_over_an_older_model_keeps_foreign_files_and_permissions(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "m", seed=1)
    (folder / "notes.txt").write_text("mine")
    first = load(folder)[1].sha256
    tiny_model_folder(folder, seed=2)
    assert (folder / "notes.txt").read_text() == "mine"
    assert load(folder)[1].sha256 != first
    assert folder.stat().st_mode & 0o777 == 0o755


def test_a_failed_save_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tiny_model_folder(tmp_path / "m", seed=1)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifact, "write_json", full_disk)
    with pytest.raises(OSError, match="No space left"):
        tiny_model_folder(folder, seed=2)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert list(tmp_path.iterdir()) == [folder]


def test_the_hash_follows_every_weight_and_setting(tmp_path: Path) -> None:
    folder = tiny_model_folder(tmp_path / "m")
    hashes = {load(folder)[1].sha256}
    for name in ("model.safetensors", "backbone/model.safetensors"):
        state = load_file(folder / name)
        key = sorted(state)[0]
        save_file({**state, key: state[key] + 1}, folder / name)
        hashes.add(load(folder)[1].sha256)
    write_json(folder / "config.json", {**read_json(folder / "config.json"), "threshold": 0.3})
    hashes.add(load(folder)[1].sha256)
    assert len(hashes) == 4


def test_the_card_names_data_licences_and_figures(tmp_path: Path) -> None:
    config = ModelConfig(
        name="tile model",
        description="For tiles.",
        licence="Apache-2.0",
        training_data=(TrainingData(name="generated", licence="Apache-2.0", note="no photographs"),),
        seed=7,
        recipe={"command": "dapo train --seed 7"},
        metrics={"image AUROC": 0.71},
    )
    card = (save(tiny_detector(), tmp_path / "m", config) / "README.md").read_text()
    for fact in (
        "# tile model 1",
        "For tiles.",
        "generated: Apache-2.0 (no photographs)",
        "seed: 7",
        "image AUROC: 0.71",
    ):
        assert fact in card
    own = save(tiny_detector(), tmp_path / "n", config, card="# Mine\n")
    assert (own / "README.md").read_text() == "# Mine\n"


def test_a_backbone_elsewhere_is_only_named(tmp_path: Path) -> None:
    clip = tiny_clip_folder(tmp_path / "clip")
    folder = save(tiny_detector(), tmp_path / "m", ModelConfig(name="m", backbone=str(clip)))
    assert not (folder / "backbone").exists()
    assert load(folder)[0].learned_state().keys() == tiny_detector().learned_state().keys()
    beside = save(tiny_detector(), tmp_path / "n", ModelConfig(name="n", backbone="../clip"))
    load(beside)
    absent = save(tiny_detector(), tmp_path / "o", ModelConfig(name="o", backbone="some-owner/some-clip"))
    with pytest.raises(ModelError, match="dapo pull some-owner/some-clip"):
        load(absent)


def test_a_clip_alone_gets_handwritten_prompts_and_says_so(tmp_path: Path) -> None:
    detector, info = load(tiny_clip_folder(tmp_path / "some-clip"))
    assert info.training_free
    assert info.name == "some-clip (handwritten prompts)"
    assert detector.settings == DetectorSettings.training_free()
    assert detector.learned_state() == {}
    assert detector.input_side == 32


def test_handwritten_phrases_of_a_model_folder(tmp_path: Path) -> None:
    """A folder without learned weights whose configuration carries its own words for a good part."""
    settings = DetectorSettings.training_free()
    prompts = settings.prompts.model_copy(update={"normal_phrases": ("good part",)})
    folder = tmp_path / "m"
    save(
        Detector(tiny_detector().clip, settings.model_copy(update={"prompts": prompts})),
        folder,
        ModelConfig(name="m"),
    )
    detector, info = load(folder)
    assert not info.training_free
    assert detector.prompts.normal == ("good part",)


def break_folder(folder: Path, what: str) -> None:
    """Damage a model folder in one way."""
    config, weights = folder / "config.json", folder / "model.safetensors"
    raw = read_json(config)
    state = load_file(weights)
    edits: dict[str, Any] = {
        "newer format": {**raw, "format": 2},
        "no format": {key: value for key, value in raw.items() if key != "format"},
        "unknown key": {**raw, "colour": "blue"},
        "bad value": {**raw, "threshold": 3},
        "bad nested value": {**raw, "detector": {**raw["detector"], "adapter": "cubic"}},
        "deeper": {**raw, "detector": {**raw["detector"], "text_deep": {"depth": 9}}},
        "groups": {**raw, "detector": {**raw["detector"], "prompts": {"groups": 5, "context": 3}}},
    }
    if what in edits:
        write_json(config, edits[what])
    elif what == "no config":
        config.unlink()
    elif what == "no weights":
        weights.unlink()
    elif what == "no backbone":
        (folder / "backbone").rename(folder / "elsewhere")
    elif what == "foreign weights":
        weights.write_bytes((folder / "backbone/model.safetensors").read_bytes())
    elif what == "missing weight":
        state.pop("text_deep")
        save_file(state, weights)
    elif what == "other backbone":
        backbone = read_json(folder / "backbone/config.json")
        stored = load_file(folder / "backbone/model.safetensors")
        wider = {k: torch.cat([v, v], -1) if k == "text_projection.weight" else v for k, v in stored.items()}
        backbone["projection_dim"] = 6
        narrow = {k: v[:6] if k.endswith("_projection.weight") else v for k, v in wider.items()}
        narrow["text_projection.weight"] = stored["text_projection.weight"][:6]
        save_file({k: v.contiguous() for k, v in narrow.items()}, folder / "backbone/model.safetensors")
        write_json(folder / "backbone/config.json", backbone)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("newer format", r"config.json has format 2, expected 1; install the dapo version"),
        ("no format", r"config.json has no format, expected 1"),
        ("unknown key", r"config.json: unknown key 'colour'; known here: backbone, defects"),
        ("bad value", r"config.json: threshold: .*less than or equal to 1, got 3"),
        ("bad nested value", r"detector.adapter: .*'linear', 'residual' or 'none', got 'cubic'"),
        ("deeper", r"do not fit: text_deep.depth is 9, but the tower has 3 layers"),
        ("groups", r"weight 'prompts.normal_context' has shape \(2, 3, 16\).*asks for \(5, 3, 16\)"),
        ("no config", r"expected the file .*config.json, which does not exist"),
        ("no weights", r"expected the weights file .*model.safetensors, which does not exist"),
        ("no backbone", r"expected the folder .*backbone, which does not exist"),
        ("foreign weights", r"model.safetensors lacks weight"),
        ("missing weight", r"model.safetensors lacks weight 'text_deep'"),
        ("other backbone", r"weight 'adapters.0.weight' has shape \(12, 24\).*asks for \(6, 24\)"),
    ],
)
def test_a_damaged_folder_is_named_in_one_sentence(tmp_path: Path, what: str, message: str) -> None:
    folder = tiny_model_folder(tmp_path / "m")
    break_folder(folder, what)
    with pytest.raises(ModelError, match=message) as caught:
        load(folder)
    assert "\n" not in str(caught.value)


def test_a_folder_of_another_model_type(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match="holds a model of type 'bert'; expected a DAPO model folder"):
        load(tmp_path)


def test_without_an_embedded_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(artifact, "EMBEDDED", tmp_path)
    with pytest.raises(ModelError, match="this installation has no embedded model"):
        load()


def test_settings_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValueError, match=r"needs one \{\}"):
        DetectorSettings(prompts={"templates": ["a photo"]})
    with pytest.raises(ValueError, match="above map_threshold"):
        ModelConfig(name="m", map_threshold=0.4, map_low=0.6)
    with pytest.raises(ValueError, match="frozen"):
        ModelConfig(name="m").name = "n"
    with pytest.raises(ConfigError, match=r"settings: unknown key 'x'"):
        from dapo.config import parse

        parse(ModelConfig, {"name": "m", "x": 1})


# A folder as it is published: ViT-L/14 at 336 px

LARGE: dict[str, Any] = {
    "architectures": ["CLIPModel"],
    "model_type": "clip",
    "projection_dim": 768,
    "logit_scale_init_value": 2.6592,
    "text_config": {
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "hidden_act": "quick_gelu",
        "bos_token_id": 0,
        "eos_token_id": 2,
    },
    "vision_config": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "image_size": 336,
        "patch_size": 14,
        "hidden_act": "quick_gelu",
    },
}


def large_tokenizer() -> Backend:
    """49,408 words, the begin and end tokens last, as in OpenAI's vocabulary."""
    words = ["[UNK]", "flawless", "object", "anomaly", "scratch", "hole"]
    words += [f"word{i}" for i in range(len(words), 49406)]
    ids = {word: i for i, word in enumerate([*words, "<|startoftext|>", "<|endoftext|>"])}
    backend = Backend(models.WordLevel(ids, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[("<|startoftext|>", 49406), ("<|endoftext|>", 49407)],
    )
    return backend


@pytest.mark.slow
@torch.no_grad()
def test_the_published_size_loads_and_runs(tmp_path: Path) -> None:
    """With random weights: as a plain CLIP, then as the backbone of a DAPO folder at 518 px."""
    folder = tmp_path / "clip-vit-large-patch14-336"
    folder.mkdir()
    backend = large_tokenizer()
    backend.save(str(folder / "tokenizer.json"))
    write_json(folder / "config.json", LARGE)
    with torch.device("meta"):
        names = Clip(ClipConfig.from_dict(LARGE), Tokenizer.wrap(backend)).hf_state()
    pool = (0.02 * torch.randn(5_000_011)).half()
    weights = {}
    for name, tensor in names.items():
        repeats = math.ceil(tensor.numel() / len(pool))
        weights[name] = pool.repeat(repeats)[: tensor.numel()].view(tensor.shape).clone()
    save_file(weights, folder / "model.safetensors")
    del weights

    plain, info = load(folder)
    assert info.training_free
    assert plain.side == 336
    assert plain(torch.rand(1, 3, 336, 336), WORDS).types.shape == (1, 2, 24, 24)

    learned = save(Detector(plain.clip), tmp_path / "m", ModelConfig(name="m", backbone=os.fspath(folder)))
    assert sum(t.numel() for t in load_file(learned / "model.safetensors").values()) == 3_360_768
    del plain
    detector, _ = load(learned)
    scores = detector(torch.rand(1, 3, 518, 518), WORDS)
    assert scores.types.shape == (1, 2, 37, 37)
    assert scores.binary.isfinite().all()
