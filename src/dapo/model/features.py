"""What one look at pictures gave: the features of a tower or of the side network, in the joint space.

Axis names: b images, n patches, d joint width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """Unit-length float32 image features."""

    cls: Float[Tensor, "b d"]
    taps: list[Float[Tensor, "b n d"]]
    rows: int  # n = rows * columns
    columns: int
    layers: list[Float[Tensor, "b n _"]] = field(default_factory=list)  # unit-length, as the tower has them
    side: bool = False  # of the side network
