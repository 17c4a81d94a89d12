"""Training examples: labelled datasets and generated scenes, in batches that each speak of one list of names.

Goes in: `Sample`s, or the second generated world; comes out: `Batch`, pixels with a class for each of them.
A batch is a function of the seed and its number alone, so that a run can go on wherever it stopped.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from dapo.config import GeneratedSettings, TrainingData
from dapo.data import Sample, types_of
from dapo.data.taxonomy import plain
from dapo.errors import ConfigError, DataError, InputError
from dapo.images import load_image, prepare
from dapo.learning.losses import IGNORE
from dapo.pretraining.lexicon import Lexicon
from dapo.pretraining.scenes import World
from dapo.pretraining.surfaces import Textures
from dapo.vocabulary import Defect, Vocabulary

COVERED = 0.35  # share of a pixel at the model's side from which it is defective, as in generated scenes
NON_COMMERCIAL = re.compile(r"\bnc\b|non[- ]?commercial", re.IGNORECASE)
WORLD = 2000  # the second generated world is number 2000 + seed; the backbone has seen the first, 1000 + seed


@dataclass(frozen=True)
class Batch:
    """Images of one vocabulary. `labels`: 0 = normal, i = its i-th defect type, `IGNORE` = unknown.

    failures: what could not be read and is not in here, {path: why}.
    """

    vocabulary: Vocabulary
    pixels: Float[Tensor, "b 3 hh ww"]  # in [0, 1]
    labels: Int[Tensor, "b hh ww"]
    defective: Bool[Tensor, " b"]
    failures: Mapping[str, str]

    def binary(self, phrase: str) -> Batch:
        """The same with all types as one, called `phrase`."""
        labels = torch.where(self.labels == IGNORE, self.labels, self.labels.clamp(max=1))
        return replace(self, vocabulary=Vocabulary((Defect(phrase),)), labels=labels)

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        pixels, labels, defective = (x.to(device) for x in (self.pixels, self.labels, self.defective))
        return replace(self, pixels=pixels, labels=labels, defective=defective)


class Source(Protocol):
    """Where batches come from."""

    @property
    def defects(self) -> tuple[str, ...] | None:
        """Names the trained model asks for by itself; None = those of the model it began from."""

    def steps(self, epochs: int, share: int) -> int:
        """How many steps there are, of at most `share` batches each."""

    def numbers(self, step: int, share: int) -> range:
        """The batches of step 0 <= step < steps."""

    def batch(self, number: int) -> Batch:
        """A batch, whatever was asked for before."""

    def facts(self) -> dict[str, Any]:
        """What must be the same for a run to go on."""

    def card(self, licence: str) -> TrainingData:
        """How a model card names it."""


class Labelled:
    """The images of a dataset; the images of a batch show one product, so that they share its list of types.

    A product without any defect type is judged by the types of all. held_out: types whose images are left
    out. Raises DataError when there is nothing to learn from.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        *,
        name: str,
        batch: int,
        seed: int,
        side: int,
        patch: int,
        fit: Literal["squash", "aspect"] = "squash",
        held_out: Sequence[str] = (),
    ) -> None:
        samples = without(samples, held_out, name)
        everything = types_of(samples)
        if not everything:
            raise DataError(
                f"expected images with defects in {name}; all {len(samples)} are good. Training needs some "
                "of each type, in test/TYPE."
            )
        if len(everything) >= IGNORE:
            raise DataError(
                f"expected fewer than {IGNORE} defect types in {name}; got {len(everything)}. Merge some."
            )
        self.name, self.size, self.seed = name, batch, seed
        self.side, self.patch, self.fit = side, patch, fit
        self.products: dict[str, list[Sample]] = {}
        for sample in samples:
            self.products.setdefault(sample.product, []).append(sample)
        self.types = {product: types_of(own) or everything for product, own in self.products.items()}
        self.names = tuple(dict.fromkeys(spoken(name) for name in everything))
        self._planned: tuple[int, list[list[Sample]]] = (-1, [])

    @property
    def defects(self) -> tuple[str, ...]:
        """The types of all products."""
        return self.names

    def steps(self, epochs: int, share: int) -> int:
        """Every image once an epoch; no step goes over its end."""
        return epochs * math.ceil(self._per_epoch() / share)

    def numbers(self, step: int, share: int) -> range:
        """The next `share` batches of the epoch, or what is left of it."""
        length = self._per_epoch()
        epoch, place = divmod(step, math.ceil(length / share))
        return range(length * epoch + share * place, length * epoch + min(share * (place + 1), length))

    def _per_epoch(self) -> int:
        return sum(math.ceil(len(own) / self.size) for own in self.products.values())

    def batch(self, number: int) -> Batch:
        """Images that cannot be read are left out and named."""
        epoch, place = divmod(number, self._per_epoch())
        if self._planned[0] != epoch:
            self._planned = (epoch, self._plan(epoch))
        chosen = self._planned[1][place]
        types = self.types[chosen[0].product]
        read: list[tuple[NDArray[np.float32], NDArray[np.int64], bool]] = []
        failures: dict[str, str] = {}
        for sample in chosen:
            try:
                read.append((*self._example(sample, types), sample.defective))
            except (InputError, DataError) as error:
                failures[str(sample.image)] = str(error)
        vocabulary = Vocabulary(tuple(Defect(name, (spoken(name),)) for name in types))
        height, width = read[0][0].shape[1:] if read else (self.side, self.side)
        pixels = torch.empty(len(read), 3, height, width)
        labels = torch.empty(len(read), height, width, dtype=torch.int64)
        for i, (image, truth, _) in enumerate(read):
            pixels[i], labels[i] = same_size(torch.from_numpy(image), torch.from_numpy(truth), height, width)
        defective = torch.tensor([flag for *_, flag in read], dtype=torch.bool)
        return Batch(vocabulary, pixels, labels, defective, failures)

    def _plan(self, epoch: int) -> list[list[Sample]]:
        """The batches of an epoch: each product's images shuffled and cut up, then all batches shuffled."""
        rng = np.random.default_rng([self.seed, 31, epoch])
        batches = []
        for own in self.products.values():
            order = rng.permutation(len(own))
            batches += [[own[i] for i in order[at : at + self.size]] for at in range(0, len(own), self.size)]
        return [batches[i] for i in rng.permutation(len(batches))]

    def _example(self, sample: Sample, types: Sequence[str]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        image = load_image(sample.image)
        pixels = prepare(image, self.side, self.patch, self.fit)
        masks = sample.load_masks(*image.shape[:2])
        if masks is not None:
            numbered = {types.index(name) + 1: mask for name, mask in masks.items()}
            return pixels, class_map(numbered, pixels.shape[1], pixels.shape[2])
        joint = sample.load_mask(*image.shape[:2])
        if joint is None:
            return pixels, np.full(pixels.shape[1:], IGNORE, np.int64)
        return pixels, class_map({IGNORE: joint}, pixels.shape[1], pixels.shape[2])  # of an unknown type

    def facts(self) -> dict[str, Any]:
        """Number and names of the images."""
        names = [f"{s.product}/{s.types}/{s.image.name}" for own in self.products.values() for s in own]
        return {"images": len(names), "names": hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]}

    def card(self, licence: str) -> TrainingData:
        """Its name and licence, and whether that forbids commercial use."""
        count = sum(len(own) for own in self.products.values())
        note = f"{count} images, {len(self.products)} products"
        if NON_COMMERCIAL.search(licence):
            note += "; non-commercial: weights trained on it are not for commercial use"
        return TrainingData(name=self.name, licence=licence, note=note)


