"""A generated picture as the detector takes it in.

In: a detector and a uint8 picture (h, w, 3). Out: pixels (1, 3, H, W) in [0, 1], at the detector's side and
fit.
"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from dapo.images import prepare
from dapo.model.detector import Detector


def pixels_for(detector: Detector, image: NDArray[np.uint8]) -> Float[Tensor, "1 3 hh ww"]:
    """The picture, resized as `detector` wants it; on the CPU."""
    shown = prepare(image, detector.input_side, detector.clip.config.patch, detector.settings.fit)
    return torch.from_numpy(shown)[None]
