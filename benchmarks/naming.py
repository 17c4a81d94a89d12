"""Which type: what the contrast of a patch with the good ones of its picture, and each type's map, add.

DATA_ROOT holds `textures`, `magnetic_tile` and `steel_strip`, which no weights were trained on. Every picture
is looked at once, then its types are scored by each choice of `type_score` and `type_contrast`. *generated*
are unseen scenes, named among all 50 families of flaws, each by one phrase. *picture* is the share of those
with a single flaw that are named right, *of 5* the same among its own name and four drawn at random, *AP* the
mean over the types of the average precision over all pictures, with several flaws and with none too. *flaw*
is the share of the flaws named right as a region of exactly the flaw would be: by the means of the types'
maps, weighted by the anomaly map. In brackets the standard deviation of the difference to the first choice
over 200 bootstrap draws (of the tile by physical tile). Markdown on stdout; eight minutes on two cores.

    python benchmarks/naming.py DATA_ROOT
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import numpy as np
import torch
from families import words
from looks import real
from sklearn.metrics import average_precision_score
from torch.nn import functional as F

from dapo.metrics.intervals import recall_draws
from dapo.model.artifact import load
from dapo.model.detector import Detector
from dapo.pretraining.flaws import FLAWS
from dapo.pretraining.looking import pixels_for
from dapo.pretraining.scenes import World
from dapo.pretraining.surfaces import Textures
from dapo.vocabulary import Defect, Vocabulary

CHOICES = (
    ("both", 0.0), ("geometric", 0.0), ("both", 8.0), ("global", 8.0),
    ("geometric", 4.0), ("geometric", 8.0), ("geometric", 12.0),
)  # fmt: skip
WORLD, SIDE, OTHERS = 8600, 224, 4
DRAWS = 200
HEAD = (
    "type_score", "type_contrast", "generated: picture", "of 5", "AP", "flaw, one a picture", "of several",
    "tile: picture", "balanced", "AP", "flaw, balanced", "steel: picture",
)  # fmt: skip


@dataclass(frozen=True)
class Shown:
    pixels: np.ndarray  # (h, w, 3) uint8
    masks: dict[int, np.ndarray | None]  # (h, w) bool, of each type there
    group: str


@dataclass
class Asked:
    """What was asked of one set, and what each choice said."""

    scores: list[list[np.ndarray]] = field(default_factory=list)  # of each picture by each choice, (types,)
    truth: list[list[bool]] = field(default_factory=list)  # of each picture, each type
    groups: list[str] = field(default_factory=list)
    flaws: list[list[int]] = field(default_factory=list)  # the name of each flaw by each choice
    own: list[tuple[int, int]] = field(default_factory=list)  # of each flaw its type and its picture

    def pictures(self, *, balanced: bool = False, among: np.ndarray | None = None) -> list[str]:
        """Of pictures with one flaw. among: (pictures, types), the names that are asked."""
        truth = np.array(self.truth)
        one = np.flatnonzero(truth.sum(1) == 1)
        hits = []
        for choice in np.array(self.scores).swapaxes(0, 1):
            scores = choice if among is None else np.where(among, choice, -1)
            hits.append(truth[one, scores[one].argmax(1)])
        return self._cells(hits, truth[one].argmax(1), one, balanced)

    def regions(self, *, several: bool = False, balanced: bool = False) -> list[str]:
        """Of flaws that are the only one of their picture, or one of several."""
        own, picture = np.array(self.own).T
        chosen = np.flatnonzero((np.array(self.truth).sum(1)[picture] > 1) == several)
        names = np.array(self.flaws).T[:, chosen]
        return self._cells(list(names == own[chosen]), own[chosen], picture[chosen], balanced)

    def precision(self) -> list[str]:
        """Mean over the types that five pictures have."""
        truth = np.array(self.truth)
        known = np.flatnonzero(truth.sum(0) >= 5)
        every = np.array(self.scores).swapaxes(0, 1)
        found = [[average_precision_score(truth[:, k], one[:, k]) for k in known] for one in every]
        return [f"{np.mean(row):.3f}" for row in found]

    def _cells(
        self, hits: list[np.ndarray], types: np.ndarray, picture: np.ndarray, balanced: bool
    ) -> list[str]:
        """Share of the hits of each choice; its mean over the types if `balanced`."""
        places = np.unique(np.array(self.groups)[picture], return_inverse=True)[1]
        columns = np.unique(types, return_inverse=True)[1] if balanced else np.zeros(len(types), dtype=int)

        def counted(values: np.ndarray) -> np.ndarray:
            table = np.zeros((places.max() + 1, columns.max() + 1))
            np.add.at(table, (places, columns), values)
            return table

        totals = counted(np.ones(len(types)))
        tables = [counted(hit) for hit in hits]
        draws = [recall_draws(table, totals, DRAWS, seed=0) for table in tables]
        means = [(table.sum(0) / totals.sum(0)).mean() for table in tables]
        return [
            f"{mean:.3f} ({np.nanstd(one - draws[0]):.3f})" for mean, one in zip(means, draws, strict=True)
        ]


@torch.inference_mode()
def asked(detector: Detector, vocabulary: Vocabulary, pictures: Iterator[Shown]) -> Asked:
    deciding = [detector.changed(type_score=kind, type_contrast=weight) for kind, weight in CHOICES]
    states = detector.text_features(vocabulary)
    found = Asked()
    for number, picture in enumerate(pictures):
        looks = detector.looks(pixels_for(detector, picture.pixels))
        said = [one.judge(looks, states) for one in deciding]
        found.scores.append([one.type_image[0].numpy() for one in said])
        found.truth.append([k in picture.masks for k in range(len(vocabulary.defects))])
        found.groups.append(picture.group)
        for own, mask in picture.masks.items():
            if mask is not None:
                share = torch.from_numpy(mask.astype(np.float32))[None]
                weight = F.adaptive_avg_pool2d(share, said[0].binary.shape[1:])[0] * said[0].binary[0]
                found.flaws.append([int((one.types[0] * weight).sum((1, 2)).argmax()) for one in said])
                found.own.append((own, number))
    return found


def generated(textures: Path, count: int) -> Iterator[Shown]:
    world = World(seed=WORLD, textures=Textures(textures))
    for i in range(count):
        scene = world.scene(i, SIDE, SIDE)
        masks = {tuple(FLAWS).index(family): mask for family, mask in scene.masks.items()}
        yield Shown(scene.image, masks, str(i))


def labelled(data_root: Path, place: int) -> tuple[Vocabulary, Iterator[Shown]]:
    vocabulary, pictures = real(data_root, place)
    rows = (
        Shown(p.pixels, {} if p.type is None else {p.type: p.mask}, p.group or str(i))
        for i, p in enumerate(pictures)
    )
    return vocabulary, rows


def short_lists(truth: np.ndarray) -> np.ndarray:
    """Of each picture, its own type and some others, (pictures, types)."""
    rng = np.random.default_rng(0)
    asked = truth.copy()
    for row in asked:
        row[rng.permutation(np.flatnonzero(~row))[:OTHERS]] = True
    return asked


@click.command(help=__doc__)
@click.argument("data_root", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", help="Folder of a model; default: the embedded one.")
@click.option("--scenes", "count", type=click.IntRange(50), default=900, show_default=True)
def main(data_root: Path, model: str | None, count: int) -> None:
    detector = load(model)[0].eval()
    families = Vocabulary(tuple(Defect(name, (words(name),)) for name in FLAWS))
    drawn = asked(detector, families, generated(data_root / "textures", count))
    tile, steel = (asked(detector, *labelled(data_root, place)) for place in (0, 1))
    columns = [
        drawn.pictures(), drawn.pictures(among=short_lists(np.array(drawn.truth))), drawn.precision(),
        drawn.regions(), drawn.regions(several=True),
        tile.pictures(), tile.pictures(balanced=True), tile.precision(), tile.regions(balanced=True),
        steel.pictures(),
    ]  # fmt: skip
    click.echo("| " + " | ".join(HEAD) + " |\n|---" + "|---:" * (len(HEAD) - 1) + "|")
    for i, (kind, weight) in enumerate(CHOICES):
        click.echo(f"| {kind} | {weight:g} | " + " | ".join(column[i] for column in columns) + " |")


if __name__ == "__main__":
    main()
