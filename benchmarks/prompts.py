"""Learned prompts against handwritten ones on the embedded backbone, over seeds of the prompt stage.

DATA_ROOT holds `textures`, and `magnetic_tile` and `steel_strip`, which no weights were trained on; their
words are those of the experiment "embedded". Each seed learns as `dapo pretrain` does, on scenes of the
second generated world (other parts than the backbone saw), and answers at the model's own settings.
Markdown on stdout; a seed takes about five minutes on two cores.

    python benchmarks/prompts.py DATA_ROOT --seeds 3
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np

from dapo.config import DetectorSettings, GeneratedSettings
from dapo.data import read_folder
from dapo.evaluation.experiment import load_experiment
from dapo.evaluation.run import Evaluation, evaluate
from dapo.inspector import Inspector
from dapo.learning.trainer import train
from dapo.model.artifact import EMBEDDED, load, save
from dapo.model.clip import load_clip
from dapo.model.detector import Detector
from dapo.pretraining.recipe import Recipe
from dapo.pretraining.recipe import handwritten as words_of_people

FIGURES = ("tile image AUROC", "tile pixel AUROC", "tile AUPRO", "tile top-1", "tile balanced", "steel top-1")


def on_real(model: Path, data_root: Path) -> dict[str, Evaluation]:
    """A model folder on each real set."""
    inspector = Inspector.from_pretrained(model, calibration=False)
    found = {}
    for test in load_experiment("embedded").test:
        samples = read_folder(data_root / str(test.root), group_key=test.group_key)
        asked = [sample for sample in samples if sample.split in test.splits]
        found[str(test.root)] = evaluate(inspector, asked, phrases=test.phrases, draws=0)
    return found


def figures(found: dict[str, Evaluation]) -> list[float]:
    """Of what `on_real` found, in the order of `FIGURES`."""
    tile, steel = found["magnetic_tile"].mean, found["steel_strip"].mean
    types = tile["types"]
    return [
        tile["image"]["auroc"], tile["pixel"]["auroc"], tile["pixel"]["aupro"],
        types["top1"], types["balanced_accuracy"], steel["types"]["top1"],
    ]  # fmt: skip


def handwritten(backbone: Path, out: Path) -> Path:
    """A backbone with phrases from people alone, at the settings of the recipe."""
    plain = words_of_people(
        Detector(load_clip(backbone).float(), DetectorSettings(side=Recipe().side)), Recipe()
    )
    config = load()[1].config.model_copy(update={"detector": plain.settings, "learned_on": None})
    return save(plain, out, config)


def learned(seed: int, textures: Path, out: Path) -> Path:
    """Prompts of one seed, learned as the recipe does."""
    recipe = Recipe(seed=seed)
    generated = GeneratedSettings(samples=recipe.prompt_samples, textures=str(textures))
    settings = recipe.prompts.model_copy(update={"generated": generated, "seed": seed})
    train(out / "run", model=EMBEDDED / "backbone", settings=settings, resume=True)
    detector, info = load(out / "run" / "model")
    return save(detector.changed(**recipe.answer), out / "model", info.config)


@click.command(help=__doc__)
@click.argument("data_root", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("out/benchmarks/prompts"), show_default=True
)
def main(data_root: Path, seeds: int, out: Path) -> None:
    plain = figures(on_real(handwritten(EMBEDDED / "backbone", out / "handwritten"), data_root))
    rows = [
        figures(on_real(learned(seed, data_root / "textures", out / f"seed-{seed}"), data_root))
        for seed in range(seeds)
    ]
    table = np.array(rows)
    click.echo("| prompts | " + " | ".join(FIGURES) + " |")
    click.echo("|---" * (len(FIGURES) + 1) + "|")
    click.echo("| handwritten | " + " | ".join(f"{value:.3f}" for value in plain) + " |")
    for seed, row in enumerate(rows):
        click.echo(f"| learned, seed {seed} | " + " | ".join(f"{value:.3f}" for value in row) + " |")
    spread = table.std(axis=0, ddof=1) if seeds > 1 else np.full(len(FIGURES), np.nan)
    gained = 100 * (table.mean(axis=0) - plain)
    click.echo(
        "| learned - handwritten, points | "
        + " | ".join(f"{gain:+.1f} ± {100 * one:.1f}" for gain, one in zip(gained, spread, strict=True))
        + " |"
    )


if __name__ == "__main__":
    main()
