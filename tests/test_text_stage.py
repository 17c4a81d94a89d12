"""The text-only stage on tiny sizes, with a toy teacher: what it learns, what it writes, that it resumes."""

from __future__ import annotations

import hashlib
import json
import string
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dapo.errors import DataError, ModelError
from dapo.model.clip import Clip, TowerConfig, build_clip
from dapo.pretraining import text
from dapo.pretraining.corpus import phrase_features
from dapo.pretraining.lexicon import NORMAL, Lexicon
from dapo.pretraining.phrases import PhraseStage, teach_phrases
from dapo.pretraining.reading import measure
from dapo.pretraining.sentences import general_phrases, trade_sentences
from dapo.pretraining.teacher import (
    SPECIAL,
    Teacher,
    build_tokenizer,
    cached_embeddings,
    prune_pieces,
)
from dapo.pretraining.text import TextStage

WIDTH = 24
WORDS = [
    "the", "a", "of", "and", "rusty", "wooden", "shiny", "photo", "crack", "red", "small", "steel", "rope",
    "with", "no", "hole", "rust", "clean",
]  # fmt: skip
STAGE = TextStage(
    width=32, layers=2, heads=2, joint=24, pieces=200, phrases=300, trade_phrases=40, steps=140,
    general_batch=32, trade_batch=32, rate=5e-3, warmup=5, checkpoint_every=40,
)  # fmt: skip

LEXICON = """
format: 1
types:
  - {id: hole, name: hole, group: opening, visual: hole, phrases: [hole, round hole], held_out: [small hole]}
  - {id: rust, name: rust, group: oxide, visual: rust, phrases: [rust, rusty], held_out: [red rust]}
  - {id: crack, name: crack, group: fracture, visual: crack, phrases: [crack, cracked], held_out: [cracks]}
normal: [flawless, clean, good, perfect, fine, sound, neat, okay, no fault, tidy]
materials: [steel]
surfaces: [plate]
objects: [rope]
"""


def word_vector(word: str) -> np.ndarray:
    seed = int.from_bytes(hashlib.sha256(word.encode()).digest()[:4], "big")
    return np.random.default_rng(seed).standard_normal(WIDTH).astype(np.float32)


def encode(texts: Sequence[str]) -> np.ndarray:
    rows = np.stack([sum(word_vector(word) for word in line.split()) for line in texts])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    letters = [*string.ascii_lowercase, *(f"##{c}" for c in string.ascii_lowercase)]
    pieces = ("[PAD]", "[CLS]", "é", "Big", "123", *letters, *(word for word in WORDS if len(word) > 1))
    return Teacher(encode, pieces, "toy")


@pytest.fixture(scope="module")
def lexicon(tmp_path_factory: pytest.TempPathFactory) -> Lexicon:
    path = tmp_path_factory.mktemp("lexicon") / "tiny.yaml"
    path.write_text(LEXICON, encoding="utf-8")
    return Lexicon.from_yaml(path)


