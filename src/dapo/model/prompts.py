"""Prompts: sequences of token embeddings that describe a good part and each defect type.

Goes in: a CLIP (for its token table and tokenizer) and defect types in the user's own words; comes out: a
`PromptBatch` of embeddings, which the detector encodes. State 0 is normal, states 1..k are the defect types.
No learned tensor depends on the number or the names of the types: that is the open vocabulary.

Sources: hybrid prompts DAPO (arXiv 2512.09446) after CoOp (2109.01134); handwritten ensembles CLIP
(2103.00020).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from dapo.config import PromptSettings
from dapo.errors import VocabularyError
from dapo.model.clip import Clip
from dapo.vocabulary import Vocabulary

HYBRID_NORMAL = ("flawless",)
HANDWRITTEN_NORMAL = (
    "a flawless part",
    "a clean and even surface",
    "a perfect surface without any flaw",
    "an undamaged product in good condition",
)
HANDWRITTEN_TEMPLATES = ("{}", "a close up photo of {}", "a picture of a part with {}")
GROUP_SPREAD = 0.1  # of the token table's standard deviation: sets groups apart that start at the same words


@dataclass(frozen=True)
class PromptBatch:
    """Sequences ready for the text tower, before positions: the state of each, and where its EOS stands."""

    embeddings: Float[Tensor, "s len e"]
    eos: Int[Tensor, " s"]
    state: Int[Tensor, " s"]  # 0 = normal, i = the i-th defect type
    states: int  # t = k + 1, or 2 where prompts are binary

    @property
    def lengths(self) -> Int[Tensor, " s"]:
        """True lengths, EOS included."""
        return self.eos + 1


class HybridPrompts(nn.Module):
    """[SOS] learned context, words [EOS]; E contexts for normal, E for all defect types together."""

    normalise_each = False  # the features of a state are averaged as they are, then normalised

    def __init__(self, clip: Clip, settings: PromptSettings) -> None:
        super().__init__()
        self.settings = settings
        self.normal_context = nn.Parameter(self._initial(clip))  # (q, c, e)
        self.abnormal_context = nn.Parameter(self._initial(clip))  # (q, c, e)

    def _initial(self, clip: Clip) -> Float[Tensor, "q c e"]:
        table = clip.text.token_embedding.weight.detach()
        shape = (self.settings.groups, self.settings.context, table.shape[1])
        if self.settings.context_init == "gaussian":
            return gaussian_like_tokens(table, shape)
        ids = clip.tokenizer.words(self.settings.context_words)
        if not ids:
            raise VocabularyError(
                f"context_words {self.settings.context_words!r} holds no token; give plain words"
            )
        repeated = [ids[i % len(ids)] for i in range(self.settings.context)]
        return table[repeated] + GROUP_SPREAD * table.std(0) * torch.randn(shape, device=table.device)

    def forward(self, clip: Clip, vocabulary: Vocabulary) -> PromptBatch:
        """All sequences of all states: E groups times the phrases of each state."""
        normal, abnormal = self.settings.normal_template, self.settings.abnormal_template
        phrases = [(normal.format(phrase), 0) for phrase in self.settings.normal_phrases or HYBRID_NORMAL]
        spoken = abnormal_states(clip, vocabulary, self.settings)
        phrases += [(abnormal.format(phrase), k) for phrase, k in spoken]
        groups, context = self.normal_context.shape[:2]
        limit = clip.config.max_length - context
        ids, mask = clip.tokenizer.encode([text for text, _ in phrases], limit)
        device = self.normal_context.device
        fixed = clip.text.embed(ids.to(device))
        state = torch.tensor([k for _, k in phrases], device=device)
        learned = torch.stack([self.normal_context, self.abnormal_context])[
            (state > 0).long()
        ]  # (f, q, c, e)
        sos, rest = (part[:, None].expand(-1, groups, -1, -1) for part in (fixed[:, :1], fixed[:, 1:]))
        embeddings = torch.cat([sos, learned.to(fixed.dtype), rest], dim=2).flatten(0, 1)
        eos = (mask.sum(1).to(device) - 1 + context).repeat_interleave(groups)
        return PromptBatch(embeddings, eos, state.repeat_interleave(groups), spoken[-1][1] + 1)


class HandwrittenPrompts(nn.Module):
    """Photo templates filled with phrases; nothing is learned."""

    normalise_each = True  # as in CLIP's ensembles

    def __init__(self, settings: PromptSettings) -> None:
        super().__init__()
        self.settings = settings
        self.normal = settings.normal_phrases or HANDWRITTEN_NORMAL
        self.abnormal = settings.abnormal_phrases or ("{}",)
        self.templates = settings.templates or HANDWRITTEN_TEMPLATES

    def forward(self, clip: Clip, vocabulary: Vocabulary) -> PromptBatch:
        """All sequences of all states: templates times ways to say it times the phrases of each state."""
        spoken = abnormal_states(clip, vocabulary, self.settings)
        said = [(phrase, 0) for phrase in self.normal]
        said += [(form.format(phrase), k) for phrase, k in spoken for form in self.abnormal]
        texts = [(template.format(phrase), k) for phrase, k in said for template in self.templates]
        ids, mask = clip.tokenizer.encode([text for text, _ in texts], clip.config.max_length)
        device = clip.logit_scale.device
        state = torch.tensor([k for _, k in texts], device=device)
        embeddings = clip.text.embed(ids.to(device))
        return PromptBatch(embeddings, mask.sum(1).to(device) - 1, state, spoken[-1][1] + 1)


def build_prompts(clip: Clip, settings: PromptSettings) -> HybridPrompts | HandwrittenPrompts:
    """The prompts that the settings name."""
    return HybridPrompts(clip, settings) if settings.kind == "hybrid" else HandwrittenPrompts(settings)


def abnormal_states(clip: Clip, vocabulary: Vocabulary, settings: PromptSettings) -> list[tuple[str, int]]:
    """(phrase, state) from state 1 on: the user's types, or the one binary state whatever they are."""
    types = [defect.phrases for defect in vocabulary.defects]
    if settings.binary_phrase is not None:
        types = [(settings.binary_phrase,)]
    for phrases in types:
        check_phrases(clip, phrases)
    return [(phrase, k) for k, phrases in enumerate(types, start=1) for phrase in phrases]


def gaussian_like_tokens(table: Float[Tensor, "words e"], shape: Sequence[int]) -> Tensor:
    """Random tokens (..., e) with the mean and standard deviation of each dimension of the token table."""
    return table.mean(0) + table.std(0) * torch.randn(*shape, device=table.device)


def check_phrases(clip: Clip, phrases: Sequence[str]) -> None:
    """Raise VocabularyError for a phrase of which the tokenizer knows nothing at all."""
    for phrase in phrases:
        ids = clip.tokenizer.words(phrase)
        if clip.tokenizer.unknown(ids) == len(ids):
            raise VocabularyError(
                f"this model cannot read the phrase {phrase!r}: its tokenizer knows none of it; "
                "use other words"
            )


def average_states(
    features: Float[Tensor, "s d"], batch: PromptBatch, *, normalise_each: bool
) -> Float[Tensor, "t d"]:
    """One unit-length feature for each state: the mean of the features of its sequences, normalised."""
    if normalise_each:
        features = nn.functional.normalize(features, dim=-1)
    sums = features.new_zeros(batch.states, features.shape[1]).index_add(0, batch.state, features)
    return nn.functional.normalize(sums, dim=-1)  # the count of a state only scales it
