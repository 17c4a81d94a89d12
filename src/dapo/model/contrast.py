"""Contrast: what a picture's flawed patches have that its good ones lack, compared with each type's words.

A patch feature tells of the surface too, and surfaces lean towards some words: brushed metal reads a little
like a scratch wherever it is. What both halves of one picture share cannot be the flaw. So the mean of the
good patches is taken from that of the flawed ones, and normal's text feature from each type's; the cosine of
the two differences says which type the anomaly map points at.

Axis names: b images, n patches, k defect types, d joint width.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

FLAWED_POWER, GOOD_POWER = 6.0, 2.0  # patches count by these powers of what the anomaly map gives and leaves
LEAST = 1e-6


def contrast(
    patches: Float[Tensor, "b n d"], abnormal: Float[Tensor, "b n"], states: Float[Tensor, "k1 d"]
) -> Float[Tensor, "b k"]:
    """Cosines of flawed less good patches with each type less normal.

    patches: unit-length. abnormal: their anomaly map, in [0, 1]. states: text features, normal first. A
    picture whose patches are all alike gives 0.
    """
    difference = _mean(patches, abnormal, FLAWED_POWER) - _mean(patches, 1 - abnormal, GOOD_POWER)
    directions = F.normalize(states[1:] - states[:1], dim=-1)
    return F.normalize(difference, dim=-1) @ directions.T


def _mean(patches: Float[Tensor, "b n d"], weight: Float[Tensor, "b n"], power: float) -> Tensor:
    """Weighted by this power, (b, d)."""
    shares = (power * weight.clamp_min(LEAST).log()).softmax(-1)
    return (shares[:, None] @ patches)[:, 0]
