"""``dapo demo``: sample images with known flaws, or the user's own photos, inspected and drawn."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dapo.cli.inspect import Run, complain
from dapo.cli.main import debug_option
from dapo.cli.options import chosen_defects
from dapo.cli.table import common_folder, shorten

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from dapo.demo import Judgement, Sample, Tally
    from dapo.inspection import Inspection
    from dapo.inspector import Inspector
    from dapo.writers.sheet import Note

    Masks = Mapping[str, npt.NDArray[np.bool_]]

Thing = TypeVar("Thing")

MOST = 24  # of the user's photos; `dapo inspect` does all
WIDTH = 100  # characters of the table where there is no terminal
NAMES = 2  # types a row has room for
NAME_WIDTH = 40
TRUTH_FOLDER = "ground_truth"  # masks in the MVTec layout, not photos


@click.command(name="demo")
@click.option(
    "--images", type=click.Path(path_type=Path), metavar="FOLDER", help="Your own photos instead of samples."
)
@click.option("--defects", metavar="NAMES", help='Defect types in your own words: "scratch, pin hole".')
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/demo"),
    show_default=True,
    help="Folder to write to.",
)
@click.option("--model", metavar="DIR_OR_ID", help="A model folder or hub id. Default: the embedded model.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Other flaws on the samples.")
@debug_option
@click.pass_context
def command(
    context: click.Context,
    images: Path | None,
    defects: str | None,
    out: Path,
    model: str | None,
    seed: int | None,
) -> None:
    """Inspect sample images with known flaws, or your own photos, and draw the answers.

    The samples are real photographs that come inside scikit-image (pip install 'dapo[demo]'), with generated
    flaws on most of them: the truth is known and drawn beside the answer. Of a folder with more than 24
    photos, 24 are taken, evenly spaced.
    """
    words = chosen_defects(defects, None)
    if images is None:
        context.exit(show_samples(out, words, model, seed))
    if seed is not None:
        raise click.UsageError("--seed belongs to the samples; leave it out with --images")
    context.exit(show_photos(images, out, words, model))


def show_samples(out: Path, words: Any, model: str | None, seed: int | None) -> int:
    """Make, inspect, judge and draw the samples. Returns the exit code."""
    from PIL import Image

    from dapo.demo import DEFECTS, SEED, SHOTS, Tally, judge, make_samples
    from dapo.inspection import Inspection
    from dapo.inspector import Inspector
    from dapo.vocabulary import Vocabulary

    sampler = make_samples(SEED if seed is None else seed)
    inspector = Inspector.from_pretrained(model)
    words = Vocabulary.of(list(DEFECTS)) if words is None else words
    clear(out, ("images", "overlay", "heatmap"))
    (out / "images").mkdir(parents=True, exist_ok=True)
    samples, paths = [], []
    for sample in track(sampler, len(SHOTS), "drawing"):
        samples.append(sample)
        paths.append(out / "images" / f"{sample.name}.png")
        Image.fromarray(sample.image).save(paths[-1])

    table = new_table("image", "truth", "verdict", "score", "answer", "outcome")
    tally, run = Tally(), Run(len(paths))
    with Board(out, inspector, words, paths, f"{len(paths)} samples", "dashed: the truth") as board:
        results = track(inspector.stream(paths, words), len(paths), "inspecting")
        for sample, result in zip(samples, results, strict=True):
            run.add(result)
            complain(result)
            if not isinstance(result, Inspection):
                continue
            judgement = judge(sample, result)
            tally.add(sample, judgement)
            board.add(result, sample.masks, sample_notes(sample, judgement))
            table.add_row(*sample_row(sample, result, judgement))
        board.sheet.title = verdict_on(tally)
    console = new_console()
    console.print(table)
    console.print(f"\n{verdict_on(tally)}", style="bold")
    console.print(caution(model), style="dim")
    closing(
        console,
        run,
        {
            **written(out),
            f"{out / 'overlay'}{os.sep}": "photo, truth and answer side by side",
            f"{out / 'images'}{os.sep}": "the samples",
        },
        {
            f"{program()} demo --images FOLDER": "your own photos",
            f'{program()} inspect FOLDER --defects "scratch, pin hole"': "all of them, in your own words",
            f"{program()} calibrate --good FOLDER": "a threshold from about 20 good parts",
        },
    )
    return run.exit_code(None)


def show_photos(images: Path, out: Path, words: Any, model: str | None) -> int:
    """Inspect and draw the user's photos, at most ``MOST``. Returns the exit code."""
    from dapo.images import expand_paths
    from dapo.inspection import Inspection
    from dapo.inspector import Inspector

    found = [path for path in expand_paths(images) if TRUTH_FOLDER not in path.parts[len(images.parts) : -1]]
    paths = evenly(found, MOST)
    inspector = Inspector.from_pretrained(model)
    if not images.resolve().is_relative_to(out.resolve()):
        clear(out, ("overlay", "heatmap"))
    shared = common_folder([str(path) for path in paths])
    count = f"{len(paths)} of {len(found)} photos" if len(found) > len(paths) else f"{len(paths)} photos"
    table = new_table("image", "verdict", "score", "answer")
    run = Run(len(paths))
    with Board(out, inspector, words, paths, f"{count} in {images}", "") as board:
        for result in track(inspector.stream(paths, words), len(paths), "inspecting"):
            run.add(result)
            complain(result)
            if not isinstance(result, Inspection):
                continue
            board.add(result, None, photo_notes(result))
            name = shorten(result.image.removeprefix(shared), NAME_WIDTH)
            table.add_row(name, verdict_cell(result), f"{result.score:.2f}", answer_cell(result, ()))
    console = new_console()
    if table.row_count:
        console.print(table)
    every = f"{program()} inspect {shlex.quote(str(images))}"
    if len(found) > len(paths):
        console.print(f"\nThese are {len(paths)} of the {len(found)} photos, evenly spaced.", style="yellow")
        following = {every: f"all {len(found)}"}
    else:
        following = {every: "more formats and options"}
    following[f'{every} --defects "scratch, pin hole"'] = "in your own words"
    closing(console, run, written(out), following)
    return run.exit_code(None)


