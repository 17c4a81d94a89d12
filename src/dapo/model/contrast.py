"""Contrast: what a patch has that the picture's good patches lack, compared with each type's words.

A patch feature tells of the surface too, and surfaces lean towards some words: brushed metal reads a little
like a scratch wherever it is. What a patch shares with the good ones of its picture cannot be the flaw. So
their mean is taken from it, and normal's text feature from each type's; the cosine of the two differences
says which type it is. It says so of any patch: whether one is flawed is for the anomaly map.

Axis names: b images, n patches, k defect types, gh gw patch grid, d joint width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dapo.model.features import Features
from dapo.model.grid import resized

GLOBAL_SHARE = 0.5  # of the weight, between the types in the global feature
GOOD_POWER, FLAWED_POWER = 2.0, 6.0  # patches count by these powers of what the anomaly map leaves and gives
LEAST = 1e-6


def contrasted(
    seen: Sequence[Features],
    states: Float[Tensor, "t d"],
    binary: Float[Tensor, "b gh gw"],
    types: Float[Tensor, "b k gh gw"],
    overall: Float[Tensor, "b k"],
    weight: float,
) -> tuple[Float[Tensor, "b k gh gw"], Float[Tensor, "b k"]]:
    """Type maps and global type scores, moved between the types by the mean contrast of these looks.

    states: text features, normal first. binary: anomaly map. weight: log-odds for each of the cosine.
    """
    maps = []
    for look in seen:
        abnormal = resized(binary[:, None], look.rows, look.columns).flatten(1)
        cosines = contrast(torch.stack(look.taps).mean(0), abnormal, states)
        maps.append(resized(cosines.mT.unflatten(2, (look.rows, look.columns)), *binary.shape[1:]))
    found = weight * torch.stack(maps).mean(0)
    return moved(types, found), moved(overall, GLOBAL_SHARE * of_flawed(found, binary))


def contrast(
    patches: Float[Tensor, "b n d"], abnormal: Float[Tensor, "b n"], states: Float[Tensor, "t d"]
) -> Float[Tensor, "b n k"]:
    """Cosines of each patch less the good ones with each type less normal.

    patches: unit-length. abnormal: their anomaly map, in [0, 1]. states: text features, normal first.
    """
    good = _shares(1 - abnormal, GOOD_POWER)[:, None] @ patches
    directions = F.normalize(states[1:] - states[:1], dim=-1)
    return F.normalize(patches - good, dim=-1) @ directions.T


def of_flawed(
    contrasts: Float[Tensor, "b k gh gw"], abnormal: Float[Tensor, "b gh gw"]
) -> Float[Tensor, "b k"]:
    """Mean of the contrasts where the anomaly map is highest."""
    shares = _shares(abnormal.flatten(1), FLAWED_POWER)
    return (contrasts.flatten(2) @ shares[..., None])[..., 0]


def moved(probabilities: Float[Tensor, "b k *grid"], log_odds: Float[Tensor, "b k *grid"]) -> Tensor:
    """Probabilities of types (dimension 1), shifted between the types by these log-odds: their sum stays."""
    shares = (probabilities.clamp_min(LEAST).log() + log_odds).softmax(1)
    return shares * probabilities.sum(1, keepdim=True)


def _shares(weight: Float[Tensor, "b n"], power: float) -> Float[Tensor, "b n"]:
    """Of each patch in a mean weighted by this power."""
    return (power * weight.clamp_min(LEAST).log()).softmax(-1)
