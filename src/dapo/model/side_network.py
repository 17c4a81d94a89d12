"""A side network: convolutions that look beside a frozen vision tower, into the same joint space.

Goes in: pixels as the tower gets them, (b, 3, h, w); comes out: `SideOutput`, a global and one patch feature
for every 8 px. A transformer must learn from pictures what a neighbourhood is, convolutions are built of it:
of a few hundred thousand pictures they learn what carries over to other pictures. The words know nothing of
it: what it sees lies beside the same text features. It tells whether and where something is wrong; which type
it is stays with the tower, where one looks (`dapo.model.detector`).

Four stages of residual blocks halve the grid each; at the coarsest, patches are compared with one another by
attention; the last three are joined on the grid of the third. It learns with batch normalisation, which is
folded into the convolutions when it is done (`folded`): such a network is what is stored and looked with.

Sources: Side-Tuning (Zhang et al., ECCV 2020, arXiv 1912.13503) for a network beside a frozen one;
ViT-Adapter (Chen et al., ICLR 2023, arXiv 2205.08534) for convolutions beside a transformer; residual blocks
1512.03385; attention on a coarse grid CoAtNet (2106.04803); stages joined FPN (1612.03144).
Axis names: b images, n patches, d joint width, w any width.
"""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dapo.errors import ModelError
from dapo.model.clip_config import TowerConfig
from dapo.model.grid import resized
from dapo.model.towers import Block
from dapo.model.weights import fill_weights, read_tensors, write_tensors

FILE = "side_network.safetensors"  # in the backbone's folder
STRIDE = 8  # px of a patch: the third stage's


@dataclass(frozen=True)
class SideConfig:
    """Sizes: features and residual blocks of the four stages, of the joined grid, and of the attention."""

    dim: int  # joint width d
    widths: tuple[int, int, int, int] = (32, 64, 128, 256)
    blocks: tuple[int, int, int, int] = (1, 2, 3, 2)
    joined: int = 192
    layers: int = 2  # of attention
    heads: int = 4
    hidden: int = 384  # of the global feature's last but one layer


@dataclass(frozen=True)
class SideOutput:
    """What a side network saw: nothing here is normalised to unit length."""

    cls: Float[Tensor, "b d"]
    patches: Float[Tensor, "b n d"]
    layers: list[Float[Tensor, "b n _"]]  # the third stage and the joined grid, as the network has them
    rows: int  # n = rows * columns
    columns: int