class Board:
    """Everything that is written for one answer: record, report, pictures, tile of the overview."""

    def __init__(
        self, out: Path, inspector: Inspector, words: Any, paths: Sequence[Path], title: str, legend: str
    ) -> None:
        from dapo.writers.heatmap import HeatmapWriter
        from dapo.writers.html import HtmlReport
        from dapo.writers.jsonl import JsonlWriter
        from dapo.writers.overlay import OverlayWriter
        from dapo.writers.sheet import ContactSheet

        root = common_folder([str(path) for path in paths]) or "."
        asked = len(inspector.vocabulary(words).defects)
        facts = [legend, "outlined: the answer", f"{asked} types asked for", f"model {inspector.info.name}"]
        subtitle = " · ".join(fact for fact in facts if fact)
        self.sheet = ContactSheet(out / "overview.png", title, subtitle, root=root)
        self.overlay = OverlayWriter(out / "overlay", root)
        self.others: list[Any] = [
            HeatmapWriter(out / "heatmap", root),
            HtmlReport(out / "report.html", title=f"Demo: {title}", vocabulary=inspector.vocabulary(words)),
            JsonlWriter(out / "results.jsonl"),
        ]
        self._open = contextlib.ExitStack()

    def __enter__(self) -> Board:
        for writer in (self.sheet, self.overlay, *self.others):
            self._open.enter_context(writer)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._open.__exit__(*exception)

    def add(self, result: Inspection, truth: Masks | None, notes: Sequence[Note]) -> None:
        """Write one answer; with a truth, even an empty one, the overlay shows it beside the answer."""
        from dapo.writers.overlay import JPEG_QUALITY, compare

        if truth is None:
            self.overlay.write(result)
        else:
            picture = compare(None, truth, result)
            picture.save(self.overlay.names.path_for(result.image), quality=JPEG_QUALITY, subsampling=0)
        for writer in self.others:
            writer.write(result)
        self.sheet.write(result, truth, notes)


def track(things: Iterable[Thing], total: int, doing: str) -> Iterator[Thing]:
    """``things``, with a line on stderr while they come, if stderr is a terminal."""
    if not sys.stderr.isatty():
        yield from things
        return
    from rich.console import Console
    from rich.progress import track as bar

    yield from bar(things, doing, total=total, console=Console(stderr=True), transient=True)


def evenly(paths: Sequence[Path], most: int) -> list[Path]:
    """At most ``most`` of ``paths``, first and last among them, evenly spaced."""
    if len(paths) <= most:
        return list(paths)
    return [paths[round(i * (len(paths) - 1) / (most - 1))] for i in range(most)]


def clear(out: Path, folders: Sequence[str]) -> None:
    """Remove the pictures of an earlier demo; a folder that holds none of our overviews is left alone."""
    if (out / "overview.png").is_file() and (out / "results.jsonl").is_file():
        for name in folders:
            shutil.rmtree(out / name, ignore_errors=True)


def sample_notes(sample: Sample, judgement: Judgement) -> list[Note]:
    """What became of each flaw, or of the untouched sample."""
    if not sample.masks:
        return [("untouched, passed" if judgement.right else "untouched: false alarm", judgement.right)]
    notes: list[Note] = []
    for name in sample.masks:
        call = judgement.calls.get(name)
        if not judgement.right:
            notes.append((f"{name}: missed", False))
        elif name not in judgement.calls:
            notes.append((f"{name}: not asked for", None))
        elif call == name:
            notes.append((name, True))
        else:
            notes.append((f"{name}: {f'called {call}' if call else 'not located'}", False))
    return notes