@pytest.fixture(scope="module")
def trained(
    teacher: Teacher, lexicon: Lexicon, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("text")
    return out, text.train_text_tower(
        out, stage=STAGE, teacher=teacher, lexicon=lexicon, log=lambda line: None
    )


def fresh_clip(folder: Path, stage: TextStage = STAGE) -> Clip:
    size = len(json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"])
    config = text.text_config(stage, size, TowerConfig(16, 1, 2, 32), side=16, patch=8)
    return build_clip(config, folder)


def test_pruning_keeps_plain_pieces_fragments_and_the_lexicons_words() -> None:
    pieces = ["[PAD]", "Big", "é", "7", "123", "##ing", "the", "of", "burr", "##é", "x"]
    assert prune_pieces(pieces, ["burr"], size=4 + 5) == [
        *SPECIAL,
        "7",
        "##ing",
        "the",
        "burr",
        "x",
    ]


def test_the_tokenizer_loads_in_transformers_and_frames_a_phrase(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    build_tokenizer([*SPECIAL, "rust", "##y", "plate"], tmp_path, max_length=6)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path, local_files_only=True)
    batch = tokenizer(["Rusty plate", "rust é"], padding=True)
    assert batch["input_ids"] == [[2, 4, 5, 6, 3], [2, 4, 1, 3, 0]]
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 2, 3)
    assert tokenizer.model_max_length == 6


def test_general_phrases_are_different_repeatable_and_begin_with_the_words(lexicon: Lexicon) -> None:
    phrases = general_phrases(WORDS, lexicon, 200, seed=1)
    assert phrases[: len(WORDS)] == WORDS
    assert len(set(phrases)) == 200
    assert phrases == general_phrases(WORDS, lexicon, 200, seed=1) != general_phrases(WORDS, lexicon, 200, 2)


def test_trade_sentences_never_show_a_held_out_phrase() -> None:
    lexicon = Lexicon.builtin()
    sentences, labels = trade_sentences(lexicon, 3000, np.random.default_rng(0))
    assert labels.shape == (3000, 2)
    for type_index, kind in enumerate(lexicon.types):
        own = [
            line
            for line, label in zip(sentences, labels, strict=True)
            if tuple(label) == (type_index, type_index)
        ]
        assert own and all(any(phrase in line for phrase in lexicon.train_phrases(kind.id)) for line in own)


def test_a_negated_flaw_is_flawless() -> None:
    lexicon = Lexicon.builtin()
    sentences, labels = trade_sentences(lexicon, 3000, np.random.default_rng(0))
    flawless = len(lexicon.types)
    free = [label for line, label in zip(sentences, labels, strict=True) if "free of " in line]
    assert free and all(tuple(label) == (flawless, flawless) for label in free)


def test_anchors_have_the_lexicons_cosines() -> None:
    lexicon = Lexicon.builtin()
    points = text.anchors(lexicon, 256, seed=0)
    ids = (*lexicon.ids, NORMAL)
    wanted = torch.tensor([[lexicon.affinity(one, two) for two in ids] for one in ids])
    assert (points @ points.T - wanted).abs().max() < 0.1
    assert torch.equal(points, text.anchors(lexicon, 256, seed=0))


def test_anchors_fit_into_few_dimensions(lexicon: Lexicon) -> None:
    points = text.anchors(lexicon, 2, seed=0)
    assert points.shape == (4, 2)
    assert torch.allclose(points.norm(dim=-1), torch.ones(4))


def test_a_sentence_about_two_types_is_drawn_to_their_middle() -> None:
    points = torch.eye(3)
    labels = torch.tensor([[0, 1]])
    middle, one = torch.tensor([[0.5, 0.5, 0.0]]).sqrt(), torch.tensor([[1.0, 0.0, 0.0]])
    assert text.trade_loss(middle, points, labels, 0.1) < text.trade_loss(one, points, labels, 0.1)


def test_training_learns_general_language_and_types(trained: tuple[Path, dict[str, Any]]) -> None:
    _, figures = trained
    assert figures["general_cosine"]["mean"] > 0.5  # untrained: about 0
    assert figures["geometry"]["phrase_to_own_type"] > 0.9
    assert figures["geometry"]["flawless_to_types_max"] < 0


def test_the_written_tower_gives_the_same_features_again(
    trained: tuple[Path, dict[str, Any]], teacher: Teacher, lexicon: Lexicon
) -> None:
    out, figures = trained
    clip = text.load_text_tower(fresh_clip(out), out)
    assert measure(clip, lexicon, seed=STAGE.seed)["geometry"] == pytest.approx(figures["geometry"], abs=1e-3)
    assert json.loads((out / "figures.json").read_text()) == json.loads(json.dumps(figures))


def test_the_written_weights_are_a_hugging_face_text_tower(trained: tuple[Path, dict[str, Any]]) -> None:
    from transformers import AutoTokenizer, CLIPTextModelWithProjection

    out, _ = trained
    clip = text.load_text_tower(fresh_clip(out), out).eval()
    model, report = CLIPTextModelWithProjection.from_pretrained(
        out, output_loading_info=True, local_files_only=True, dtype=torch.float32
    )
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    batch = AutoTokenizer.from_pretrained(out, local_files_only=True)(
        ["rusty rope", "a hole"], padding=True, return_tensors="pt", return_token_type_ids=False
    )
    theirs = torch.nn.functional.normalize(model.eval()(**batch).text_embeds, dim=-1)
    assert torch.allclose(theirs, phrase_features(clip, ["rusty rope", "a hole"]), atol=1e-5)


def test_features_do_not_depend_on_the_batch(trained: tuple[Path, dict[str, Any]]) -> None:
    out, _ = trained
    clip = text.load_text_tower(fresh_clip(out), out)
    phrases = ["rust", "a small hole in the rope", "clean", "crack"]
    alone = torch.cat([phrase_features(clip, [phrase]) for phrase in phrases])
    assert torch.allclose(phrase_features(clip, phrases, batch=2), alone, atol=1e-5)
    assert torch.allclose(alone.norm(dim=-1), torch.ones(4), atol=1e-5)


def test_an_interrupted_run_ends_as_an_unbroken_one(
    trained: tuple[Path, dict[str, Any]], teacher: Teacher, lexicon: Lexicon, tmp_path: Path
) -> None:
    out, _ = trained

    def stop(line: str) -> None:
        if line.startswith("text 50/"):
            raise KeyboardInterrupt

    run = {"stage": STAGE, "teacher": teacher, "lexicon": lexicon}
    with pytest.raises(KeyboardInterrupt):
        text.train_text_tower(tmp_path, log=stop, **run)
    assert list(tmp_path.glob("text-stage-*/1-of-*.piece"))
    text.train_text_tower(tmp_path, log=lambda line: None, **run)
    assert (tmp_path / "model.safetensors").read_bytes() == (out / "model.safetensors").read_bytes()
    assert not list(tmp_path.glob("*text-stage-*"))


def test_a_checkpoint_of_other_settings_is_refused(
    teacher: Teacher, lexicon: Lexicon, tmp_path: Path
) -> None:
    def stop(line: str) -> None:
        if line.startswith("text 50/"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        text.train_text_tower(tmp_path, stage=STAGE, teacher=teacher, lexicon=lexicon, log=stop)
    with pytest.raises(DataError, match="other settings"):
        text.train_text_tower(tmp_path, stage=replace(STAGE, rate=1e-3), teacher=teacher, lexicon=lexicon)


def test_the_teacher_is_asked_once(teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dapo.pretraining.teacher.PART", 4)
    asked: list[int] = []

    def counting(texts: Sequence[str]) -> np.ndarray:
        asked.append(len(texts))
        return encode(texts)

    counted = replace(teacher, encode=counting)
    phrases = [f"word {i}" for i in range(10)]
    first = cached_embeddings(counted, phrases, tmp_path, lambda line: None)
    again = cached_embeddings(counted, phrases, tmp_path, lambda line: None)
    assert asked == [4, 4, 2]
    assert np.array_equal(first, again)
    assert np.allclose(first, encode(phrases), atol=1e-3)


def test_a_tower_of_other_sizes_is_refused(trained: tuple[Path, dict[str, Any]]) -> None:
    out, _ = trained
    with pytest.raises(ModelError, match="shape"):
        text.load_text_tower(fresh_clip(out, replace(STAGE, width=16)), out)
    with pytest.raises(ModelError, match="num_attention_heads 2, the given CLIP has 4"):
        text.load_text_tower(fresh_clip(out, replace(STAGE, heads=4)), out)


def test_new_phrases_go_to_their_types_and_what_was_known_stays(
    trained: tuple[Path, dict[str, Any]], lexicon: Lexicon, tmp_path: Path
) -> None:
    out, _ = trained
    path = tmp_path / "larger.yaml"
    path.write_text(
        LEXICON.replace("[hole, round hole]", "[hole, round hole, shiny wood]").replace(
            "[crack, cracked]", "[crack, cracked, photo the]"
        ),
        encoding="utf-8",
    )
    larger, clip = Lexicon.from_yaml(path), text.load_text_tower(fresh_clip(out), out)
    vision = {name: value.clone() for name, value in clip.vision.state_dict().items()}
    plainest = [lexicon.train_phrases(kind)[0] for kind in (*lexicon.ids, NORMAL)]
    general = ["red rope", "the steel", "wooden photo and red", "clean rope"]
    places, before = phrase_features(clip, plainest), phrase_features(clip, general)

    def nearest() -> list[int]:
        return (phrase_features(clip, ["shiny wood", "photo the"]) @ places.T).argmax(1).tolist()

    said: list[str] = []
    assert nearest() != [0, 2]
    stage = PhraseStage(steps=100, phrases=100, general_batch=32, trade_batch=32, rate=5e-3, warmup=5)
    teach_phrases(clip, larger, stage, said.append)
    assert nearest() == [0, 2]
    after = phrase_features(clip, plainest)
    assert (after * places).sum(1).min() > 0.95  # where the vision tower looks for them
    assert (phrase_features(clip, general) * before).sum(1).mean() > 0.8
    assert all(torch.equal(vision[name], value) for name, value in clip.vision.state_dict().items())
    assert "read as their types" in said[0] and "read as their types" in said[-1]