class Convolution(nn.Module):
    """3 x 3, with batch normalisation, or without after `folded`."""

    def __init__(self, before: int, after: int, stride: int = 1, *, normalised: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=not normalised)
        self.norm: nn.Module = nn.BatchNorm2d(after) if normalised else nn.Identity()

    def forward(self, x: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
        filtered: Tensor = self.norm(self.conv(x))
        return filtered

    def fold(self) -> None:
        """Put what the normalisation does on average into the convolution, in place."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv, self.norm = fuse_conv_bn_eval(self.conv, self.norm), nn.Identity()


class Residual(nn.Module):
    """Two convolutions, added to what came in."""

    def __init__(self, width: int, *, normalised: bool) -> None:
        super().__init__()
        self.a = Convolution(width, width, normalised=normalised)
        self.b = Convolution(width, width, normalised=normalised)
        if normalised:  # at first it adds nothing
            nn.init.zeros_(cast("nn.BatchNorm2d", self.b.norm).weight)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.b(F.relu(self.a(x))))


class SideNetwork(nn.Module):
    """normalised: with batch normalisation, to learn; without, as it is stored."""

    def __init__(self, config: SideConfig, *, normalised: bool = False) -> None:
        super().__init__()
        self.config = config
        stages, before = [], 3
        for width, blocks in zip(config.widths, config.blocks, strict=True):
            halved = Convolution(before, width, 2, normalised=normalised)
            rest = (Residual(width, normalised=normalised) for _ in range(blocks))
            stages.append(nn.Sequential(halved, nn.ReLU(), *rest))
            before = width
        self.stages = nn.ModuleList(stages)
        _, fine, middle, coarse = config.widths
        size = TowerConfig(coarse, config.layers, config.heads, 2 * coarse, "gelu_pytorch_tanh")
        self.compare = nn.ModuleList(Block(size) for _ in range(config.layers))
        for block in self.compare:
            for linear in (cast("Block", block).out, cast("Block", block).fc2):
                nn.init.zeros_(linear.weight)
                nn.init.zeros_(linear.bias)
        self.coarse = Convolution(coarse, config.joined, normalised=normalised)
        self.middle = Convolution(middle, config.joined, normalised=normalised)
        self.fine = Convolution(fine, config.joined, 2, normalised=normalised)
        self.mix = Residual(config.joined, normalised=normalised)
        self.out = nn.Linear(config.joined, config.dim)
        pooled = 2 * (config.joined + coarse)
        self.glob = nn.Sequential(
            nn.Linear(pooled, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.dim)
        )

    def forward(self, pixels: Float[Tensor, "b 3 hh ww"]) -> SideOutput:
        """Look at pixels that are normalised with the backbone's mean and standard deviation, of any size."""
        x = pixels.contiguous(memory_format=torch.channels_last)
        seen: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)
            seen.append(x)
        _, fine, middle, _ = seen
        x = self._compared(x)
        rows, columns = middle.shape[2:]
        coarse = resized(self.coarse(x).float(), rows, columns)
        joined = self.mix(F.relu(self.middle(middle) + coarse + self.fine(fine)))
        pooled = [joined.mean((2, 3)), joined.amax((2, 3)), x.mean((2, 3)), x.amax((2, 3))]
        return SideOutput(
            cls=self.glob(torch.cat(pooled, 1)),
            patches=self.out(_listed(joined)),
            layers=[_listed(middle), _listed(joined)],
            rows=rows,
            columns=columns,
        )

    def _compared(self, x: Float[Tensor, "b w rows columns"]) -> Float[Tensor, "b w rows columns"]:
        """Every place of the coarsest stage with every other."""
        tokens = _listed(x)
        for block in self.compare:
            tokens = block(tokens)
        return tokens.mT.reshape(x.shape).contiguous(memory_format=torch.channels_last)

    def folded(self) -> SideNetwork:
        """A copy without batch normalisation that says the same in evaluation mode."""
        other = copy.deepcopy(self).eval()
        for module in other.modules():
            if isinstance(module, Convolution):
                module.fold()
        return other


def _listed(grid: Float[Tensor, "b w rows columns"]) -> Float[Tensor, "b n w"]:
    return grid.flatten(2).mT


def save_side_network(side: SideNetwork, folder: Path, *, dtype: torch.dtype | None = None) -> None:
    """Write `FILE` into the folder of a backbone. Folds it if need be."""
    state = {name: t.detach().to("cpu", dtype).contiguous() for name, t in side.folded().state_dict().items()}
    write_tensors(folder / FILE, state, format="pt", sizes=json.dumps(asdict(side.config)))


def load_side_network(folder: Path) -> SideNetwork | None:
    """The side network of a backbone's folder, None where there is none. Raises ModelError for a file that is
    something else.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    state = read_tensors(path)
    try:
        with safe_open(path, framework="pt") as file:
            sizes = json.loads((file.metadata() or {})["sizes"])
        config = SideConfig(**{name: _sizes(value) for name, value in sizes.items()})
        with torch.device("meta"):
            side = SideNetwork(config)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{path} does not say the sizes of a side network ({error}); fetch or save the model again"
        ) from error
    fill_weights(side, {name: name for name in side.state_dict()}, state, str(path))
    return side.eval()


def _sizes(value: Any) -> Any:
    return tuple(int(one) for one in value) if isinstance(value, list) else int(value)
