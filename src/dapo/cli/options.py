"""Options several verbs share, and the comma list they are written as."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

PRECISIONS = ("auto", "fp32", "bf16")


class CommaList(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """``a,b`` out of a fixed set -> ``("a", "b")``, in the order given; ``none`` is the empty list."""

    name = "list"

    def __init__(self, allowed: tuple[str, ...]) -> None:
        self.allowed = allowed

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        names = [name.strip() for name in str(value).split(",") if name.strip()]
        if names == ["none"]:
            return ()
        for name in names:
            if name not in self.allowed:
                self.fail(f"{name!r} is not one of {', '.join(self.allowed)}", param, ctx)
        if not names:
            self.fail(f"empty; choose from {', '.join(self.allowed)}, or none", param, ctx)
        return tuple(dict.fromkeys(names))

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        return ",".join(self.allowed)


def defect_options(command: Command) -> Command:
    """Adds ``--defects`` and ``--vocabulary``; :func:`chosen_defects` reads them."""
    vocabulary = click.option(
        "--vocabulary",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE.yaml",
        help="Defect types from a vocabulary file.",
    )
    defects = click.option(
        "--defects",
        metavar="NAMES",
        help='Defect types in your own words: "scratch, pin hole". Default: the model\'s.',
    )
    return defects(vocabulary(command))


def chosen_defects(defects: str | None, vocabulary: Path | None) -> Any:
    """The :class:`dapo.Vocabulary` asked for, or None for the model's own.

    Raises ``VocabularyError`` when the names or the file cannot be used, ``UsageError`` when both are given.
    """
    from dapo.vocabulary import Vocabulary

    if defects is not None and vocabulary is not None:
        raise click.UsageError("--defects and --vocabulary exclude each other; give one")
    if vocabulary is not None:
        return Vocabulary.from_yaml(vocabulary)
    if defects is not None:
        names = [name.strip() for name in defects.split(",")]
        return Vocabulary.of([name for name in names if name] if any(names) else [])
    return None


def model_options(command: Command) -> Command:
    """Adds ``--model``, ``--device``, ``--precision`` and ``--batch-size``: how to compute."""
    options = (
        click.option(
            "--model",
            metavar="DIR_OR_ID",
            help="A model folder, or the hub id of a fetched model. Default: the embedded one.",
        ),
        click.option(
            "--device", metavar="NAME", help="cpu, cuda, cuda:1, mps. Default: a GPU if there is one."
        ),
        click.option(
            "--precision",
            type=click.Choice(PRECISIONS),
            default="auto",
            show_default=True,
            help="auto: bf16 where the device computes in it.",
        ),
        click.option(
            "--batch-size",
            type=click.IntRange(min=1),
            default=8,
            show_default=True,
            help="Images computed together.",
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command
