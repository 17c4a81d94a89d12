"""Phrases as a text tower takes them in, and its features of them.

In: a CLIP and texts. Out: token ids, padded once for many draws, and joint features of any rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from dapo.model.clip import Clip

BUCKET = 64  # fewest phrases worth a forward pass of their own


class Corpus:
    """Token ids of phrases (n, max_length), padded, with lengths."""

    def __init__(self, clip: Clip, texts: Sequence[str]) -> None:
        words = clip.tokenizer
        room = clip.config.max_length - 2
        encoded = words.backend.encode_batch(list(texts), add_special_tokens=False)
        rows = [[words.bos, *one.ids[:room], words.eos] for one in encoded]
        self.lengths = torch.tensor([len(row) for row in rows])
        self.ids = torch.full((len(rows), room + 2), words.pad, dtype=torch.int32)
        for i, row in enumerate(rows):
            self.ids[i, : len(row)] = torch.tensor(row, dtype=torch.int32)

    def features(self, clip: Clip, rows: Tensor | slice) -> Tensor:
        """Un-normalised joint features of some rows; padding needs no mask, for nothing looks ahead.

        Rows of like length run together: half the time of one padded batch.
        """
        ids, lengths = self.ids[rows], self.lengths[rows]
        order = lengths.argsort(stable=True)
        parts = []
        for chunk in order.tensor_split(max(1, min(4, len(order) // BUCKET))):
            few = lengths[chunk]
            parts.append(clip.text(clip.text.embed(ids[chunk, : int(few.max())].long()), few - 1).float())
        return torch.cat(parts)[order.argsort()]


@torch.no_grad()
def phrase_features(clip: Clip, phrases: Sequence[str], *, batch: int = 512) -> Tensor:
    """Unit joint features (n, d) of plain phrases, [SOS] phrase [EOS], in float32."""
    corpus = Corpus(clip, phrases)
    parts = [corpus.features(clip, slice(i, i + batch)) for i in range(0, len(phrases), batch)]
    return functional.normalize(torch.cat(parts), dim=-1)
