"""Prompts say what the method says, in the user's words, for any number of types."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_clip, tiny_settings

from dapo.config import PromptSettings
from dapo.errors import VocabularyError
from dapo.model.prompts import (
    HandwrittenPrompts,
    HybridPrompts,
    average_states,
    build_prompts,
    gaussian_like_tokens,
)
from dapo.vocabulary import Defect, Vocabulary

SETTINGS = PromptSettings(groups=2, context=3)


def text_of(clip, embeddings: torch.Tensor, length: int) -> str:
    """Read token embeddings back by looking them up in the table; ? where they are no token."""
    table = clip.text.token_embedding.weight
    ids = [(table == row).all(1).nonzero().flatten().tolist() for row in embeddings[:length]]
    return " ".join(clip.tokenizer.backend.id_to_token(found[0]) if found else "?" for found in ids)


@torch.no_grad()
def test_layout_of_hybrid_prompts() -> None:
    clip = tiny_clip()
    prompts = HybridPrompts(clip, SETTINGS)
    vocabulary = Vocabulary((Defect("scratch", ("scratch", "long fine scratch")), Defect("hole")))
    batch = prompts(clip, vocabulary)
    assert batch.states == 3
    assert batch.state.tolist() == [0, 0, 1, 1, 1, 1, 2, 2]
    said = [text_of(clip, row, n) for row, n in zip(batch.embeddings, batch.lengths.tolist(), strict=True)]
    assert said[0] == said[1] == "[SOS] ? ? ? flawless object [EOS]"
    assert said[2] == "[SOS] ? ? ? scratch anomaly object [EOS]"
    assert said[4] == "[SOS] ? ? ? long fine scratch anomaly object [EOS]"
    assert said[7] == "[SOS] ? ? ? hole anomaly object [EOS]"
    assert [
        row[at].equal(clip.text.token_embedding.weight[3])
        for row, at in zip(batch.embeddings, batch.eos, strict=True)
    ]
    torch.testing.assert_close(batch.embeddings[0:2, 1:4], prompts.normal_context)
    for first in (2, 4, 6):  # one context, shared by every type and phrase
        torch.testing.assert_close(batch.embeddings[first : first + 2, 1:4], prompts.abnormal_context)


def test_learned_tensors_do_not_depend_on_the_vocabulary() -> None:
    prompts = HybridPrompts(tiny_clip(), SETTINGS)
    shapes = {name: tuple(p.shape) for name, p in prompts.named_parameters()}
    assert shapes == {"normal_context": (2, 3, 16), "abnormal_context": (2, 3, 16)}


@torch.no_grad()
def test_gaussian_start_has_the_statistics_of_the_tokens() -> None:
    table = torch.randn(500, 4) * torch.tensor([0.1, 1.0, 2.0, 3.0]) + torch.tensor([5.0, 0.0, -1.0, 2.0])
    drawn = gaussian_like_tokens(table, (4000, 4))
    torch.testing.assert_close(drawn.mean(0), table.mean(0), atol=0.2, rtol=0)
    torch.testing.assert_close(drawn.std(0), table.std(0), atol=0, rtol=0.1)


@torch.no_grad()
def test_start_at_words() -> None:
    clip = tiny_clip()
    words = PromptSettings(groups=2, context=3, context_init="words", context_words="a photo")
    prompts = HybridPrompts(clip, words)
    table = clip.text.token_embedding.weight
    expected = table[clip.tokenizer.words("a photo a")]
    distance = (prompts.normal_context - expected).abs().max()
    assert 0 < distance < table.std()
    assert not torch.equal(prompts.normal_context[0], prompts.normal_context[1])


@torch.no_grad()
def test_handwritten_prompts_fill_templates_with_phrases() -> None:
    clip = tiny_clip()
    settings = PromptSettings(
        kind="handwritten", normal_phrases=("good part",), templates=("{}", "a photo of {}")
    )
    prompts = build_prompts(clip, settings)
    assert isinstance(prompts, HandwrittenPrompts)
    assert list(prompts.parameters()) == []
    batch = prompts(clip, Vocabulary.of("scratch, hole"))
    said = [text_of(clip, row, n) for row, n in zip(batch.embeddings, batch.lengths.tolist(), strict=True)]
    assert said == [
        "[SOS] good part [EOS]",
        "[SOS] a photo of good part [EOS]",
        "[SOS] scratch [EOS]",
        "[SOS] a photo of scratch [EOS]",
        "[SOS] hole [EOS]",
        "[SOS] a photo of hole [EOS]",
    ]
    assert batch.state.tolist() == [0, 0, 1, 1, 2, 2]


@torch.no_grad()
def test_handwritten_prompts_say_a_type_in_several_ways() -> None:
    clip = tiny_clip()
    settings = PromptSettings(
        kind="handwritten",
        normal_phrases=("good part",),
        abnormal_phrases=("{}", "part with {}"),
        templates=("{}", "photo of {}"),
    )
    vocabulary = Vocabulary((Defect("scratch", ("scratch", "fine scratch")), Defect("hole")))
    batch = build_prompts(clip, settings)(clip, vocabulary)
    said = [text_of(clip, row, n) for row, n in zip(batch.embeddings, batch.lengths.tolist(), strict=True)]
    assert [text.removeprefix("[SOS] ").removesuffix(" [EOS]") for text in said] == [
        "good part",
        "photo of good part",
        "scratch",
        "photo of scratch",
        "part with scratch",
        "photo of part with scratch",
        "fine scratch",
        "photo of fine scratch",
        "part with fine scratch",
        "photo of part with fine scratch",
        "hole",
        "photo of hole",
        "part with hole",
        "photo of part with hole",
    ]
    assert batch.state.tolist() == [0] * 2 + [1] * 8 + [2] * 4
    with pytest.raises(ValueError, match=r"'part' needs one \{\}"):
        PromptSettings(abnormal_phrases=("part",))


@pytest.mark.parametrize("kind", ["hybrid", "handwritten"])
@torch.no_grad()
def test_binary_prompts_do_not_read_the_types(kind: str) -> None:
    clip = tiny_clip()
    settings = PromptSettings(
        kind=kind,
        groups=1,
        context=2,
        normal_phrases=("object",),
        normal_template="{}",
        abnormal_template="{}",
        templates=("{}",),
        binary_phrase="broken object",
    )
    batch = build_prompts(clip, settings)(clip, Vocabulary.of(["scratch", "hole", "裂纹"]))
    assert batch.states == 2
    assert batch.state.tolist() == [0, 1]
    context = "? ? " if kind == "hybrid" else ""
    said = [text_of(clip, row, n) for row, n in zip(batch.embeddings, batch.lengths.tolist(), strict=True)]
    assert said == [f"[SOS] {context}object [EOS]", f"[SOS] {context}broken object [EOS]"]


def test_averages_by_hand() -> None:
    batch = HandwrittenPrompts(PromptSettings(kind="handwritten"))(tiny_clip(), Vocabulary.of("hole"))
    features = torch.zeros(len(batch.state), 2)
    features[batch.state == 0] = torch.tensor([1.0, 0.0])
    first, second = (batch.state == 1).nonzero().flatten()[:2]
    features[first], features[second] = torch.tensor([4.0, 0.0]), torch.tensor([0.0, 3.0])
    plain = average_states(features, batch, normalise_each=False)
    torch.testing.assert_close(plain, torch.tensor([[1.0, 0.0], [0.8, 0.6]]))
    each = average_states(features, batch, normalise_each=True)
    torch.testing.assert_close(each[1], torch.tensor([0.5, 0.5]).sqrt())


def test_a_phrase_too_long_for_context_and_words_is_refused() -> None:
    prompts = HybridPrompts(tiny_clip(), SETTINGS)
    clip = tiny_clip()
    fits = " ".join(["hole"] * (77 - 2 - 3 - 2))
    assert prompts(clip, Vocabulary.of([fits])).eos.max() == 76
    with pytest.raises(VocabularyError, match="shorten it"):
        prompts(clip, Vocabulary.of([fits + " hole"]))


@pytest.mark.parametrize("kind", ["hybrid", "handwritten"])
def test_words_the_tokenizer_cannot_read_are_refused(kind: str) -> None:
    prompts = build_prompts(tiny_clip(), tiny_settings().prompts.model_copy(update={"kind": kind}))
    with pytest.raises(VocabularyError, match="cannot read the phrase '裂纹'"):
        prompts(tiny_clip(), Vocabulary.of(["裂纹"]))
