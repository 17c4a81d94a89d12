"""Background: what else a flaw might be, beyond the names that a user gave.

Goes in: text features of the user's states and of a vocabulary of common types, and the tapped patch
features; comes out, for each patch, how far the best of those common types is ahead of the best of the user's
names. Where that is high, none of the names fits. A softmax over the user's names alone cannot tell: it gives
all of the abnormal probability to the names that are there, however few they are.

Axis names: as in ``dapo.model.detector``; r rivals, the types of the background that may beat a name.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

ALIKE = (
    0.95  # of the pairs of background types: a type nearer to one of the names is that name in other words
)


def rivals(states: Float[Tensor, "t d"], common: Float[Tensor, "c d"]) -> Float[Tensor, "r d"]:
    """The common types' features that are not one of the user's states, normal (row 0) aside, in other words.

    How alike two words may be depends on the model, so the pairs of common types are the measure.
    """
    if len(common) < 2:
        return common[:0]
    cosines = common @ common.T
    pairs = cosines[~torch.eye(len(common), dtype=torch.bool, device=common.device)]
    return common[(common @ states[1:].T).amax(1) < pairs.quantile(ALIKE)]


def ahead(
    taps: Sequence[Float[Tensor, "b n d"]],
    states: Float[Tensor, "t d"],
    others: Float[Tensor, "r d"],
    sharpness: float | Tensor,
) -> Float[Tensor, "b n"]:
    """Probability of the best rival against the best of the names, mean over the taps; 0 without rivals."""
    if not len(others):
        return taps[0].new_zeros(taps[0].shape[:2])
    leads = [(tap @ others.T).amax(-1) - (tap @ states[1:].T).amax(-1) for tap in taps]
    return torch.stack([(lead * sharpness).sigmoid() for lead in leads]).mean(0)
