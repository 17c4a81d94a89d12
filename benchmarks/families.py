"""What the generated world teaches: towers learned from nothing, on all of it and on halves of its flaws.

DATA_ROOT holds `magnetic_tile`, `steel_strip` and `textures`. Every run learns a fresh vision tower on the
text tower of the embedded model, by the recipe's image stage, and answers with handwritten prompts at the
model's settings. Two runs see half of the groups of flaws each, so that every flaw is put to a tower that
never saw its like, and to one that did: on generated scenes no run saw, each group's flaws beside the same
good ones. A short run on all flaws shows where the learning curve begins. Finished runs are kept in --out and
not made again; `--only` makes some, so that two processes can share the work. Markdown on stdout; 96,000
scenes take twenty minutes on two cores.

    python benchmarks/families.py DATA_ROOT
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from prompts import FIGURES, figures, handwritten, on_real

from dapo.evaluation.record import write_text
from dapo.images import restore_map
from dapo.metrics import image_metrics, pixel_metrics
from dapo.model.artifact import EMBEDDED, load
from dapo.model.clip import build_clip, load_clip, save_clip
from dapo.model.detector import Detector
from dapo.pretraining.contrastive import train_images
from dapo.pretraining.flaws import FLAWS
from dapo.pretraining.lexicon import Lexicon
from dapo.pretraining.looking import pixels_for
from dapo.pretraining.recipe import FIRST_WORLD, Recipe
from dapo.pretraining.scenes import World
from dapo.pretraining.surfaces import Textures
from dapo.vocabulary import Defect, Vocabulary

WHOLE = "all"
HALVES = {
    "first half": ("relief", "finish", "oxide", "things"),
    "second half": ("lines", "areas", "edges", "boards"),
}
SHORT, LONG = 19_200, 96_000  # scenes
ASKED_WORLD, GOOD, A_GROUP, SIDE = 8200, 100, 40, 224  # a seed, good scenes, flawed scenes a group, px
OWN = ("image AUROC", "pixel AUROC", "named of 50")


def groups() -> dict[str, tuple[str, ...]]:
    """Families of flaws by the module that draws them."""
    found: dict[str, list[str]] = {}
    for name, draw in FLAWS.items():
        found.setdefault(draw.__module__.rpartition(".")[2], []).append(name)
    return {group: tuple(names) for group, names in found.items()}


@dataclass(frozen=True)
class Run:
    """One tower: the flaws it sees, and for how many scenes it learns."""

    flaws: str
    scenes: int

    @property
    def folder(self) -> str:
        return f"{self.flaws.replace(' ', '-')}-{self.scenes}"

    def world(self, textures: Path) -> World:
        """The recipe's first world with these flaws."""
        drawn = groups()
        families = tuple(name for group in HALVES.get(self.flaws, tuple(drawn)) for name in drawn[group])
        return World(seed=FIRST_WORLD, twins=True, textures=Textures(textures), families=families)


RUNS = (Run(WHOLE, SHORT), *(Run(half, LONG) for half in HALVES))


def learned(run: Run, textures: Path, out: Path) -> Path:
    """The run's backbone folder, trained unless it is there."""
    backbone = out / "backbone"
    if not (backbone / "config.json").is_file():
        taught = load_clip(EMBEDDED / "backbone").float()
        torch.manual_seed(0)
        clip = build_clip(taught.config, taught.tokenizer)
        clip.text.load_state_dict(taught.text.state_dict())
        stage = replace(Recipe().image, samples=run.scenes)

        def say(row: dict[str, float]) -> None:
            if row["step"] % 50 == 0:
                click.echo(f"{run.folder}: {row}", err=True)

        trained = train_images(
            clip.train(), run.world(textures), Lexicon.builtin(), out, stage, workers=1, log=say
        )
        save_clip(trained, backbone, dtype=torch.float16)
    return backbone


