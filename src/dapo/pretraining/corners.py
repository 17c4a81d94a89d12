"""Corners of a side network's map: what it says there, fitted anew.

Goes in: a side network and pictures. Comes out: the same but for its last linear layer; the patch in each
corner of a picture then says what its neighbours say. The loss of the whole image asks the most abnormal
patches to be right by themselves, and most images are flawed: a patch that always says so is the cheapest way
there, and zero padding tells a corner from the rest. Version 0.5 called the top left corner of every picture
flawed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import product

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from dapo.model.clip import Clip
from dapo.model.side_network import SideNetwork
from dapo.pretraining.scenes import World

SIDES, BATCHES, BATCH = (112, 160, 224), 8, 16  # px of the pictures that corners are mended on, and how many
WEIGHT = 30.0  # of a corner against any other patch
RIDGE = 1e-3  # of the features' mean square


def corner_pictures(clip: Clip, world: World) -> Iterator[Float[Tensor, "b 3 hh ww"]]:
    """Normalised pixels of the first 384 scenes of `world`, in the sizes that a detector looks at."""
    for number, (side, _) in enumerate(product(SIDES, range(BATCHES))):
        scenes = [world.scene(number * BATCH + i, side, side).image for i in range(BATCH)]
        pixels = torch.from_numpy(np.stack(scenes)).to(clip.logit_scale.device).permute(0, 3, 1, 2)
        yield clip.normalise(pixels.float() / 255)


@torch.no_grad()
def mend_corners(side: SideNetwork, pictures: Iterable[Float[Tensor, "b 3 hh ww"]]) -> None:
    """Fit `side.out` by weighted least squares, in place: on all patches of these normalised pixels it says
    what it said, but in the corners the mean of their three neighbours.
    """
    device, width = side.out.weight.device, side.out.in_features + 1
    square = torch.zeros(width, width, device=device)
    wanted = torch.zeros(width, side.out.out_features, device=device)
    for pixels in pictures:
        seen = side(pixels)
        grid = (len(pixels), seen.rows, seen.columns, -1)
        features = F.pad(seen.layers[-1].float(), (0, 1), value=1.0).view(grid)
        said = seen.patches.float().view(grid)
        weight, change = torch.ones_like(said[..., 0]), torch.zeros_like(said)
        for row, down in ((0, 1), (-1, -2)):
            for column, over in ((0, 1), (-1, -2)):
                near = (said[:, row, over] + said[:, down, column] + said[:, down, over]) / 3
                change[:, row, column] = near - said[:, row, column]
                weight[:, row, column] = WEIGHT
        weighted = (features * weight[..., None]).flatten(0, 2)
        square += weighted.T @ features.flatten(0, 2)
        wanted += weighted.T @ change.flatten(0, 2)
    square += RIDGE * square.diagonal().mean() * torch.eye(width, device=device)
    fitted = torch.linalg.solve(square, wanted)
    side.out.weight.add_(fitted[:-1].T)
    side.out.bias.add_(fitted[-1])
