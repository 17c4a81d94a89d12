"""Batches of generated scenes as tensors, drawn by number so that any batch can be made again.

In: a `World`, the lexicon, batch numbers. Out: `Batch` tensors. Work is spread over worker processes by
`torch.utils.data.DataLoader`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dapo.pretraining.captions import caption
from dapo.pretraining.lexicon import Lexicon
from dapo.pretraining.scenes import Scene, World


@dataclass(frozen=True)
class Batch:
    """`pixels` uint8; `cover` share of each patch that is flawed; `kind` its family (index, -1 none);
    `present` families of the image.
    """

    pixels: UInt8[Tensor, "b 3 hh ww"]
    cover: Float[Tensor, "b n"]
    kind: Int[Tensor, "b n"]
    present: Float[Tensor, "b f"]
    captions: list[str]

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        pixels, cover = self.pixels.to(device), self.cover.to(device)
        return Batch(pixels, cover, self.kind.to(device), self.present.to(device), self.captions)


class _Scenes(Dataset[Batch]):
    """Batch number i of a world: scenes i*size .. i*size+size-1."""

    def __init__(
        self, world: World, lexicon: Lexicon, families: tuple[str, ...], size: int, side: int, patch: int
    ) -> None:
        self.world, self.lexicon, self.families = world, lexicon, families
        self.size, self.side, self.patch = size, side, patch

    def __len__(self) -> int:
        return 2**40

    def __getitem__(self, number: int) -> Batch:
        scenes = [self.world.scene(number * self.size + i, self.side, self.side) for i in range(self.size)]
        rng = np.random.default_rng([self.world.seed, 77, number])
        texts = [caption(scene, self.lexicon, rng) for scene in scenes]
        cover, kind, present = zip(*(self._labels(scene) for scene in scenes), strict=True)
        pixels = (
            torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2).contiguous()
        )
        return Batch(
            pixels,
            torch.from_numpy(np.stack(cover)),
            torch.from_numpy(np.stack(kind)),
            torch.from_numpy(np.stack(present)),
            texts,
        )

    def _labels(self, scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        g = self.side // self.patch
        shares = np.zeros((len(self.families), g * g), np.float32)
        for family, mask in scene.masks.items():
            cells = mask.reshape(g, self.patch, g, self.patch).mean((1, 3), dtype=np.float32)
            shares[self.families.index(family)] = cells.ravel()
        total = shares.sum(0)
        kind = np.where(total > 0, shares.argmax(0), -1)
        return total, kind.astype(np.int64), (shares.sum(1) > 0).astype(np.float32)


def stream(
    world: World,
    lexicon: Lexicon,
    *,
    families: tuple[str, ...],
    numbers: range,
    size: int,
    side: int,
    patch: int,
    workers: int,
) -> Iterator[Batch]:
    """Batches `numbers` in order; `workers` processes make them ahead of time (0: in this process)."""
    scenes = _Scenes(world, lexicon, families, size, side, patch)
    loader = DataLoader(
        scenes,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        collate_fn=_same,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
    )
    yield from loader


def _same(batch: Any) -> Any:
    return batch


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
