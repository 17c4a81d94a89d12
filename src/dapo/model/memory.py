"""Memory: what the patches of good parts look like, and how far another patch is from all of them.

In: prepared pictures of good parts; out: a `Memory` of a few megabytes, which a detector takes beside the
words, and a file of it without pickle. A patch is described by the outputs of two middle layers of what
looked, the tower or the side network, each of unit length; the looks at a picture are remembered apart. What
is kept is a greedy k-centre coreset; the distance is one minus the cosine to the nearest. How large distances
are among the good parts themselves, each against the others, tells what is unusual.

Source: patch memory and coreset PatchCore (Roth et al., CVPR 2022, arXiv 2106.08265); few-shot use beside
words WinCLIP (2303.14814), APRIL-GAN (2305.17382).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.nn import functional as F

from dapo.errors import InputError, ModelError
from dapo.model.detector import Detector
from dapo.model.features import Features
from dapo.model.grid import resized
from dapo.model.precision import cpu_has_bf16
from dapo.model.weights import write_tensors

FORMAT = 1
CANDIDATES = 12_000  # patches of a scale among which the coreset is chosen
SKETCH = 64  # dimensions of the random projection in which it is chosen
CHUNK = 1024  # patches compared at once
NEAR = 3  # patches around a patch that a single picture does not compare it with
LARGEST = 8.0  # standard deviations beyond which a distance says nothing more
DOUBT = 2.0  # good parts of which the largest distance counts half, see `dapo.pretraining.references`
SEED = 0


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation of distances among good parts."""

    mean: float
    deviation: float

    @classmethod
    def of(cls, values: Tensor) -> Spread:
        return cls(float(values.mean()), max(float(values.std(unbiased=False)), 1e-4))

    def units(self, values: Tensor) -> Tensor:
        """In standard deviations from the mean, at most LARGEST."""
        return ((values - self.mean) / self.deviation).clamp(-LARGEST, LARGEST)


@dataclass(frozen=True)
class Memory:
    """Patches of good parts.

    banks: one for each look, unit-length (r, v), half precision. layers: 1-based, of the tower. patch, peak:
    of the distances of all patches, and of each part's largest. images: how many good parts there were.
    owners: which of them each patch is of, (r,), for `without`; not kept in files.
    """

    banks: tuple[Float[Tensor, "_ _"], ...]
    layers: tuple[int, ...]
    patch: Spread
    peak: Spread
    images: int
    owners: tuple[Int[Tensor, " _"], ...] = ()

    @property
    def megabytes(self) -> float:
        return sum(bank.numel() * bank.element_size() for bank in self.banks) / 1e6

    def to(self, device: torch.device) -> Memory:
        """The same on another device."""
        return replace(self, banks=tuple(bank.to(device) for bank in self.banks))

    def without(self, image: int) -> Memory:
        """What is remembered of the other parts, so that this one can be judged as if it were new."""
        pairs = list(zip(self.banks, self.owners, strict=True))
        banks = tuple(bank[(owner != image).to(bank.device)] for bank, owner in pairs)
        return replace(self, banks=banks, owners=())

    def distance(self, looks: Sequence[Features]) -> Float[Tensor, "b gh gw"]:
        """Mean over the scales of each patch's distance to the nearest remembered one, on the finest grid."""
        return joined(
            looks,
            [nearest(descriptor(look), bank) for look, bank in zip(looks, self.banks, strict=True)],
        )

    def unusual(
        self, distance: Float[Tensor, "b gh gw"]
    ) -> tuple[Float[Tensor, "b gh gw"], Float[Tensor, " b"]]:
        """Distances in standard deviations of the good parts: of each patch, and of the image's largest. That
        counts by k / (k + DOUBT): of k parts the spread of their largest is poorly known.
        """
        share = self.images / (self.images + DOUBT)
        return self.patch.units(distance), share * self.peak.units(distance.flatten(1).amax(1))


def descriptor(look: Features) -> Float[Tensor, "b n v"]:
    """Both layers side by side, unit-length."""
    return F.normalize(torch.cat(look.layers, dim=-1), dim=-1)


def nearest(patches: Float[Tensor, "b n v"], bank: Float[Tensor, "r v"]) -> Float[Tensor, "b n"]:
    """One minus the cosine to the nearest of the bank, at least 0."""
    kind = torch.bfloat16 if patches.device.type == "cpu" and cpu_has_bf16() else torch.float32
    keys = bank.to(kind).T
    flat = patches.flatten(0, 1).to(kind)
    best = [(part @ keys).amax(dim=1).float() for part in flat.split(CHUNK)]
    return (1 - torch.cat(best)).clamp_min(0).view(patches.shape[:2])


def joined(looks: Sequence[Features], distances: Sequence[Float[Tensor, "b _"]]) -> Float[Tensor, "b gh gw"]:
    """Maps of all scales on the finest grid, averaged."""
    rows, columns = max(look.rows for look in looks), max(look.columns for look in looks)
    maps = [
        resized(values.view(-1, 1, look.rows, look.columns), rows, columns)
        for look, values in zip(looks, distances, strict=True)
    ]
    return torch.stack(maps).mean(0)[:, 0]