def photo_notes(result: Inspection) -> list[Note]:
    """The types found, best first."""
    best = best_regions(result)
    return [(f"{name} {score:.2f}", None) for name, score in best.items()] or [("no region", None)]


def best_regions(result: Inspection) -> dict[str, float]:
    """Types of the regions with their best score, highest first."""
    best: dict[str, float] = {}
    for region in result.regions:
        best.setdefault(region.type, region.score)
    return dict(list(best.items())[:NAMES])


def new_table(*columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, header_style="bold", show_edge=False, padding=(0, 1, 0, 0))
    for column in columns:
        rigid = column in ("verdict", "score", "outcome")
        table.add_column(column, justify="right" if column == "score" else "left", no_wrap=rigid)
    return table


def new_console() -> Console:
    """Standard output; as wide as the terminal, or ``WIDTH``."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH)


def sample_row(sample: Sample, result: Inspection, judgement: Judgement) -> list[str | Text]:
    from rich.text import Text

    return [
        sample.name,
        ", ".join(sample.masks) or Text("untouched", style="dim"),
        verdict_cell(result),
        f"{result.score:.2f}",
        answer_cell(result, sample.types),
        outcome_cell(sample, judgement),
    ]


def verdict_cell(result: Inspection) -> Text:
    from rich.text import Text

    return Text(result.verdict, style="red" if result.verdict == "defective" else "green")


def outcome_cell(sample: Sample, judgement: Judgement) -> Text:
    """Passed or a false alarm; missed, or found and named; in green, yellow or red."""
    from rich.text import Text

    if not sample.masks:
        return Text("passed", style="green") if judgement.right else Text("false alarm", style="red")
    if not judgement.right:
        return Text("missed", style="red")
    flaws = len(judgement.calls)
    if judgement.named == flaws:
        return Text("found, named" if flaws else "found", style="green")
    named = f"{judgement.named} of {flaws} named" if judgement.named else "not named"
    return Text(f"found, {named}", style="yellow")


def answer_cell(result: Inspection, truth: Sequence[str]) -> Text:
    """The types of the regions, best first; those that are true in green."""
    from rich.text import Text

    cell = Text()
    room = NAMES if new_console().width >= WIDTH else 1
    for name, score in list(best_regions(result).items())[:room]:
        cell.append(", " if cell else "").append(name, style="green" if name in truth else "")
        cell.append(f" {score:.2f}", style="dim")
    return cell if cell else Text("-", style="dim")


def verdict_on(tally: Tally) -> str:
    """How many were found, passed and named, in one sentence."""
    line = (
        f"Found {tally.found} of {tally.defective} defective samples, "
        f"passed {tally.passed} of {tally.good} untouched ones"
    )
    return line + (f", named {tally.named} of {tally.flaws} flaws right." if tally.flaws else ".")


def caution(model: str | None) -> str:
    """What these figures do not say."""
    if model is None:
        return (
            "These flaws are new to the model, but drawn by the generator it was trained with: expect less "
            "on parts of your own. It has seen none of the photographs."
        )
    return "The flaws are generated, not real: expect other figures on parts of your own."


def written(out: Path) -> dict[str, str]:
    """What every demo writes, and what it is good for."""
    return {
        str(out / "overview.png"): "all answers on one picture",
        f"{out / 'overlay'}{os.sep}": "photo and answer",
        f"{out / 'heatmap'}{os.sep}": "where something looks wrong, and how strongly",
        str(out / "report.html"): "to sort and filter, in a browser",
        str(out / "results.jsonl"): "for programs, one record an image",
    }


def closing(console: Console, run: Run, files: Mapping[str, str], commands: Mapping[str, str]) -> None:
    """What it took, where everything is, and what to try next."""
    console.print(f"\n{run.summary()}", style="dim", markup=False, soft_wrap=True)
    for title, lines in (("Written", files), ("Next", commands)):
        console.print(f"\n{title}", style="bold")
        width = max(len(line) for line in lines)
        for line, what in lines.items():
            console.print(f"  {line:<{width}}  [dim]{what}[/dim]", soft_wrap=True)


def program() -> str:
    """How the user can call this program again from here."""
    called = Path(sys.argv[0])
    if called.stem != "dapo":
        return "python -m dapo" if called.name == "__main__.py" else "dapo"
    on_path = shutil.which("dapo")
    if on_path is not None and os.path.samefile(on_path, called):
        return "dapo"
    with contextlib.suppress(ValueError):
        return str(called.absolute().relative_to(Path.cwd()))
    return str(called)
