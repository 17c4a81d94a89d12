"""What the image score gains from the anchors' own map beside the global feature.

DATA_ROOT holds `textures` and `magnetic_tile`, which no weights were trained on. Every picture is looked at
once, then scored with each weight of `anchor_top`; *generated* are scenes of the world that the thresholds
are read off. In brackets the standard deviation of the difference to the first weight, over 200 bootstrap
draws (of the tile by physical tile). Markdown on stdout; four minutes on two cores.

    python benchmarks/verdict.py DATA_ROOT
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import torch
from looks import generated

from dapo.data import read_folder
from dapo.evaluation.experiment import load_experiment
from dapo.evaluation.naming import words_of
from dapo.images import load_image
from dapo.metrics import image_metrics
from dapo.model.artifact import load
from dapo.model.detector import Detector
from dapo.pretraining.looking import pixels_for
from dapo.vocabulary import Defect, Vocabulary

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
DRAWS = 200

Pictures = Iterator[tuple[np.ndarray, bool, str]]  # pixels, whether flawed, what it is a picture of


def tile(data_root: Path) -> tuple[Vocabulary, Pictures]:
    test = load_experiment("embedded").test[0]
    found = read_folder(data_root / str(test.root), group_key=test.group_key)
    samples = [sample for sample in found if sample.split in test.splits]
    words = Vocabulary(tuple(Defect(name, said) for name, said in words_of(test, samples).items()))
    drawn = ((load_image(s.image), bool(s.types), s.group or str(s.image)) for s in samples)
    return words, drawn


def scenes(data_root: Path, count: int) -> tuple[Vocabulary, Pictures]:
    words, drawn = generated(data_root / "textures", count)
    return words, ((p.pixels, p.type is not None, str(i)) for i, p in enumerate(drawn))


@torch.inference_mode()
def measured(detector: Detector, words: Vocabulary, pictures: Pictures) -> list[str]:
    """A cell for each of WEIGHTS."""
    hearing = [detector.changed(anchor_top=weight) for weight in WEIGHTS]
    states, scores, flawed, groups = detector.text_features(words), [], [], []
    for pixels, bad, group in pictures:
        looks = detector.looks(pixels_for(detector, pixels))
        scores.append([float(one.judge(looks, states).image.logit()) for one in hearing])
        flawed.append(bad)
        groups.append(group)
    table, truth = np.array(scores), np.array(flawed)
    names, place = np.unique(groups, return_inverse=True)
    rng, differences = np.random.default_rng(0), []
    members = [np.flatnonzero(place == g) for g in range(len(names))]
    for _ in range(DRAWS):
        drawn = np.concatenate([members[g] for g in rng.integers(len(names), size=len(names))])
        if 0 < truth[drawn].sum() < len(drawn):
            own = [image_metrics(column[drawn], truth[drawn])["auroc"] for column in table.T]
            differences.append(np.array(own) - own[0])
    spread = np.std(differences, axis=0)
    figures = [image_metrics(column, truth)["auroc"] for column in table.T]
    return [f"{figure:.3f} ({s:.3f})" for figure, s in zip(figures, spread, strict=True)]


@click.command(help=__doc__)
@click.argument("data_root", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", help="Folder of a model with anchors; default: the embedded one.")
@click.option("--scenes", "count", type=click.IntRange(50), default=600, show_default=True)
def main(data_root: Path, model: str | None, count: int) -> None:
    detector = load(model)[0].changed(image_score="global").eval()
    columns = [measured(detector, *some) for some in (scenes(data_root, count), tile(data_root))]
    click.echo("| anchor_top | generated, image AUROC | tile, image AUROC |\n|---:|---:|---:|")
    for weight, *cells in zip(WEIGHTS, *columns, strict=True):
        click.echo(f"| {weight:g} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
