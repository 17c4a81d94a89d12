"""How often a flaw that has no name comes out "unknown", and a flaw that has one is lost.

Generated scenes of a world that nothing was chosen on: random lists of 3, 5 and 10 names, so that most flaws
have none. DATA_ROOT/magnetic_tile: each of its five types is left out of the list in turn. Counted are the
regions that lie on a labelled flaw. Three rules are compared at the values where 5 % of the named flaws are
lost in the world that the thresholds of the model are chosen on:

- background: the best of the built-in types is ahead of the best name (the rule that ships);
- doubt: the best name leads the next by little;
- rest: the best name explains little of the anomaly.

Prints the tables and writes `unknown.json` and `unknown.md` into --out.

    python benchmarks/unknown.py DATA_ROOT
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
from rich.console import Console
from rich.progress import track

from dapo.data import read_folder
from dapo.errors import DapoError
from dapo.evaluation.experiment import load_experiment
from dapo.images import load_image
from dapo.inspector import Inspector
from dapo.pretraining.recipe import DEFAULTS_WORLD
from dapo.pretraining.scenes import World
from dapo.pretraining.surfaces import Textures
from dapo.pretraining.unknown import LISTS, LOST, Trial, ask, drawn_lists, figures, trials
from dapo.vocabulary import Defect, Vocabulary

TEST_WORLD = 9000
TILE = "magnetic_tile"
RULES: dict[str, Callable[[Trial], float]] = {
    "background": lambda trial: trial.ahead,
    "doubt": lambda trial: trial.doubt,
    "rest": lambda trial: trial.rest,
}

Pictures = Iterable[tuple[Any, Any]]


def found_in(inspector: Inspector, pictures: Pictures, names: Sequence[Vocabulary]) -> list[Trial]:
    """Trials of all pictures with all lists."""
    asked = [ask(inspector.detector, one) for one in names]
    config = inspector.info.config
    return list(
        trials(
            inspector.detector,
            pictures,
            asked,
            map_threshold=config.map_threshold,
            min_area=config.min_area,
        )
    )


def told(found: list[Trial], values: dict[str, float], names: int | None = None) -> dict[str, Any]:
    """Figures by rule, of lists of so many names."""
    some = [trial for trial in found if names in (None, trial.names)]
    return {rule: figures(some, values[rule], evidence) for rule, evidence in RULES.items()}


def generated(world: World, count: int, side: int) -> Pictures:
    for i in track(range(count), description=f"world {world.seed}", console=Console(stderr=True)):
        scene = world.scene(i, side, side)
        if scene.masks:
            yield scene.image, scene.masks


def tiles(root: Path) -> Pictures:
    samples = [sample for sample in read_folder(root, splits=("test",)) if sample.defective]
    for sample in track(samples, description=root.name, console=Console(stderr=True)):
        image = load_image(sample.image)
        yield image, sample.load_masks(*image.shape[:2])


def leave_one_out(phrases: Mapping[str, Sequence[str]]) -> list[Vocabulary]:
    return [
        Vocabulary.of([Defect(name, tuple(words)) for name, words in phrases.items() if name != left_out])
        for left_out in phrases
    ]


def markdown(title: str, rows: dict[str, dict[str, Any]]) -> str:
    head = ["", "AUROC", "no name: unknown", "named: unknown", "regions: no name, named"]
    lines = [f"### {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for label, row in rows.items():
        cells = [row["auroc"], row["found_unknown"], row["known_lost"]]
        shown = ["-" if cell is None else f"{cell:.2f}" for cell in cells]
        regions = f"{row['held_out']}, {row['known']}"
        lines.append(f"| {' | '.join([label, *shown, regions])} |")
    return "\n".join(lines) + "\n"


@click.command(help=__doc__)
@click.argument("data_root", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", default=None, help="Model folder or hub id; default: the embedded model.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/benchmarks"), show_default=True)
@click.option(
    "--count", type=click.IntRange(10), default=450, show_default=True, help="Scenes of each world."
)
def main(data_root: Path, model: str | None, out: Path, count: int) -> None:
    try:
        inspector = Inspector.from_pretrained(model)
        textures = data_root / "textures"
        side = inspector.detector.side
        chosen_on = World(seed=DEFAULTS_WORLD, textures=Textures(textures if textures.is_dir() else None))
        test = World(seed=TEST_WORLD, other=True)
        found = {
            world.seed: found_in(
                inspector, generated(world, count, side), drawn_lists(world.families, LISTS, world.seed)
            )
            for world in (chosen_on, test)
        }
        (phrases,) = [test.phrases for test in load_experiment("embedded").test if test.root == TILE]
        real = found_in(inspector, tiles(data_root / TILE), leave_one_out(phrases))
    except DapoError as error:
        raise click.ClickException(str(error)) from error
    values = {
        rule: float(np.quantile([evidence(t) for t in found[DEFAULTS_WORLD] if t.known], 1 - LOST))
        for rule, evidence in RULES.items()
    }
    if inspector.info.config.unknown_above is not None:
        values["background"] = inspector.info.config.unknown_above
    tables = {
        f"Generated, lists of {length} names": told(found[TEST_WORLD], values, length) for length in LISTS
    }
    tables["Generated, all lists"] = told(found[TEST_WORLD], values)
    tables["Magnetic tile, each type left out in turn"] = told(real, values)
    tables["Magnetic tile by type, background"] = {
        flaw: figures([trial for trial in real if trial.flaw == flaw], values["background"])
        for flaw in phrases
    }
    pages = [markdown(title, rows) for title, rows in tables.items()]
    out.mkdir(parents=True, exist_ok=True)
    record = {"values": values, **tables}
    (out / "unknown.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    (out / "unknown.md").write_text("\n".join(pages), encoding="utf-8")
    click.echo("\n".join(pages))


if __name__ == "__main__":
    main()
