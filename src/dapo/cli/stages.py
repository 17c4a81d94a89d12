"""Progress of long work on stderr: a bar for each stage on a terminal, else a line now and then."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

import click

SECONDS = 15  # between lines where there is no terminal


class Lines:
    """A line when a stage begins, and one every SECONDS."""

    def __init__(self) -> None:
        self.name, self.done, self.said = "", 0, 0.0
        self.total: int | None = None

    def stage(self, name: str, total: int | None) -> None:
        self.name, self.total, self.done, self.said = name, total, 0, time.monotonic()
        click.echo(f"{name}: {total} steps" if total else name, err=True)

    def note(self, text: str) -> None:
        click.echo(f"dapo: {text}", err=True)

    def advance(self, facts: str = "") -> None:
        self.done += 1
        if time.monotonic() - self.said > SECONDS:
            self.said = time.monotonic()
            of = f" of {self.total}" if self.total else ""
            click.echo(f"{self.name}: {self.done}{of}{f', {facts}' if facts else ''}", err=True)


class Bars:
    """The bar of the stage in work."""

    def __init__(self, bar: Any) -> None:
        self.bar = bar
        self.task: Any = None

    def stage(self, name: str, total: int | None) -> None:
        if self.task is not None:
            self.bar.remove_task(self.task)
        self.task = self.bar.add_task(name, total=total, facts="")

    def note(self, text: str) -> None:
        self.bar.console.print(f"dapo: {text}", markup=False, highlight=False, soft_wrap=True)

    def advance(self, facts: str = "") -> None:
        self.bar.update(self.task, advance=1, facts=facts)


@contextlib.contextmanager
def stages() -> Iterator[Lines | Bars]:
    """What to tell of stages and steps."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    with terminal_bar("{task.description}", facts=True) as bar:
        yield Bars(bar)


def terminal_bar(what: str, *, count: bool = True, facts: bool = False, transient: bool = True) -> Any:
    """rich's Progress on stderr: `what`, the bar, how many (or how much) is done, facts, the time left."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskProgressColumn,
        TextColumn,
        TimeRemainingColumn,
    )

    return Progress(
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn() if count else TaskProgressColumn(),
        *([TextColumn("{task.fields[facts]}")] if facts else []),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=transient,
        redirect_stdout=sys.stdout.isatty(),  # a piped stdout must stay a pipe
    )
