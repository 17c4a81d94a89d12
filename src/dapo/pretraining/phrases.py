"""New phrases for a text tower that images were learned with.

In: a CLIP whose towers speak one language already, and the lexicon as it is now. Out: the same CLIP, its text
tower retaught in place: every taught phrase of a type is drawn to where the tower has the type's plainest
one, so that the vision tower, which has learned these places, need not move; and general language is held
to what the tower said of it before. No teacher is needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from dapo.model.clip import Clip
from dapo.pretraining.corpus import Corpus, phrase_features
from dapo.pretraining.lexicon import NORMAL, Lexicon
from dapo.pretraining.reading import naming
from dapo.pretraining.sentences import general_phrases, trade_sentences
from dapo.pretraining.text import cosine, optimizers_of, set_rate, trade_loss


@dataclass(frozen=True)
class PhraseStage:
    """Settings of the lesson. Batches count phrases; `phrases` is the size of the general corpus."""

    seed: int = 0
    steps: int = 600
    phrases: int = 60_000
    general_batch: int = 192
    trade_batch: int = 192
    rate: float = 5e-4
    warmup: int = 20
    temperature: float = 0.1
    general_weight: float = 1.0


def teach_phrases(
    clip: Clip, lexicon: Lexicon, stage: PhraseStage, log: Callable[[str], None] = lambda line: None
) -> Clip:
    """Reteach `clip.text` in place with `lexicon`'s phrases; the clip itself."""
    rng = np.random.default_rng([stage.seed, 6])
    plainest = [lexicon.train_phrases(type_id)[0] for type_id in (*lexicon.ids, NORMAL)]
    places = phrase_features(clip, plainest)
    pieces = clip.tokenizer.backend.get_vocab()  # the most frequent first
    words = [word for word in sorted(pieces, key=pieces.__getitem__) if re.fullmatch("[a-z]{2,}", word)]
    general = Corpus(clip, general_phrases(words, lexicon, stage.phrases, stage.seed))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        before = torch.cat([general.features(clip, rows) for rows in torch.arange(stage.phrases).split(512)])

    def say() -> None:
        read = naming(lambda texts: np.asarray(phrase_features(clip, texts), np.float32), lexicon)
        log(f"phrases never taught are read as their types: {read}")

    say()
    clip.requires_grad_(False)
    clip.text.requires_grad_(True)
    optimizers = optimizers_of(clip, stage.rate, 0.0)
    for step in range(stage.steps):
        set_rate(optimizers, stage.rate * cosine(step, stage.warmup, stage.steps))
        rows = torch.from_numpy(rng.integers(len(general.ids), size=stage.general_batch))
        sentences, labels = trade_sentences(lexicon, stage.trade_batch, rng)
        with torch.autocast("cpu", torch.bfloat16):
            y = Corpus(clip, sentences).features(clip, slice(None))
            z = general.features(clip, rows)
        trade = trade_loss(
            functional.normalize(y, dim=-1), places, torch.from_numpy(labels), stage.temperature
        )
        moved = 1 - functional.cosine_similarity(z, before[rows]).mean()
        torch.autograd.backward(trade + stage.general_weight * moved)
        nn.utils.clip_grad_norm_(clip.text.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        if (step + 1) % 50 == 0:
            losses = f"trade loss {trade:.3f}, general language moved by {moved:.3f}"
            log(f"phrases {step + 1}/{stage.steps}: {losses}")
    say()
    return clip
