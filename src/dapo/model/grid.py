"""Maps on the patch grid: brought to another grid, and the mean of their top.

Axis names: b images, c maps, gh gw patch grid.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def resized(maps: Float[Tensor, "b c gh gw"], rows: int, columns: int) -> Tensor:
    """Maps on a grid of so many rows and columns, bilinear."""
    if maps.shape[2:] == (rows, columns):
        return maps
    return F.interpolate(maps, (rows, columns), mode="bilinear", align_corners=False)


def top_mean(maps: Float[Tensor, "*some gh gw"], share: float) -> Float[Tensor, "*some"]:
    """Mean of the highest `share` of each map's patches, at least one patch."""
    flat = maps.flatten(-2)
    return flat.topk(max(1, round(share * flat.shape[-1]))).values.mean(-1)
