"""What each look at a picture is worth: the vision tower's and the side network's, at every scale.

DATA_ROOT holds `textures`, `magnetic_tile` and `steel_strip`, which no weights were trained on; their words
are those of the experiment "embedded". Every picture is looked at once by both at four scales, then judged by
each choice of looks; *generated* are scenes of the world that the thresholds are read off. Milliseconds are
those of the looks a choice takes, eight pictures together, best of five. Markdown on stdout; six minutes on
two cores.

    python benchmarks/looks.py DATA_ROOT
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
import torch

from dapo.data import read_folder
from dapo.evaluation.experiment import load_experiment
from dapo.evaluation.naming import words_of
from dapo.images import load_image, restore_map
from dapo.metrics import image_metrics, pixel_metrics
from dapo.model.artifact import load
from dapo.model.detector import Detector
from dapo.pretraining.defaults import DEFECTS
from dapo.pretraining.looking import pixels_for
from dapo.pretraining.recipe import DEFAULTS_WORLD
from dapo.pretraining.scenes import World
from dapo.pretraining.surfaces import Textures
from dapo.vocabulary import Defect, Vocabulary

SCALES = (1.0, 0.72, 0.5, 0.36)  # of 224 px: 224, 160, 112, 80
COARSE = 2  # px of a picture for one of the maps whose figures are taken
HEAD = (
    "looks of the tower", "of the side network", "ms", "generated image / pixel / AUPRO", "tile image",
    "tile pixel", "tile AUPRO", "tile top-1 / balanced", "steel top-1",
)  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """Scales, by their place in SCALES, at which the tower and the side network look."""

    tower: tuple[int, ...]
    side: tuple[int, ...]

    @property
    def looks(self) -> list[int]:
        return [*self.tower, *(len(SCALES) + i for i in self.side)]

    def said(self) -> list[str]:
        """Pixels a side of both's looks at a square picture."""
        sides = [round(28 * scale) * 8 for scale in SCALES]
        return [" ".join(str(sides[i]) for i in part) or "-" for part in (self.tower, self.side)]


PARTS = (), (1, 2), (0, 1, 2, 3)  # of the tower
SIDE_PARTS = (), (0, 1, 2), (0, 1, 2, 3)
CHOICES = tuple(Choice(*pair) for pair in itertools.product(PARTS, SIDE_PARTS) if any(pair))


@dataclass
class Answers:
    """Of one set of pictures by one choice."""

    scores: list[float] = field(default_factory=list)
    maps: list[np.ndarray] = field(default_factory=list)
    named: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class Picture:
    pixels: np.ndarray  # (h, w, 3) uint8
    mask: np.ndarray | None  # (h, w) bool
    type: int | None  # of the set's words; None = good
    group: str | None = None  # the physical part, where the set tells


def generated(textures: Path, count: int) -> tuple[Vocabulary, Iterator[Picture]]:
    world = World(seed=DEFAULTS_WORLD, textures=Textures(textures))
    scenes = (world.scene(i, 224, 224) for i in range(count))
    drawn = (Picture(s.image, s.flawed, 0 if s.masks else None) for s in scenes)
    return Vocabulary.of(list(DEFECTS)), drawn


def real(data_root: Path, place: int) -> tuple[Vocabulary, Iterator[Picture]]:
    test = load_experiment("embedded").test[place]
    samples = [
        s for s in read_folder(data_root / str(test.root), group_key=test.group_key) if s.split in test.splits
    ]
    words = words_of(test, samples)
    names = list(words)

    def opened() -> Iterator[Picture]:
        for sample in samples:
            pixels = load_image(sample.image)
            mask = sample.load_mask(*pixels.shape[:2])
            yield Picture(pixels, mask, names.index(sample.types[0]) if sample.types else None, sample.group)

    return Vocabulary(tuple(Defect(name, phrases) for name, phrases in words.items())), opened()