def on_generated(detector: Detector, textures: Path) -> dict[str, list[float]]:
    """`OWN` of each group: its flaws against the same good scenes, and the share of them named right."""
    world = World(seed=ASKED_WORLD, textures=Textures(textures))
    states = detector.text_features(Vocabulary(tuple(Defect(name, (words(name),)) for name in FLAWS)))
    good = look(detector, replace(world, normal=1.0), GOOD, states)
    found = {}
    for group, names in groups().items():
        flawed = look(detector, replace(world, normal=0.0, families=names), A_GROUP, states)
        scores, maps, masks = ([row[i] for row in (*good, *flawed)] for i in range(3))
        found[group] = [
            image_metrics(np.array(scores), np.array([mask.any() for mask in masks]))["auroc"],
            pixel_metrics(maps, masks)["auroc"],
            float(np.mean([named in there for *_, named, there in flawed])),
        ]
    return found


def words(family: str) -> str:
    """The plainest taught phrase of the first type drawn as this family."""
    return Lexicon.builtin().by_visual(family)[0].phrases[0]


@torch.inference_mode()
def look(detector: Detector, world: World, count: int, states: torch.Tensor) -> list[tuple]:
    """The first `count` scenes, flawed if the world has flaws: image score, map and mask (h / 2, w / 2),
    family named, families there.
    """
    rows: list[tuple] = []
    for i in range(100 * count):
        scene = world.scene(i, SIDE, SIDE)
        mask = scene.flawed[::2, ::2]
        if mask.any() != (world.normal < 1):
            continue  # a flaw that does not suit this part, or is not seen
        seen = detector(pixels_for(detector, scene.image), states)
        shown = restore_map(seen.binary[0].float().numpy(), SIDE // 2, SIDE // 2)
        named = tuple(FLAWS)[int(seen.type_image[0].argmax())]
        rows.append((float(seen.image), shown, mask, named, set(scene.masks)))
        if len(rows) == count:
            break
    return rows


def measured(run: Run, data_root: Path, out: Path) -> dict:
    """Figures of one run, on the real sets and by group on generated scenes; kept in `out`."""
    kept = out / "figures.json"
    if not kept.is_file():
        model = handwritten(learned(run, data_root / "textures", out), out / "model")
        detector, _ = load(model)
        real = on_real(model, data_root)
        found = {
            "real": figures(real),
            "types": {
                name: [row["recall"], row["pixel"]["auroc"]]
                for name, row in real["magnetic_tile"].types.items()
            },
            "generated": on_generated(detector.eval(), data_root / "textures"),
        }
        write_text(kept, json.dumps(found, indent=1))
    return json.loads(kept.read_text(encoding="utf-8"))


def say_row(cells: list[str]) -> None:
    click.echo("| " + " | ".join(cells) + " |")


def say_head(cells: list[str]) -> None:
    say_row(cells)
    click.echo("|---" + "|---:" * (len(cells) - 1) + "|")


@click.command(help=__doc__)
@click.argument("data_root", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--only", multiple=True, metavar="NAME", help="A run by its folder's name; may be repeated.")
@click.option("--threads", type=click.IntRange(1), help="Of each run; default: all cores.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("out/benchmarks/families"), show_default=True
)
def main(data_root: Path, only: tuple[str, ...], threads: int | None, out: Path) -> None:
    if threads is not None:
        torch.set_num_threads(threads)
    names = [run.folder for run in RUNS]
    if unknown := set(only) - set(names):
        raise click.UsageError(f"no run {', '.join(sorted(unknown))}; give one of {', '.join(names)}")
    found = {run: measured(run, data_root, out / run.folder) for run in RUNS if run.folder in (only or names)}
    if only:
        return
    say_head(["flaws", "scenes", *FIGURES])
    for run, one in found.items():
        say_row([run.flaws, f"{run.scenes:,}", *(f"{value:.3f}" for value in one["real"])])
    halves = {run.flaws: one for run, one in found.items() if run.flaws in HALVES}
    click.echo()
    say_head(["tile: recall / own map AUROC", *halves])
    for name in halves["first half"]["types"]:
        say_row([name, *(" / ".join(f"{v:.2f}" for v in one["types"][name]) for one in halves.values())])
    click.echo()
    say_head([f"generated: {' / '.join(OWN)}", "seen", "never seen"])
    for half, theirs in HALVES.items():
        (other,) = set(HALVES) - {half}
        for group in theirs:
            rows = [halves[flaws]["generated"][group] for flaws in (half, other)]
            say_row([group, *(" / ".join(f"{value:.2f}" for value in row) for row in rows)])


if __name__ == "__main__":
    main()
