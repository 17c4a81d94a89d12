"""When references help: figures without any, with k good parts, and with the other pictures of the folder.

Generated product lines of a world on which nothing was chosen, in the model's own words; with --data, also
folders drawn from the test split of DATA_ROOT/magnetic_tile, in the words of the experiment "embedded". A
folder is 32 good and 8 flawed pictures of similar parts; references are good parts that are not in it. No two
pictures of one physical tile meet, neither in a folder nor as reference. Prints two tables:

- figures: AUROC of the images, AUROC and AUPRO of the pixels, mean over the folders (and over the draws of
  references, with the standard deviation of that mean between draws);
- verdicts: the share of good parts called defective and of flawed parts found, at the model's own threshold
  without references and with --mutual, and at that of `dapo calibrate` on 20 good parts for 5 %.

    python benchmarks/product_lines.py --data DATA_ROOT

With --choose it prints instead how the numbers of the fusion come out on lines of another world, each with
the figures it was chosen by (`dapo.pretraining.references`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from dapo.data import Sample, read_folder
from dapo.errors import DapoError
from dapo.evaluation.experiment import load_experiment
from dapo.goodparts import calibrate
from dapo.images import load_image, restore_map
from dapo.inspector import Inspector
from dapo.metrics import image_metrics, pixel_metrics
from dapo.model.crowd import Crowd, gather
from dapo.model.memory import Memory, layers_of, remember
from dapo.pretraining.lines import Line
from dapo.pretraining.references import LINES_WORLD, Evidence, choose_references, evidence_of
from dapo.pretraining.scenes import World
from dapo.vocabulary import Defect, Vocabulary

TEST_LINES = 9000  # seed of the world
TILE = "magnetic_tile"
SHOTS, CALIBRATED, FALSE_ALARM = (1, 4), 20, 0.05
DRAWS = 3
FOLDER = 40  # pictures
WORDS_ALONE, MUTUAL = "none", "mutual"
THRESHOLD = {
    WORDS_ALONE: "the model's own",
    f"k = {CALIBRATED}": f"calibrated on {CALIBRATED} good parts, {FALSE_ALARM:.0%}",
    MUTUAL: "the model's own, mutual",
}

Rgb = NDArray[np.uint8]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Folder:
    """Pictures of similar parts with the truth of each, and for each draw other parts that are good."""

    pictures: list[Rgb]
    truths: list[Mask]
    good: list[list[Rgb]]


@dataclass(frozen=True)
class Answer:
    """What was said of a folder's pictures; threshold: the score from which a part is defective."""

    scores: NDArray[np.float64]
    maps: list[NDArray[np.float32]]
    threshold: float

    @property
    def defective(self) -> Mask:
        return np.asarray(self.scores >= self.threshold)


def lines(count: int, flawed: int) -> Iterator[Folder]:
    for number in range(count):
        line = Line(World(seed=TEST_LINES, other=True), number)
        scenes = [line.scene(i, good=i >= flawed) for i in range(FOLDER)]
        truths = [scene.flawed for scene in scenes]
        good = [
            [line.scene(1000 * (draw + 1) + i, good=True).image for i in range(CALIBRATED)]
            for draw in range(DRAWS)
        ]
        yield Folder([scene.image for scene in scenes], truths, good)


def tiles(root: Path, count: int, flawed: int) -> Iterator[Folder]:
    samples = read_folder(root, group_key="tile")
    pools = [
        [s for s in samples if s.split == "test" and s.defective],
        [s for s in samples if s.split == "test" and not s.defective],
        [s for s in samples if s.split == "train"],
    ]
    for number in range(count):
        rng = np.random.default_rng(number)
        bad, good, other = (one_a_part([pool[i] for i in rng.permutation(len(pool))]) for pool in pools)
        chosen = bad[:flawed]
        chosen += apart(good, chosen)[: FOLDER - flawed]
        other = apart(other, chosen)
        draws = [[other[i] for i in rng.permutation(len(other))[:CALIBRATED]] for _ in range(DRAWS)]
        pictures = [load_image(sample.image) for sample in chosen]
        truths = [truth_of(sample, *image.shape[:2]) for sample, image in zip(chosen, pictures, strict=True)]
        yield Folder(pictures, truths, [[load_image(s.image) for s in draw] for draw in draws])


def one_a_part(samples: Sequence[Sample]) -> list[Sample]:
    return list({sample.group: sample for sample in samples}.values())


def apart(samples: Sequence[Sample], others: Sequence[Sample]) -> list[Sample]:
    """Those of other physical parts."""
    seen = {sample.group for sample in others}
    return [sample for sample in samples if sample.group not in seen]


def truth_of(sample: Sample, height: int, width: int) -> Mask:
    masks = (sample.load_masks(height, width) if sample.defective else None) or {}
    return np.any([np.zeros((height, width), bool), *masks.values()], axis=0)