@torch.inference_mode()
def judged(
    detector: Detector, words: Vocabulary, pictures: Iterator[Picture], choices: Sequence[Sequence[int]]
) -> tuple[list[Picture], list[Answers]]:
    """The pictures with their maps' truths made coarse, and what each choice of the detector's looks says of
    them.
    """
    states, answers, seen = detector.text_features(words), [Answers() for _ in choices], []
    for picture in pictures:
        h, w = (length // COARSE for length in picture.pixels.shape[:2])
        mask = None if picture.mask is None else picture.mask[: h * COARSE : COARSE, : w * COARSE : COARSE]
        seen.append(Picture(picture.pixels[:1, :1], mask, picture.type))
        looks = detector.looks(pixels_for(detector, picture.pixels))
        for choice, answer in zip(choices, answers, strict=True):
            scores = detector.judge([looks[i] for i in choice], states)
            answer.scores.append(float(scores.image))
            answer.named.append(int(scores.type_image[0].argmax()))
            if mask is not None:
                answer.maps.append(restore_map(scores.binary[0].float().numpy(), h, w))
    return seen, answers


def found(seen: Sequence[Picture], answer: Answers) -> list[float]:
    """Image AUROC, pixel AUROC, AUPRO; nan where no picture is good or none has a mask."""
    flawed = np.array([picture.type is not None for picture in seen])
    image = float("nan") if flawed.all() else image_metrics(np.array(answer.scores), flawed)["auroc"]
    if not answer.maps:
        return [image, float("nan"), float("nan")]
    located = pixel_metrics(answer.maps, [p.mask for p in seen if p.mask is not None])
    return [image, located["auroc"], located["aupro"]]


def named(seen: Sequence[Picture], answer: Answers) -> list[float]:
    """Share of the flawed pictures named right, and the mean of that over the types."""
    pairs = [(p.type, name) for p, name in zip(seen, answer.named, strict=True) if p.type is not None]
    by_type = [
        np.mean([name == kind for own, name in pairs if own == kind]) for kind in {own for own, _ in pairs}
    ]
    return [float(np.mean([own == name for own, name in pairs])), float(np.mean(by_type))]


@torch.inference_mode()
def milliseconds(detector: Detector) -> list[float]:
    """Of each look of `detector`, an image, eight together."""
    tower = [detector.changed(scales=(scale,), side_scales=()) for scale in SCALES]
    side = [detector.changed(scales=(), side_scales=(scale,)) for scale in SCALES]
    best = []
    for one, scale in zip((*tower, *side), (*SCALES, *SCALES), strict=True):
        pixels = torch.rand(8, 3, *(2 * [round(224 * scale / 8) * 8]))
        look = one.side_features if one.settings.side_scales else one.features
        times = []
        for _ in range(7):
            began = time.perf_counter()
            look(pixels)
            times.append(1000 * (time.perf_counter() - began) / len(pixels))
        best.append(min(times[2:]))
    return best


@click.command(help=__doc__)
@click.argument("data_root", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", help="Folder of a model with a side network; default: the embedded one.")
@click.option("--scenes", type=click.IntRange(50), default=400, show_default=True)
def main(data_root: Path, model: str | None, scenes: int) -> None:
    detector = load(model)[0].changed(scales=SCALES, side_scales=SCALES, image_score="global").eval()
    sets = [generated(data_root / "textures", scenes), real(data_root, 0), real(data_root, 1)]
    choices = [choice.looks for choice in CHOICES]
    answers = [judged(detector, words, pictures, choices) for words, pictures in sets]
    times = milliseconds(detector)
    click.echo("| " + " | ".join(HEAD) + " |")
    click.echo("|---|---" + "|---:" * (len(HEAD) - 2) + "|")
    for i, choice in enumerate(CHOICES):
        drawn, tile, steel = ((seen, every[i]) for seen, every in answers)
        on_tile = found(*tile)
        cells = [
            *choice.said(),
            f"{sum(times[look] for look in choice.looks):.0f}",
            " / ".join(f"{value:.3f}" for value in found(*drawn)),
            *(f"{value:.3f}" for value in on_tile),
            " / ".join(f"{value:.3f}" for value in named(*tile)),
            f"{named(*steel)[0]:.3f}",
        ]
        click.echo("| " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
