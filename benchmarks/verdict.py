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
from looks import Picture, generated, real
from scipy import sparse

from dapo.metrics import image_metrics
from dapo.metrics.intervals import auroc_draws
from dapo.model.artifact import load
from dapo.model.detector import Detector
from dapo.pretraining.looking import pixels_for
from dapo.vocabulary import Vocabulary

WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
DRAWS = 200


@torch.inference_mode()
def measured(detector: Detector, words: Vocabulary, pictures: Iterator[Picture]) -> list[str]:
    """A cell for each of WEIGHTS."""
    hearing = [detector.changed(anchor_top=weight) for weight in WEIGHTS]
    states, scores, flawed, groups = detector.text_features(words), [], [], []
    for number, picture in enumerate(pictures):
        looks = detector.looks(pixels_for(detector, picture.pixels))
        scores.append([float(one.judge(looks, states).image.logit()) for one in hearing])
        flawed.append(picture.type is not None)
        groups.append(picture.group or str(number))
    table, truth = np.array(scores), np.array(flawed)
    draws = [drawn(column, truth, groups) for column in table.T]
    figures = [image_metrics(column, truth)["auroc"] for column in table.T]
    spread = [np.nanstd(one - draws[0]) for one in draws]
    return [f"{figure:.3f} ({s:.3f})" for figure, s in zip(figures, spread, strict=True)]


def drawn(scores: np.ndarray, flawed: np.ndarray, groups: list[str]) -> np.ndarray:
    """AUROC of each bootstrap draw of the groups, (DRAWS,): the same draws for any scores."""
    places, levels = (np.unique(values, return_inverse=True)[1] for values in (groups, scores))
    shape = places.max() + 1, levels.max() + 1
    counts = [
        sparse.csr_array((np.ones(some.sum()), (places[some], levels[some])), shape=shape)
        for some in (flawed, ~flawed)
    ]
    return auroc_draws(*counts, draws=DRAWS, seed=0)


@click.command(help=__doc__)
@click.argument("data_root", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", help="Folder of a model with anchors; default: the embedded one.")
@click.option("--scenes", "count", type=click.IntRange(50), default=600, show_default=True)
def main(data_root: Path, model: str | None, count: int) -> None:
    detector = load(model)[0].changed(image_score="global").eval()
    sets = generated(data_root / "textures", count), real(data_root, 0)
    columns = [measured(detector, words, pictures) for words, pictures in sets]
    click.echo("| anchor_top | generated, image AUROC | tile, image AUROC |\n|---:|---:|---:|")
    for weight, *cells in zip(WEIGHTS, *columns, strict=True):
        click.echo(f"| {weight:g} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
