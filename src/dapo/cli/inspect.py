"""``dapo inspect``: images in, named flaws out."""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from dapo.cli.main import DEFECTIVE, FAILED_INPUT, INTERRUPTED, debug_option
from dapo.cli.options import CommaList, chosen_defects, defect_options, model_options
from dapo.errors import InputError

if TYPE_CHECKING:
    from dapo.inspection import Failure, Inspection

PICTURES = ("overlay", "heatmap")
FORMATS = ("jsonl", "html")


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
    "--threshold",
    type=click.FloatRange(0, 1),
    help="Score from which a part is defective. Default: the model's.",
)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="JSON lines on stdout; files only with --out, --save or --format.",
)
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
    threshold: float | None,
    as_json: bool,
    fail_on: str | None,
) -> None:
    """Find flaws in images and name them.

    PATH is an image, a folder (searched with its subfolders) or a pattern such as "parts/*.png"; - reads a
    list of paths from stdin, one a line. Writes results.jsonl, report.html and the pictures into --out.

    A file that cannot be inspected is named, the others are done, and the exit code is 1.
    """
    words = chosen_defects(defects, vocabulary)
    files, failures = find_files(paths)
    named = {"out", "save", "formats"}
    explicit = any(
        context.get_parameter_source(name) not in (None, click.core.ParameterSource.DEFAULT) for name in named
    )
    if as_json and not explicit:
        save, formats = (), ()

    results: Iterator[Inspection | Failure] = iter(failures)
    if files:
        from dapo.inspector import Inspector

        inspector = Inspector.from_pretrained(model, device=device, precision=precision, threshold=threshold)
        words = inspector.vocabulary(words)
        results = itertools.chain(failures, inspector.stream(files, defects=words, batch_size=batch_size))
    run = Run(len(files) + len(failures))
    with contextlib.ExitStack() as stack:
        names = [str(file) for file in files]
        show = JsonPrinter() if as_json else TablePrinter(names)
        writers = [stack.enter_context(writer) for writer in open_writers(out, save, formats, names, words)]
        try:
            for result in stack.enter_context(progress(results, run.total)):
                for writer in (show, *writers):
                    writer.write(result)
                run.add(result)
                complain(result)
        except KeyboardInterrupt:
            run.interrupted = True
    click.echo(run.summary(), err=as_json)
    if save or formats:
        click.echo(where(out, save, formats), err=as_json)
    context.exit(run.exit_code(fail_on))


class Run:
    """What happened so far: counts, time, and the exit code that follows."""

    def __init__(self, total: int) -> None:
        self.total = total
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
        done = self.defective + self.ok
        seconds = time.perf_counter() - self.started
        parts = [f"{done} inspected: {self.defective} defective, {self.ok} ok"]
        if self.failed:
            parts.append(f"{self.failed} failed")
        if self.interrupted:
            parts.append(f"stopped, {self.total - done - self.failed} not looked at")
        each = f" ({1000 * seconds / done:.0f} ms an image)" if done > 1 else ""
        line = "; ".join([*parts, f"{seconds:.1f} s{each}"])
        if self.last is not None:
            facts = (self.last.model.get(key) for key in ("name", "version"))
            model = " ".join(str(fact) for fact in facts if fact)
            line += f"\nmodel {model}; threshold {self.last.threshold:.2f}, {self.last.calibration_statement}"
        return line

    def exit_code(self, fail_on: str | None) -> int:
        """Interrupted before defective before failed: the most urgent one wins."""
        if self.interrupted:
            return INTERRUPTED
        if fail_on == "defective" and self.defective:
            return DEFECTIVE
        return FAILED_INPUT if self.failed else 0


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


def open_writers(
    out: Path, save: Iterable[str], formats: Iterable[str], names: Sequence[str], words: Any = None
) -> Iterator[Any]:
    """A context manager with ``write(result)`` for each output asked for.

    Pictures mirror the folders of ``names`` below the one they share; the report tells the causes and actions
    that the vocabulary ``words`` gives.
    """
    from dapo.cli.table import common_folder

    root = common_folder(names) or "."
    for name in formats:
        if name == "jsonl":
            from dapo.writers.jsonl import JsonlWriter

            yield JsonlWriter(out / "results.jsonl")
        elif name == "html":
            from dapo.writers.html import HtmlReport

            yield HtmlReport(out / "report.html", title="Inspection", vocabulary=words)
    for name in save:
        if name == "overlay":
            from dapo.writers.overlay import OverlayWriter

            yield OverlayWriter(out / "overlay", root)
        elif name == "heatmap":
            from dapo.writers.heatmap import HeatmapWriter

            yield HeatmapWriter(out / "heatmap", root)


def where(out: Path, save: Iterable[str], formats: Iterable[str]) -> str:
    """The line that says what was written."""
    files = {"jsonl": "results.jsonl", "html": "report.html"}
    return f"written to {out}: {', '.join([files[name] for name in formats] + [f'{name}/' for name in save])}"


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
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    bar = Progress(
        TextColumn("inspecting"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=sys.stdout.isatty(),  # a piped stdout must stay a pipe
    )
    with bar:
        yield bar.track(results, total=total)
