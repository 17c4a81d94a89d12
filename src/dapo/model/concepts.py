"""Concepts: the defect types a model was taught, and other words read as mixtures of them.

Goes in: text features of a user's types and of the types taught; come out: the user's features, drawn to what
they are nearest to. A small text tower lays the phrases it was taught close to their type, and one that it
never saw somewhere short of it: near enough to tell which type is meant, too far to win a patch against
types whose phrases it knows. Drawn to the mixture of the concepts it is read as, it speaks as loudly as they
do. It is drawn as far as the reading is sure: words that are near to nothing stay where they are.

Source: the projection onto a memory of known texts of DeCap (Li et al., ICLR 2023, arXiv 2303.03032).
Axis names: as in ``dapo.model.detector``; c concepts.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def readings(
    features: Float[Tensor, "k d"], concepts: Float[Tensor, "c d"], sharpness: float | Tensor
) -> Float[Tensor, "k c"]:
    """How much of each concept is read into each feature, all unit-length; rows add to 1.

    sharpness: inverse temperature of the softmax over the cosines, that of the detector.
    """
    return (features @ concepts.T * sharpness).softmax(-1)


def drawn(
    features: Float[Tensor, "k d"], concepts: Float[Tensor, "c d"], sharpness: float | Tensor
) -> Float[Tensor, "k d"]:
    """Unit-length features moved towards the mixtures they are read as, by the share of the best concept."""
    read = readings(features, concepts, sharpness)
    mixtures = F.normalize(read @ concepts, dim=-1)
    return F.normalize(features.lerp(mixtures, read.amax(-1, keepdim=True)), dim=-1)