def layers_of(detector: Detector) -> tuple[int, ...]:
    """The layers to remember: as set, else at one half and two thirds of the depth."""
    wanted, depth = detector.settings.references.layers, detector.clip.config.vision.layers
    if wanted is not None:
        return wanted
    if detector.settings.patch_attention == "value-value":  # its stream begins at the first tap
        return detector.taps[-2:]
    return tuple(dict.fromkeys((max(1, depth // 2), max(1, 2 * depth // 3))))


@torch.inference_mode()
def remember(detector: Detector, pictures: Iterable[Sequence[Float[Tensor, "3 hh ww"]]]) -> Memory:
    """The memory of good parts: of each its view, or its tiles, prepared for this detector.

    Raises InputError when there is none.
    """
    layers = layers_of(detector)
    device = detector.clip.logit_scale.device
    seen: list[tuple[int, list[Features]]] = []  # of each view: its part, and its descriptors at each scale
    parts = 0
    for views in pictures:
        for view in views:
            looks = detector.looks(view[None].to(device), layers)
            seen.append((parts, [light(look) for look in looks]))
        parts += 1
    if not seen:
        raise InputError("expected pictures of good parts to remember; got none. Name some.", kind="empty")
    banks, owners = zip(*(bank_of(detector, seen, scale) for scale in range(len(seen[0][1]))), strict=True)
    distances: list[list[Tensor]] = [[] for _ in range(parts)]
    for part, looks in seen:
        own = zip(looks, banks, owners, strict=True)
        distances[part].append(
            joined(looks, [left_out(look, bank, owner != part) for look, bank, owner in own]).flatten()
        )
    peaks = torch.stack([torch.cat(found).amax() for found in distances])
    patch = Spread.of(torch.cat([values for found in distances for values in found]))
    peak = Spread.of(peaks) if parts > 2 else Spread(float(peaks.mean()), patch.deviation)
    return Memory(banks, layers, patch, peak, parts, owners)


def bank_of(
    detector: Detector, seen: Sequence[tuple[int, list[Features]]], scale: int
) -> tuple[Float[Tensor, "r v"], Int[Tensor, " r"]]:
    """The coreset of one scale, and which part each patch of it is of."""
    patches = torch.cat([looks[scale].layers[0][0] for _, looks in seen])
    owner = torch.cat([torch.full((looks[scale].layers[0].shape[1],), part) for part, looks in seen])
    chooser = torch.Generator().manual_seed(SEED + scale)
    kept = coreset(patches, detector.settings.references.patches, chooser)
    return patches[kept], owner[kept.cpu()]


def light(look: Features) -> Features:
    """The descriptors alone, as one layer, in half precision."""
    return Features(look.cls[:, :0], [], look.rows, look.columns, [descriptor(look).half()])


def left_out(look: Features, bank: Tensor, others: Tensor) -> Float[Tensor, "1 n"]:
    """Distances of a good part to what is remembered of the others; of a single part, to its own patches
    further than NEAR away.
    """
    patches = look.layers[0]
    if others.any():
        return nearest(patches, bank[others.to(bank.device)])
    row, column = (
        index.flatten()
        for index in torch.meshgrid(torch.arange(look.rows), torch.arange(look.columns), indexing="ij")
    )
    apart = torch.maximum((row[:, None] - row).abs(), (column[:, None] - column).abs()) > NEAR
    if not apart.any():
        return torch.zeros(patches.shape[:2], device=patches.device)
    likeness = (patches[0].float() @ patches[0].float().T).masked_fill(~apart.to(patches.device), -1)
    return (1 - likeness.amax(dim=1)).clamp_min(0)[None]


def coreset(patches: Float[Tensor, "c v"], count: int, chooser: torch.Generator) -> Int[Tensor, " r"]:
    """Rows that lie so that every patch has one near: greedy k-centre in a random projection.

    Chosen among at most CANDIDATES patches.
    """
    rows = torch.randperm(len(patches), generator=chooser)[:CANDIDATES]
    if len(rows) <= count:
        return rows.sort().values.to(patches.device)
    projection = torch.randn(patches.shape[1], SKETCH, generator=chooser) / SKETCH**0.5
    sketch = patches[rows.to(patches.device)].float().cpu() @ projection
    square = sketch.square().sum(1)
    far = torch.full((len(rows),), torch.inf)
    chosen = [0]
    for _ in range(count - 1):
        last = sketch[chosen[-1]]
        far = torch.minimum(far, square - 2 * (sketch @ last) + last @ last)
        chosen.append(int(far.argmax()))
    return rows[torch.tensor(chosen)].to(patches.device)


def save_memory(memory: Memory, path: Path, backbone: str) -> None:
    """Write the file in one step. backbone: of the model, see `load_memory`. Raises ModelError."""
    tensors = {f"bank.{scale}": bank.half().cpu().contiguous() for scale, bank in enumerate(memory.banks)}
    facts = {
        "format": FORMAT,
        "backbone": backbone,
        "layers": memory.layers,
        "patch": [memory.patch.mean, memory.patch.deviation],
        "peak": [memory.peak.mean, memory.peak.deviation],
        "images": memory.images,
    }
    try:
        write_tensors(path, tensors, memory=json.dumps(facts))
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"the memory could not be saved to {path} ({error}); make room and try again"
        ) from error


def load_memory(path: Path, backbone: str) -> Memory:
    """The memory of a file. Raises ModelError when it is none, or of another model."""
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {})["memory"])
            banks = tuple(file.get_tensor(f"bank.{scale}") for scale in range(len(list(file.keys()))))
        memory = Memory(
            banks,
            tuple(facts["layers"]),
            Spread(*facts["patch"]),
            Spread(*facts["peak"]),
            int(facts["images"]),
        )
    except FileNotFoundError as error:
        raise ModelError(
            f"expected the memory of good parts in {path}; there is none. Calibrate again."
        ) from error
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is not a memory of good parts ({error}). Calibrate again.") from error
    if facts.get("format") != FORMAT or facts.get("backbone") != backbone:
        raise ModelError(
            f"{path} was made with another model ({facts.get('backbone')}, this one is {backbone}). "
            "Calibrate again with this model, or name the one it was made with."
        )
    return memory
