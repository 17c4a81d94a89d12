"""Options several verbs share, and the comma list they are written as."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])

PRECISIONS = ("auto", "fp32", "bf16")
# Of dapo.data.catalogue and dapo.learning.trackers, which `--help` does not import.
DATASETS = (
    "mvtec",
    "visa",
    "visa_extended",
    "mpdd",
    "mad_sim",
    "mad_real",
    "real_iad",
    "folder",
    "coco",
    "yolo",
    "label_studio",
)
TRACKERS = ("tensorboard", "mlflow", "wandb")


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
        names = [name.strip().replace("_", "-") for name in str(value).split(",") if name.strip()]
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


class Rate(click.ParamType):  # type: ignore[type-arg]  # generic in newer click only
    """``0.5%`` or ``0.005``, a share between 0 and 1."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"([0-9.]+)\s*(%?)", str(value).strip())
        try:
            rate = float(found[1]) / (100 if found[2] else 1) if found else 0.0
        except ValueError:
            rate = 0.0
        if not 0 < rate < 1:
            self.fail(f"{value!r} is not a rate such as 5% or 0.05", param, ctx)
        return rate


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


def looking_options(command: Command) -> Command:
    """Adds ``--tile`` and ``--roi``: what of a picture is looked at, and how closely."""
    tile = click.option(
        "--tile",
        metavar="auto,off,SIZE",
        help="Cut large pictures into tiles of the original: auto, or the tiles' side in pixels. "
        "Default: off, or as calibrated.",
    )
    roi = click.option(
        "--roi",
        metavar="MASK_OR_POINTS",
        help='Region of interest: a picture, white inside, or "x0,y0 x1,y1 x2,y2" in pixels or shares.',
    )
    return tile(roi(command))
