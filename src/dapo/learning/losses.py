"""Losses of method section 5: where the flaws are, what they are, and whether the image has any.

Goes in: cosines over the temperature (logits) of patches and of the image against the states, with masks;
comes out: one scalar to minimise. Everything is computed in float32.

Sources: DAPO (arXiv 2512.09446); focal loss Lin et al. (1708.02002); Dice loss Milletari et al. (1606.04797).
Axis names: b images, n = gh * gw patches, t states (0 = normal), s model side in pixels.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

LOCAL_WEIGHT = 4.0
GLOBAL_WEIGHT = 1.0
IGNORE = 255  # label of pixels that no loss looks at


def upsampled(
    probabilities: Float[Tensor, "b n t"], rows: int, columns: int, size: tuple[int, int]
) -> Tensor:
    """Patch probabilities to pixels, (b, t, height, width): bilinear, corners aligned."""
    grid = probabilities.mT.reshape(len(probabilities), -1, rows, columns)
    return F.interpolate(grid, size, mode="bilinear", align_corners=True)


def focal_loss(
    probabilities: Float[Tensor, "b t hh ww"], labels: Int[Tensor, "b hh ww"], gamma: float = 2.0
) -> Float[Tensor, ""]:
    """Mean of -(1 - p)^gamma log p of each pixel's true class, over the pixels that are not `IGNORE`."""
    known = labels != IGNORE
    true = probabilities.gather(1, labels.where(known, labels.new_zeros(())).long()[:, None])[:, 0]
    true = true.float().clamp_min(1e-6)  # log stays finite
    losses = -((1 - true) ** gamma) * true.log()
    return (losses * known).sum() / known.sum().clamp_min(1)


def names_loss(
    probabilities: Float[Tensor, "b t hh ww"], labels: Int[Tensor, "b hh ww"]
) -> Float[Tensor, ""]:
    """Mean over the defective pixels of -log p(true type | defective): which type, whatever normal says."""
    defective = (labels > 0) & (labels != IGNORE)
    types = probabilities[:, 1:].float()
    true = types.gather(1, (labels.where(defective, labels.new_ones(())) - 1).long()[:, None])[:, 0]
    share = (true / types.sum(1).clamp_min(1e-6)).clamp_min(1e-6)
    return -(share.log() * defective).sum() / defective.sum().clamp_min(1)


def dice_loss(
    probability: Float[Tensor, "b hh ww"],
    mask: Bool[Tensor, "b hh ww"],
    known: Bool[Tensor, "b hh ww"] | None = None,
) -> Float[Tensor, ""]:
    """1 - Dice coefficient of each image with smooth 1, averaged; `known` leaves pixels out."""
    p, m = probability.float().flatten(1), mask.float().flatten(1)
    if known is not None:
        p, m = p * known.flatten(1), m * known.flatten(1)
    return (1 - (2 * (p * m).sum(1) + 1) / (p.sum(1) + m.sum(1) + 1)).mean()


def local_loss(
    patch_logits: Sequence[Float[Tensor, "b n t"]],
    rows: int,
    columns: int,
    labels: Int[Tensor, "b hh ww"],
    dice_weight: float = 1.0,
    names_weight: float = 0.0,
) -> Float[Tensor, ""]:
    """Focal + dice_weight * (Dice(normal) + Dice(abnormal)), summed over the taps; published: dice_weight 1.

    names_weight: of `names_loss`, which is not part of the published method.
    patch_logits: one tensor a tap. labels: class of each pixel at the model's side, 0 = normal, `IGNORE` =
    unknown.
    """
    known = labels != IGNORE
    defective = (labels > 0) & known
    total = labels.new_zeros((), dtype=torch.float32)
    for logits in patch_logits:
        p = upsampled(logits.float().softmax(-1), rows, columns, (labels.shape[1], labels.shape[2]))
        dice = dice_loss(p[:, 0], ~defective, known) + dice_loss(p[:, 1:].sum(1), defective, known)
        total = total + focal_loss(p, labels) + dice_weight * dice
        if names_weight:
            total = total + names_weight * names_loss(p, labels)
    return total


def global_loss(image_logits: Float[Tensor, "b 2"], defective: Bool[Tensor, " b"]) -> Float[Tensor, ""]:
    """Cross-entropy of the image logits against [normal, abnormal]."""
    return F.cross_entropy(image_logits.float(), defective.long())


def total_loss(
    patch_logits: Sequence[Float[Tensor, "b n t"]],
    rows: int,
    columns: int,
    labels: Int[Tensor, "b hh ww"],
    image_logits: Float[Tensor, "b 2"],
    defective: Bool[Tensor, " b"],
) -> Float[Tensor, ""]:
    """4 * local + 1 * global."""
    local = local_loss(patch_logits, rows, columns, labels)
    return LOCAL_WEIGHT * local + GLOBAL_WEIGHT * global_loss(image_logits, defective)
