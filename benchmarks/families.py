"""What each group of flaws teaches: side networks learned from nothing, each without one of the groups.

DATA_ROOT holds `magnetic_tile`, `steel_strip` and `textures`. Every run learns a fresh side network beside
the embedded model's towers, by the recipe's own stage but on fewer scenes, and answers alone, with the
model's words and settings. Some runs see all flaws, each from another seed: how far these are apart is what
chance does. The others see all groups but one (the families of flaws that one module draws), so that every
flaw is put to a network that never saw its like. Asked are the two real sets and, for each group, generated
scenes no run saw: its flaws beside the same good ones. Finished runs are kept in --out and not made again.
`--group` chooses what is left out. Markdown on stdout; seven minutes a run on two cores, 85 for all.

    python benchmarks/families.py DATA_ROOT
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click
import numpy as np
import torch
from looks import found, judged, named, real

from dapo.evaluation.record import write_text
from dapo.images import restore_map
from dapo.metrics import image_metrics, pixel_metrics
from dapo.model.artifact import EMBEDDED, load
from dapo.model.clip import load_clip, save_clip
from dapo.model.detector import Detector
from dapo.model.side_network import load_side_network
from dapo.pretraining.contrastive import SIDE_STAGE
from dapo.pretraining.corners import corner_pictures, mend_corners
from dapo.pretraining.flaws import FLAWS
from dapo.pretraining.image_stage import train_images
from dapo.pretraining.lexicon import Lexicon
from dapo.pretraining.looking import pixels_for
from dapo.pretraining.recipe import CORNERS_WORLD, SIDE_WORLD
from dapo.pretraining.scenes import World
from dapo.pretraining.states import forget_states
from dapo.pretraining.surfaces import Textures
from dapo.vocabulary import Defect, Vocabulary

SCENES = 14_400
SEEDS = 3  # of the runs on all flaws
ASKED_WORLD, GOOD, A_GROUP, SIDE = 8200, 200, 100, 224  # a seed, good scenes, flawed scenes a group, px
ON_REAL = ("tile image AUROC", "pixel AUROC", "AUPRO", "balanced", "steel top-1")
OWN = ("image AUROC", "pixel AUROC", "named of 50")


def groups() -> dict[str, tuple[str, ...]]:
    """Families of flaws by the module that draws them."""
    families: dict[str, list[str]] = {}
    for name, draw in FLAWS.items():
        families.setdefault(draw.__module__.rpartition(".")[2], []).append(name)
    return {group: tuple(names) for group, names in families.items()}


@dataclass(frozen=True)
class Run:
    """One side network: the group of flaws it never sees, None for all seen, and its seed."""

    without: str | None
    seed: int = 0

    @property
    def folder(self) -> str:
        return f"all-{self.seed}" if self.without is None else f"without-{self.without}"

    def world(self, seed: int, textures: Textures) -> World:
        """With the flaws it sees."""
        seen = tuple(name for group, names in groups().items() if group != self.without for name in names)
        return World(seed=seed + self.seed, twins=True, textures=textures, families=seen)


def runs(left_out: Sequence[str]) -> list[Run]:
    return [*(Run(None, seed) for seed in range(SEEDS)), *(Run(group) for group in left_out)]


def learned(run: Run, textures: Textures, out: Path) -> Detector:
    """The embedded model looking with the run's side network alone, trained unless it is there."""
    backbone = out / "backbone"
    if not (backbone / "config.json").is_file():
        clip = load_clip(EMBEDDED / "backbone").float()
        clip.side_network = None
        torch.manual_seed(run.seed)
        stage = replace(SIDE_STAGE, samples=SCENES, seed=run.seed)

        def say(row: dict[str, float]) -> None:
            if row["step"] % 75 == 0:
                click.echo(f"{run.folder}: {row}", err=True)

        world = run.world(SIDE_WORLD, textures)
        clip = train_images(clip, world, Lexicon.builtin(), out, stage, workers=2, log=say)
        assert clip.side_network is not None
        mend_corners(clip.side_network, corner_pictures(clip, run.world(CORNERS_WORLD, textures)))
        save_clip(clip, backbone, dtype=torch.float16)
        forget_states(out / stage.file)
    detector, _ = load()
    side = load_side_network(backbone)
    assert side is not None
    detector.clip.side_network = side.float()
    return detector.changed(scales=(), image_score="global").eval()


