"""Which type a picture has: what the map of each type and the contrast of flawed with good patches add.

DATA_ROOT holds `textures`, `magnetic_tile` and `steel_strip`, which no weights were trained on. Every picture
is looked at once, then its types are scored by each choice of `type_score` and `type_contrast`. *generated*
are unseen scenes, named among all 50 families of flaws, each by one phrase, and among five of them (its own
and four drawn at random); counted are those with a single flaw. *AP* is the mean over the types of the
average precision over all pictures, with several flaws and with none too. In brackets the standard deviation
of the difference to the first choice over 200 bootstrap draws (of the tile by physical tile). Markdown on
stdout; six minutes on two cores.

    python benchmarks/naming.py DATA_ROOT
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from families import words
from looks import real
from sklearn.metrics import average_precision_score

from dapo.metrics.intervals import recall_draws
from dapo.model.artifact import load
from dapo.model.detector import Detector
from dapo.pretraining.flaws import FLAWS
from dapo.pretraining.looking import pixels_for
from dapo.pretraining.scenes import World
from dapo.pretraining.surfaces import Textures
from dapo.vocabulary import Defect, Vocabulary

CHOICES = (
    ("both", 0.0), ("global", 0.0), ("geometric", 0.0), ("both", 6.0), ("global", 6.0),
    ("geometric", 3.0), ("geometric", 6.0), ("geometric", 9.0),
)  # fmt: skip
WORLD, SIDE, OTHERS = 8600, 224, 4
DRAWS = 200
HEAD = (
    "type_score", "type_contrast", "generated, of 50", "of 5", "AP",
    "tile, top-1", "balanced", "AP", "steel, top-1",
)  # fmt: skip


@dataclass(frozen=True)
class Named:
    """Of one set of pictures."""

    scores: np.ndarray  # (choices, pictures, types)
    truth: np.ndarray  # (pictures, types) bool
    groups: list[str]

    def right(self, choice: int, among: np.ndarray | None = None) -> np.ndarray:
        """Whether each picture of one flaw is named right, (pictures,); nan for the others. among: (pictures,
        types), the names it is asked.
        """
        scores = self.scores[choice] if among is None else np.where(among, self.scores[choice], -1)
        hit = self.truth[np.arange(len(scores)), scores.argmax(1)].astype(float)
        return np.where(self.truth.sum(1) == 1, hit, np.nan)

    def precision(self, choice: int) -> float:
        """Mean over the types that five pictures have."""
        asked = np.flatnonzero(self.truth.sum(0) >= 5)
        columns = self.scores[choice].T
        return float(np.mean([average_precision_score(self.truth[:, k], columns[k]) for k in asked]))

    def cells(self, hits: list[np.ndarray], *, balanced: bool = False) -> list[str]:
        """Share named right by each choice; its mean over the types if `balanced`."""
        own = self.truth.argmax(1) if balanced else np.zeros(len(self.truth), dtype=int)
        places = np.unique(self.groups, return_inverse=True)[1]
        counted = ~np.isnan(hits[0])
        shape = places.max() + 1, own.max() + 1

        def counts(values: np.ndarray) -> np.ndarray:
            table = np.zeros(shape)
            np.add.at(table, (places[counted], own[counted]), values[counted])
            return table

        totals = counts(np.ones(len(counted)))
        seen = totals.sum(0) > 0
        tables = [counts(hit)[:, seen] for hit in hits]
        draws = [recall_draws(table, totals[:, seen], DRAWS, seed=0) for table in tables]
        means = [float((table.sum(0) / totals[:, seen].sum(0)).mean()) for table in tables]
        spreads = [float(np.nanstd(one - draws[0])) for one in draws]
        return [f"{mean:.3f} ({spread:.3f})" for mean, spread in zip(means, spreads, strict=True)]


@torch.inference_mode()
def named(detector: Detector, vocabulary: Vocabulary, pictures: Iterator[tuple]) -> Named:
    """pictures: pixels, numbers of the types there, group."""
    deciding = [detector.changed(type_score=kind, type_contrast=weight) for kind, weight in CHOICES]
    states = detector.text_features(vocabulary)
    scores, truth, groups = [], [], []
    for pixels, types, group in pictures:
        looks = detector.looks(pixels_for(detector, pixels))
        scores.append([one.judge(looks, states).type_image[0].numpy() for one in deciding])
        truth.append([number in types for number in range(len(vocabulary.defects))])
        groups.append(group)
    return Named(np.array(scores).swapaxes(0, 1), np.array(truth), groups)


def generated(textures: Path, count: int) -> Iterator[tuple]:
    world = World(seed=WORLD, textures=Textures(textures))
    for i in range(count):
        scene = world.scene(i, SIDE, SIDE)
        yield scene.image, {tuple(FLAWS).index(family) for family in scene.masks}, str(i)


def labelled(data_root: Path, place: int) -> tuple[Vocabulary, Iterator[tuple]]:
    vocabulary, pictures = real(data_root, place)
    rows = (
        (p.pixels, set() if p.type is None else {p.type}, p.group or str(i)) for i, p in enumerate(pictures)
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
    drawn = named(detector, families, generated(data_root / "textures", count))
    tile, steel = (named(detector, *labelled(data_root, place)) for place in (0, 1))
    every = range(len(CHOICES))
    asked = short_lists(drawn.truth)
    columns = [
        drawn.cells([drawn.right(i) for i in every]),
        drawn.cells([drawn.right(i, asked) for i in every]),
        [f"{drawn.precision(i):.3f}" for i in every],
        tile.cells([tile.right(i) for i in every]),
        tile.cells([tile.right(i) for i in every], balanced=True),
        [f"{tile.precision(i):.3f}" for i in every],
        steel.cells([steel.right(i) for i in every]),
    ]
    click.echo("| " + " | ".join(HEAD) + " |\n|---" + "|---:" * (len(HEAD) - 1) + "|")
    for i, (kind, weight) in enumerate(CHOICES):
        click.echo(f"| {kind} | {weight:g} | " + " | ".join(column[i] for column in columns) + " |")


if __name__ == "__main__":
    main()
