"""Concepts: other words are read as mixtures of what a model was taught, and as loudly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tiny import tiny_detector
from torch import Tensor
from torch.nn import functional as F

from dapo.config import Concepts, ModelConfig, PromptSettings, TowerTuning, TrainingSettings
from dapo.errors import ModelError
from dapo.learning.trainer import build_detector, published_for
from dapo.model.artifact import load, save
from dapo.model.concepts import drawn, readings
from dapo.model.detector import Detector
from dapo.pretraining.concepts import with_concepts
from dapo.pretraining.lexicon import Lexicon
from dapo.vocabulary import Defect, Vocabulary

SHARPNESS = 1 / 0.07


def directions(count: int, width: int = 32, seed: int = 0) -> Tensor:
    """Orthogonal unit vectors (count, width)."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(width, width, generator=generator)).Q[:count]


def near(target: Tensor, cosine: float, aside: Tensor) -> Tensor:
    """A unit vector at this cosine to `target`, the rest along `aside`, which is orthogonal to it."""
    return cosine * target + (1 - cosine**2) ** 0.5 * aside


def test_a_word_near_one_concept_becomes_it() -> None:
    *concepts, aside = directions(6)
    word = near(concepts[2], 0.7, aside)
    (found,) = drawn(word[None], torch.stack(concepts), SHARPNESS)
    assert float(found @ concepts[2]) > 0.99
    assert float(found.norm()) == pytest.approx(1, abs=1e-5)


def test_a_word_between_two_concepts_stays_between_them() -> None:
    *concepts, aside = directions(6)
    word = near(F.normalize(concepts[0] + concepts[1], dim=-1), 0.8, aside)
    (found,) = drawn(word[None], torch.stack(concepts), SHARPNESS)
    assert float(found @ concepts[0]) == pytest.approx(float(found @ concepts[1]), abs=1e-4)
    assert float(found @ concepts[0]) > float(word @ concepts[0])


def test_a_word_near_nothing_stays_where_it_is() -> None:
    *concepts, aside = directions(31)
    (found,) = drawn(aside[None], torch.stack(concepts), SHARPNESS)
    assert float(found @ aside) > 0.99


def test_readings_are_shares() -> None:
    rows = readings(directions(4, seed=1), directions(7), SHARPNESS)
    assert rows.shape == (4, 7)
    assert torch.allclose(rows.sum(-1), torch.ones(4))


@pytest.fixture(scope="module")
def taught() -> Detector:
    return with_concepts(tiny_detector(), Lexicon.builtin())


def test_a_detector_is_given_one_concept_a_type_of_its_own_prompts(taught: Detector) -> None:
    lexicon, plain = Lexicon.builtin(), tiny_detector()
    assert taught.settings.concepts == Concepts(names=lexicon.ids)
    assert taught.concepts is not None
    assert taught.concepts.shape == (len(lexicon.ids), plain.clip.config.dim)
    kind = lexicon.ids[3]
    own = plain.text_features(Vocabulary((Defect(kind, lexicon.train_phrases(kind)),)))[1]
    assert torch.allclose(taught.concepts[3], own, atol=1e-5)


def test_the_flawless_state_is_not_drawn_and_types_are(taught: Detector) -> None:
    words = Vocabulary.of(["scratch", "hole"])
    plain, moved = tiny_detector().text_features(words), taught.text_features(words)
    assert taught.concepts is not None
    assert torch.allclose(plain[0], moved[0], atol=1e-6)
    assert torch.allclose(moved[1:], drawn(plain[1:], taught.concepts, SHARPNESS), atol=1e-5)
    assert not torch.allclose(moved[1:], plain[1:], atol=1e-3)


def test_concepts_travel_with_the_model_folder(taught: Detector, tmp_path: Path) -> None:
    folder = save(taught, tmp_path / "model", ModelConfig(name="tiny"))
    again, _ = load(folder)
    again.precision = "fp32"
    words = Vocabulary.of(["scratch", "hole"])
    assert torch.allclose(again.text_features(words), taught.text_features(words), atol=1e-5)


def test_concepts_can_be_left_behind(taught: Detector) -> None:
    words = Vocabulary.of(["scratch", "hole"])
    plain = taught.changed(concepts=None)
    assert plain.concepts is None
    assert torch.allclose(plain.text_features(words), tiny_detector().text_features(words), atol=1e-6)


@pytest.mark.parametrize("start", ["fresh", "model"])
def test_learning_prompts_goes_on_without_them(taught: Detector, start: str) -> None:
    """They would hold every word where it is, whatever the prompts learn."""
    detector = build_detector(taught, TrainingSettings(start=start))
    assert detector.concepts is None
    assert detector.settings.prompts == taught.settings.prompts
    assert published_for(taught.clip).concepts is None


def test_a_model_of_handwritten_prompts_learns_context_at_its_own_settings() -> None:
    none = TowerTuning(depth=0)
    plain = tiny_detector(
        prompts=PromptSettings(kind="handwritten"), text_deep=none, vision_deep=none, adapter="none",
        taps=(2, 4), scales=(1.0, 0.5),
    )  # fmt: skip
    start = with_concepts(plain, Lexicon.builtin())
    with pytest.raises(ModelError, match="leave start out"):
        build_detector(start, TrainingSettings(start="model"))
    detector = build_detector(start, TrainingSettings())
    assert detector.settings.prompts.kind == "hybrid"
    assert (detector.taps, detector.settings.scales) == ((2, 4), (1.0, 0.5))
    assert {name.split(".")[0] for name in detector.learned_state()} == {"prompts", "text_deep"}


@pytest.mark.parametrize(
    ("word", "kind"),
    [("fissure", "crack"), ("ding", "dent"), ("sink mark", "dent"), ("whiskers", "hair")],
)
def test_the_embedded_model_hears_words_of_the_shop_floor_as_loud_as_its_own(word: str, kind: str) -> None:
    detector, _ = load()
    assert detector.settings.concepts is not None
    state = detector.text_features(Vocabulary.of([word]))[1]
    assert detector.concepts is not None
    cosines = F.normalize(detector.concepts, dim=-1) @ state
    assert detector.settings.concepts.names[int(cosines.argmax())] == kind
    assert float(cosines.max()) > 0.9