def on_real(detector: Detector, data_root: Path) -> dict[str, float]:
    """`ON_REAL`, and the image AUROC of each of the tile's types against its good ones."""
    every = [list(range(len(detector.settings.side_scales)))]
    words, pictures = real(data_root, 0)
    tile, (of_tile,) = judged(detector, words, pictures, every)
    flawed = np.array([picture.type is not None for picture in tile])
    steel_words, pictures = real(data_root, 1)
    steel, (of_steel,) = judged(detector, steel_words, pictures, every)
    figures = [*found(tile, of_tile), named(tile, of_tile)[1], named(steel, of_steel)[0]]
    rows = dict(zip(ON_REAL, figures, strict=True))
    for number, defect in enumerate(words.defects):
        asked = ~flawed | np.array([picture.type == number for picture in tile])
        rows[defect.name] = image_metrics(np.array(of_tile.scores)[asked], flawed[asked])["auroc"]
    return rows


def on_generated(detector: Detector, textures: Textures, asked: tuple[str, ...]) -> dict[str, list[float]]:
    """`OWN` of each group asked: its flaws against the same good scenes, and the share named right."""
    world = World(seed=ASKED_WORLD, textures=textures)
    states = detector.text_features(Vocabulary(tuple(Defect(name, (words(name),)) for name in FLAWS)))
    good = look(detector, replace(world, normal=1.0), GOOD, states)
    rows = {}
    for group in asked:
        flawed = look(detector, replace(world, normal=0.0, families=groups()[group]), A_GROUP, states)
        scores, maps, masks = ([row[i] for row in (*good, *flawed)] for i in range(3))
        rows[group] = [
            image_metrics(np.array(scores), np.array([mask.any() for mask in masks]))["auroc"],
            pixel_metrics(maps, masks)["auroc"],
            float(np.mean([own in there for *_, own, there in flawed])),
        ]
    return rows


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
        own = tuple(FLAWS)[int(seen.type_image[0].argmax())]
        rows.append((float(seen.image), shown, mask, own, set(scene.masks)))
        if len(rows) == count:
            break
    return rows


def measured(run: Run, data_root: Path, out: Path) -> dict:
    """Figures of one run: on the real sets, and by group on generated scenes; kept in `out`."""
    kept = out / "figures.json"
    if not kept.is_file():
        textures = Textures(data_root / "textures")
        detector = learned(run, textures, out)
        asked = tuple(groups()) if run.without is None else (run.without,)
        figures = {
            "real": on_real(detector, data_root),
            "generated": on_generated(detector, textures, asked),
        }
        write_text(kept, json.dumps(figures, indent=1))
    return json.loads(kept.read_text(encoding="utf-8"))


def say_row(cells: list[str]) -> None:
    click.echo("| " + " | ".join(cells) + " |")


def say_head(cells: list[str]) -> None:
    say_row(cells)
    click.echo("|---" + "|---:" * (len(cells) - 1) + "|")


@click.command(help=__doc__)
@click.argument("data_root", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--group", "chosen", multiple=True, type=click.Choice(list(groups())), help="Default: each.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("out/benchmarks/families"), show_default=True
)
def main(data_root: Path, chosen: tuple[str, ...], out: Path) -> None:
    rows = {run: measured(run, data_root, out / run.folder) for run in runs(chosen or tuple(groups()))}
    seen = [row for run, row in rows.items() if run.without is None]
    left_out = {run.without: row for run, row in rows.items() if run.without is not None}
    columns = list(seen[0]["real"])
    real_rows = np.array([[row["real"][column] for column in columns] for row in seen])
    say_head(["flaws learned", *columns])
    pairs = zip(real_rows.mean(0), real_rows.std(0, ddof=1), strict=True)
    say_row([f"all, {SEEDS} seeds", *(f"{mean:.3f} ± {spread:.3f}" for mean, spread in pairs)])
    for group, row in left_out.items():
        say_row([f"without {group}", *(f"{row['real'][column]:.3f}" for column in columns)])
    click.echo()
    say_head([f"generated: {' / '.join(OWN)}", "learned", "left out"])
    for group, row in left_out.items():
        known = np.mean([one["generated"][group] for one in seen], axis=0)
        say_row([group, *(" / ".join(f"{v:.2f}" for v in one) for one in (known, row["generated"][group]))])


if __name__ == "__main__":
    main()
