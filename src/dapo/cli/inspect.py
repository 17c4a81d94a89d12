"""``dapo inspect``: images in, named flaws out."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import sys
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from dapo.cli.main import DEFECTIVE, FAILED_INPUT, INTERRUPTED, debug_option
from dapo.cli.options import CommaList, Rate, chosen_defects, defect_options, looking_options, model_options
from dapo.cli.outputs import (
    FORMATS,
    PICTURES,
    RESULTS,
    SEGMENTATIONS,
    open_documents,
    open_journal,
    open_pictures,
    where,
)
from dapo.cli.resume import Earlier, keep_settings, load_earlier, settings_of, sort_results
from dapo.cli.stages import terminal_bar
from dapo.errors import InputError

if TYPE_CHECKING:
    from dapo.inspection import Failure, Inspection
    from dapo.inspector import Inspector

FULL = (errno.ENOSPC, errno.EDQUOT)  # what the system says of a full disk


class Shard(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """``i/n`` -> (i, n), counted from 1."""

    name = "i/n"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        if isinstance(value, tuple):
            return value
        number, _, count = str(value).partition("/")
        if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
            self.fail(f"{value!r} is not one of 1/n, 2/n, ... n/n", param, ctx)
        return int(number), int(count)

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return "i/n"


@click.command(name="inspect")
@click.argument("paths", nargs=-1, required=True, metavar="PATH...")
@defect_options
@model_options
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/inspect"),
    show_default=True,
    help="Folder to write to.",
)
@click.option(
    "--save",
    type=CommaList(PICTURES),
    default="overlay",
    show_default=True,
    help="Pictures to write, or none.",
)
@click.option(
    "--format",
    "formats",
    type=CommaList(FORMATS),
    default="jsonl,html",
    show_default=True,
    help="Result files to write, or none.",
)
@click.option(
    "--coco-segmentation",
    "segmentation",
    type=click.Choice(SEGMENTATIONS),
    default="rle",
    show_default=True,
    help="How coco.json draws regions: rle is exact, polygon has no holes.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Score from which a part is defective. Default: the calibration's, else the model's.",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    metavar="DIR_OR_FILE",
    help="What dapo calibrate wrote. Default: that in the model folder, if there is one.",
)
@click.option(
    "--false-alarm", type=Rate(), metavar="RATE", help="To hold, such as 1%, instead of the calibrated one."
)
@looking_options
@click.option(
    "--mutual",
    is_flag=True,
    help="Compare the images with one another too: similar parts, most of them good, none labelled.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="JSON lines on stdout; files only with --out, --save or --format.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Keep what results.jsonl in --out holds and only do the rest; failed images are tried again.",
)
@click.option("--shard", type=Shard(), help="Only part i of n of the list, into --out/shard-i-of-n.")
@click.option("--fail-on", type=click.Choice(["defective"]), help="Exit 3 when a part is defective.")
@debug_option
@click.pass_context
def command(
    context: click.Context,
    paths: tuple[str, ...],
    defects: str | None,
    vocabulary: Path | None,
    model: str | None,
    device: str | None,
    precision: Literal["auto", "fp32", "bf16"],
    batch_size: int,
    out: Path,
    save: tuple[str, ...],
    formats: tuple[str, ...],
    segmentation: str,
    threshold: float | None,
    calibration: Path | None,
    false_alarm: float | None,
    tile: str | None,
    roi: str | None,
    mutual: bool,
    as_json: bool,
    resume: bool,
    shard: tuple[int, int] | None,
    fail_on: str | None,
) -> None:
    """Find flaws in images and name them.

    PATH is an image, a folder (searched with its subfolders) or a pattern such as "parts/*.png"; - reads a
    list of paths from stdin, one a line. Each page of a TIFF is an image, named stack.tif#page=2. Writes
    results.jsonl, report.html and the pictures into --out; what each format holds is told in docs/formats.md.

    A file that cannot be inspected is named, the others are done, and the exit code is 1. --shard 2/4 does
    the second quarter of the list, also beside the others; --resume without --shard then joins the parts.
    """
    context.with_resource(warnings.catch_warnings())
    warnings.filterwarnings("ignore", module="PIL")  # of damaged files, which are named as failures
    words = chosen_defects(defects, vocabulary)
    files, failures = find_files(paths)
    named = {"out", "save", "formats", "resume", "shard"}
    explicit = any(
        context.get_parameter_source(name) not in (None, click.core.ParameterSource.DEFAULT) for name in named
    )
    if as_json and not explicit:
        save, formats = (), ()
    if resume and "jsonl" not in formats:
        raise click.UsageError("--resume goes on from results.jsonl; add jsonl to --format")
    if mutual and (resume or shard is not None):
        raise click.UsageError(
            "--mutual compares all images at once; it goes with no --resume and no --shard"
        )

    names = [str(file) for file in files]  # of all parts: pictures are named alike in each
    folder = out
    if shard is not None:
        files, failures = part_of(files, failures, shard)
        folder = out / f"shard-{shard[0]}-of-{shard[1]}"
    images = [*(failure.image for failure in failures), *map(str, files)]
    settings: dict[str, Any] = {}
    inspector = None
    if files:
        from dapo.inspector import Inspector

        inspector = Inspector.from_pretrained(
            model,
            device=device,
            precision=precision,
            threshold=threshold,
            calibration=False if mutual else calibration,
            false_alarm=false_alarm,
            tile=tile,
            roi=roi,
        )
        words = inspector.vocabulary(words)
        looking = {"tile": str(inspector.tiling), "roi": inspector.roi and inspector.roi.text}
        settings = settings_of(inspector, words, calibration=inspector.rule.record, mutual=mutual, **looking)
    if resume and inspector is None:
        save, formats = (), ()  # nothing to inspect is no reason to lose what is there
    pictures = list(open_pictures(out, save, names))
    earlier = Earlier(folder / RESULTS)
    if resume and inspector is not None:
        earlier = load_earlier(folder, images, settings, pictures, shards=shard is None)
    fresh: Iterator[Inspection | Failure] = iter(failures)
    if inspector is not None:
        new = [file for file in files if str(file) not in earlier]
        stream = inspector.stream_mutual if mutual else inspector.stream
        fresh = itertools.chain(failures, stream(new, defects=words, batch_size=batch_size))

    documents = list(open_documents(folder, formats, names, words, segmentation))
    run = Run(len(images), len(earlier))
    try:
        with contextlib.ExitStack() as stack:
            journal = open_journal(folder, formats, append=len(earlier) > 0)
            show = JsonPrinter() if as_json else TablePrinter(names)
            of_new = [show, *(stack.enter_context(writer) for writer in (*journal, *pictures))]
            of_all = [stack.enter_context(writer) for writer in documents]
            if "jsonl" in formats and inspector is not None:
                keep_settings(folder, settings)
            asked = stack.enter_context(progress(images, run.total))
            work(asked, earlier, fresh, of_new, of_all, run, photos="html" in formats)
    except KeyboardInterrupt:
        run.interrupted = True
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise click.ClickException(run.disk_full(error.filename or folder)) from error
    if len(earlier):
        sort_results(folder / RESULTS, images)
    click.echo(run.summary(), err=as_json)
    if inspector is not None and run.last is not None:
        click.echo(finest(inspector, run.last), err=as_json)
    if save or formats:
        click.echo(where(folder, out, save, formats), err=as_json)
    context.exit(run.exit_code(fail_on))


def work(
    images: Iterable[str],
    earlier: Earlier,
    fresh: Iterator[Inspection | Failure],
    of_new: Sequence[Any],
    of_all: Sequence[Any],
    run: Run,
    photos: bool,
) -> None:
    """Every image in order: its earlier result to the writers ``of_all``, its fresh one to ``of_new`` too."""
    try:
        for image in images:
            kept = image in earlier
            result = earlier.result(image, pixels=photos) if kept else next(fresh)
            for writer in of_all if kept else (*of_new, *of_all):
                writer.write(result)
            run.add(result)
            complain(result)
    except KeyboardInterrupt:
        for result in earlier.rest():
            for writer in of_all:
                writer.write(result)
            run.add(result)
        raise


class Run:
    """What happened so far: counts, time, and the exit code that follows.

    total: images asked for. kept: how many of them have a result from an earlier run.
    """

    def __init__(self, total: int, kept: int = 0) -> None:
        self.total = total
        self.kept = kept
        self.defective = self.ok = self.failed = 0
        self.interrupted = False
        self.last: Inspection | None = None
        self.started = time.perf_counter()

    def add(self, result: Inspection | Failure) -> None:
        from dapo.inspection import Inspection

        if not isinstance(result, Inspection):
            self.failed += 1
            return
        self.defective += result.verdict == "defective"
        self.ok += result.verdict == "ok"
        self.last = result

    def summary(self) -> str:
        """How many of each and how long it took; then the model, its threshold and where that comes from."""
        done = self.defective + self.ok - self.kept
        seconds = time.perf_counter() - self.started
        kept = f" and {self.kept} kept" if self.kept else ""
        parts = [f"{done} inspected{kept}: {self.defective} defective, {self.ok} ok"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.interrupted:
            parts.append(f"stopped, {self.total - done - self.kept - self.failed} not looked at")
        each = f" ({1000 * seconds / done:.0f} ms an image)" if done > 1 else ""
        line = "; ".join([*parts, f"{seconds:.1f} s{each}"])
        if self.last is not None:
            facts = (self.last.model.get(key) for key in ("name", "version"))
            model = " ".join(str(fact) for fact in facts if fact)
            line += f"\nmodel {model}; threshold {self.last.threshold:.2f}, {self.last.calibration_statement}"
        return line

    def disk_full(self, path: Any) -> str:
        """The sentence for a disk without room."""
        done = self.defective + self.ok + self.failed
        return (
            f"{path}: the disk is full after {done} of {self.total} images; what is written is whole. "
            "Free some space and run the same command again with --resume"
        )

    def exit_code(self, fail_on: str | None) -> int:
        """Interrupted before defective before failed: the most urgent one wins."""
        if self.interrupted:
            return INTERRUPTED
        if fail_on == "defective" and self.defective:
            return DEFECTIVE
        return FAILED_INPUT if self.failed else 0


def finest(inspector: Inspector, result: Inspection) -> str:
    """How small a flaw may be in a picture like the last, and how to see smaller ones."""
    from dapo.tiles import auto_size

    height, width = result.height, result.width
    pixels = inspector.smallest_defect(height, width)
    line = f"flaws below about {pixels:.0f} px are not to be expected in pictures of {width} x {height}"
    if inspector.tiling == "off" and auto_size(height, width, side=inspector.detector.side) is not None:
        line += "; --tile auto looks closer, and takes longer"
    return line


def find_files(paths: Iterable[str]) -> tuple[list[Path], list[Failure]]:
    """Images named by ``paths``, each once, and a failure for every path that names none.

    ``-`` is replaced by the lines of stdin.
    """
    from dapo.images import expand_paths
    from dapo.inspection import Failure

    wanted: list[str] = []
    for path in paths:
        wanted.extend(read_list() if path == "-" else [path])
    if not wanted:
        raise click.UsageError("stdin held no paths; expected one path a line")
    found: dict[str, Path] = {}
    failures: list[Failure] = []
    for path in wanted:
        try:
            for file in expand_paths(path):
                found.setdefault(os.path.normcase(os.path.abspath(file)), file)
        except InputError as error:
            failures.append(Failure(path, error.kind, error.message))
    return list(found.values()), failures


def read_list() -> list[str]:
    """Paths from stdin, one a line; blank lines are skipped."""
    return [line.strip() for line in sys.stdin if line.strip()]


def part_of(
    files: Sequence[Path], failures: Sequence[Failure], shard: tuple[int, int]
) -> tuple[list[Path], list[Failure]]:
    """The files and failures of part i of n: equal runs of the whole list, failures first."""
    (number, count), total, bad = shard, len(failures) + len(files), len(failures)
    start, stop = (number - 1) * total // count, number * total // count
    return list(files[max(0, start - bad) : max(0, stop - bad)]), list(failures[start:stop])


class JsonPrinter:
    """JSON lines on stdout, flushed one by one: a reader downstream can start at once."""

    def __init__(self) -> None:
        from dapo.writers.jsonl import JsonlWriter

        self.lines = JsonlWriter(sys.stdout)

    def write(self, result: Inspection | Failure) -> None:
        self.lines.write(result)


class TablePrinter:
    """Rows on stdout as images are done."""

    def __init__(self, names: list[str]) -> None:
        from dapo.cli.table import ResultTable

        self.table = ResultTable(names)
        self.begun = False

    def write(self, result: Inspection | Failure) -> None:
        from dapo.inspection import Inspection

        if isinstance(result, Inspection):
            if not self.begun:
                click.echo(self.table.header())
                self.begun = True
            click.echo(self.table.row(result))


def complain(result: Inspection | Failure) -> None:
    """A failed image gets its line on stderr."""
    message = getattr(result, "message", None)
    if message is not None:
        line = message if result.image in message else f"{result.image}: {message}"
        click.echo(f"dapo: {line}", err=True)


@contextlib.contextmanager
def progress(results: Iterable[Any], total: int) -> Iterator[Iterable[Any]]:
    """``results``, with a bar on stderr while they come, if stderr is a terminal."""
    if total < 2 or not sys.stderr.isatty():
        yield results
        return
    with terminal_bar("inspecting") as bar:
        yield bar.track(results, total=total)