class Generated:
    """Scenes of the second generated world, whose parts the backbone has not seen.

    Each batch draws some visual families and words for them out of the taught phrases; its scenes show none
    but these.
    """

    defects: tuple[str, ...] | None = None

    def __init__(self, settings: GeneratedSettings, *, batch: int, seed: int, side: int) -> None:
        self.settings, self.size, self.seed, self.side = settings, batch, seed, side
        textures = Textures(settings.textures)
        if settings.textures is not None and not textures:
            raise ConfigError(
                f"textures: expected a folder with one subfolder of .jpg files a material; "
                f"{settings.textures} holds none. Correct the path or leave it out."
            )
        self.world = World(seed=WORLD + seed, other=True, textures=textures)
        self.lexicon = Lexicon.builtin()

    def steps(self, epochs: int, share: int) -> int:
        """Each scene is seen once, whatever `epochs` says; a last step that is not full is left out."""
        return max(1, self.settings.samples // (self.size * share))

    def numbers(self, step: int, share: int) -> range:
        """The next `share` batches."""
        return range(step * share, (step + 1) * share)

    def batch(self, number: int) -> Batch:
        """Scenes number * size to number * size + size - 1."""
        rng = np.random.default_rng([self.world.seed, 31, number])
        least, most = (min(n, len(self.world.families)) for n in self.settings.names)
        chosen = rng.permutation(len(self.world.families))[: rng.integers(least, most + 1)]
        families = tuple(self.world.families[i] for i in chosen)
        world = replace(self.world, families=families)
        scenes = [world.scene(number * self.size + i, self.side, self.side) for i in range(self.size)]
        labels = np.zeros((len(scenes), self.side, self.side), np.int64)
        for label, scene in zip(labels, scenes, strict=True):
            for family, mask in scene.masks.items():
                label[mask] = families.index(family) + 1
        pixels = torch.from_numpy(np.stack([scene.image for scene in scenes])).permute(0, 3, 1, 2)
        return Batch(
            Vocabulary(tuple(Defect(self._phrase(family, rng)) for family in families)),
            (pixels.float() / 255).contiguous(),
            torch.from_numpy(labels),
            torch.tensor([bool(scene.masks) for scene in scenes]),
            {},
        )

    def _phrase(self, family: str, rng: np.random.Generator) -> str:
        """A taught phrase of a type that is drawn like this."""
        types = self.lexicon.by_visual(family)
        return str(rng.choice(self.lexicon.train_phrases(types[rng.integers(len(types))].id)))

    def facts(self) -> dict[str, Any]:
        """World, side and number of textures."""
        return {"world": self.world.seed, "side": self.side, "textures": len(self.world.textures)}

    def card(self, licence: str) -> TrainingData:
        """Generated by this package; the licence stated is that of the user's textures."""
        count = len(self.world.textures)
        note = f"{count} real textures as surfaces: {licence}" if count else "procedural surfaces only"
        return TrainingData(name="generated scenes of DAPO", licence="Apache-2.0", note=note)


def without(samples: Sequence[Sample], held_out: Sequence[str], name: str) -> Sequence[Sample]:
    """The samples that show none of these types. Raises DataError for a name that no sample has."""
    wanted, known = {plain(held) for held in held_out}, {plain(own) for own in types_of(samples)}
    if unknown := sorted(wanted - known):
        raise DataError(
            f"expected held_out to name defect types of {name} ({', '.join(sorted(known))}); got "
            f"{', '.join(unknown)}. Correct the names."
        )
    kept = [sample for sample in samples if not wanted.intersection(map(plain, sample.types))]
    if wanted and not types_of(kept):
        raise DataError(
            f"expected some defect type of {name} to be left to learn from; none is without "
            f"{', '.join(sorted(wanted))}. Hold out fewer."
        )
    return kept


def spoken(name: str) -> str:
    """A dataset's name of a type as words: pin_hole -> pin hole."""
    return " ".join(name.replace("_", " ").split())


def class_map(masks: Mapping[int, NDArray[np.bool_]], height: int, width: int) -> NDArray[np.int64]:
    """(height, width): the number of the mask that covers most of a pixel, 0 where none covers `COVERED`."""
    labels = np.zeros((height, width), np.int64)
    best = np.full((height, width), COVERED, np.float32)
    for number, mask in masks.items():
        grey = Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
        cover = np.asarray(grey, np.float32)
        labels[cover >= best] = number
        best = np.maximum(best, cover)
    return labels


def same_size(pixels: Tensor, labels: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """An image of another aspect than the first of its batch, squashed to that one's size."""
    if labels.shape == (height, width):
        return pixels, labels
    squashed = F.interpolate(
        pixels[None], (height, width), mode="bicubic", align_corners=False, antialias=True
    )
    near = F.interpolate(labels[None, None].float(), (height, width), mode="nearest-exact")
    return squashed[0].clamp(0, 1), near[0, 0].long()


class _Numbered(Dataset[Batch]):
    def __init__(self, source: Source) -> None:
        self.source = source

    def __len__(self) -> int:
        return 2**40

    def __getitem__(self, number: int) -> Batch:
        return self.source.batch(number)


def batches(source: Source, numbers: Sequence[int], workers: int) -> Generator[Batch, None, None]:
    """The batches of these numbers, in order, made ahead of time by `workers` processes (0: in this one)."""
    identity: Callable[[Any], Any] = _same
    yield from DataLoader(
        _Numbered(source),
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        collate_fn=identity,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_one_thread,
        generator=torch.Generator(),  # the caller's is left alone
    )


def _same(batch: Batch) -> Batch:
    return batch


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