@torch.inference_mode()
def judged(inspector: Inspector, folder: Folder, words: Vocabulary) -> dict[str, list[Answer]]:
    """{what the words were joined by: an answer for each draw of it}."""
    detector = inspector.detector
    states = detector.text_features(words)
    device, layers = states.device, layers_of(detector)

    def prepared(pictures: Sequence[Rgb]) -> list[torch.Tensor]:
        return [torch.from_numpy(inspector.views(picture)[0]) for picture in pictures]

    seen = [detector.looks(pixels[None].to(device), layers) for pixels in prepared(folder.pictures)]

    def answer(memory: Memory | Crowd | None, threshold: float = np.inf) -> Answer:
        told = [detector.judge(looks, states, memory) for looks in seen]
        maps = [
            restore_map(scores.binary[0].float().cpu().numpy(), *truth.shape)
            for scores, truth in zip(told, folder.truths, strict=True)
        ]
        return Answer(np.array([float(scores.image[0]) for scores in told]), maps, threshold)

    found = {WORDS_ALONE: [answer(None, inspector.threshold)]}
    for k in SHOTS:
        views = [[[picture] for picture in prepared(good[:k])] for good in folder.good]
        found[f"k = {k}"] = [answer(remember(detector, one)) for one in views]
    found[f"k = {CALIBRATED}"] = [
        answer(one.memory, one.calibration.promise().threshold)
        for good in folder.good
        if (one := calibrate(inspector, good, false_alarm=FALSE_ALARM, defects=words)).calibration
    ]
    found[MUTUAL] = [answer(gather(detector, prepared(folder.pictures)), inspector.threshold)]
    return found


def figures(folder: Folder, answer: Answer) -> list[float]:
    """Image AUROC, pixel AUROC, AUPRO."""
    pixels = pixel_metrics(answer.maps, folder.truths)
    image = image_metrics(answer.scores, [bool(truth.any()) for truth in folder.truths])
    return [image["auroc"], pixels["auroc"], pixels["aupro"]]


def tables(title: str, folders: Sequence[Folder], told: Sequence[dict[str, list[Answer]]]) -> str:
    """Both tables of these folders, in Markdown."""
    flawed = np.array([[bool(truth.any()) for truth in folder.truths] for folder in folders])
    pictures = f"{len(folders)} folders, {(~flawed).sum()} good and {flawed.sum()} flawed pictures"
    rows = [
        f"#### {title}: {pictures}",
        "",
        "| references | image AUROC | pixel AUROC | AUPRO |",
        "|---" * 4 + "|",
    ]
    verdicts = ["| threshold | good called defective | flawed found |", "|---" * 3 + "|"]
    for way in told[0]:
        answers = [one[way] for one in told]
        each = np.array(
            [[figures(folder, a) for a in own] for folder, own in zip(folders, answers, strict=True)]
        )
        draws = np.nanmean(each, axis=0)  # (draws, figures)
        cells = [
            f"{value:.3f}" + (f" ± {spread:.3f}" if len(draws) > 1 else "")
            for value, spread in zip(draws.mean(0), draws.std(0), strict=True)
        ]
        rows.append(f"| {' | '.join([way, *cells])} |")
        if way in THRESHOLD:
            called = np.array([[a.defective for a in own] for own in answers]).swapaxes(1, 2)
            good, bad = 100 * called[~flawed].mean(), 100 * called[flawed].mean()
            verdicts.append(f"| {THRESHOLD[way]} | {good:.1f} % | {bad:.1f} % |")
    return "\n".join([*rows, "", *verdicts, ""])


def chosen(inspector: Inspector, count: int) -> str:
    """What `choose_references` finds on so many lines, in Markdown."""
    found: list[Evidence] = []
    for number in track(range(count), description="Lines", console=Console(stderr=True)):
        line = Line(World(seed=LINES_WORLD, other=True), number)
        found += evidence_of(inspector.detector, line, inspector.vocabulary().names)
    fusion = inspector.detector.settings.fusion
    weights = choose_references(found, fusion, inspector.threshold)
    rows = ["| number | chosen | value: figure |", "|---" * 3 + "|"]
    for name, figures in weights.figures.items():
        told = ", ".join(f"{value:g}: {figure:.4f}" for value, figure in figures.items())
        rows.append(f"| {name} | {getattr(weights, name):g} | {told} |")
    return "\n".join(rows)


@click.command(help=__doc__)
@click.option("--data", type=click.Path(path_type=Path, exists=True, file_okay=False), help="DATA_ROOT.")
@click.option("--model", default=None, help="Model folder or hub id; default: the embedded model.")
@click.option("--choose", type=click.IntRange(1), metavar="LINES", help="Choose the numbers on so many.")
@click.option("--folders", type=click.IntRange(1), default=4, show_default=True, help="Of each set.")
@click.option("--flawed", type=click.IntRange(1, FOLDER - 1), default=8, show_default=True, help="Of 40.")
def main(data: Path | None, model: str | None, choose: int | None, folders: int, flawed: int) -> None:
    try:
        inspector = Inspector.from_pretrained(model, calibration=False)
        if choose is not None:
            click.echo(chosen(inspector, choose))
            return
        sets = {"Generated lines": (lines(folders, flawed), inspector.vocabulary())}
        if data is not None:
            (phrases,) = [test.phrases for test in load_experiment("embedded").test if test.root == TILE]
            words = Vocabulary.of([Defect(name, tuple(said)) for name, said in phrases.items()])
            sets["Magnetic tile"] = (tiles(data / TILE, folders, flawed), words)
        for title, (some, words) in sets.items():
            own = list(some)
            progress = track(own, description=title, console=Console(stderr=True))
            click.echo(tables(title, own, [judged(inspector, folder, words) for folder in progress]))
    except DapoError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
