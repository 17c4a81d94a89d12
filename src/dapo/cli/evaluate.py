"""``dapo evaluate``: a labelled dataset in, tables of figures out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dapo.cli.main import FAILED_INPUT, debug_option
from dapo.cli.options import DATASETS
from dapo.errors import ConfigError

if TYPE_CHECKING:
    from dapo.evaluation.results import Results
    from dapo.evaluation.tables import Table

TRAINING = ("generated", *DATASETS)


@click.command(name="evaluate")
@click.option("--data", type=click.Path(path_type=Path), metavar="ROOT", required=True, help="Its folder.")
@click.option(
    "--dataset", type=click.Choice(DATASETS), default="folder", show_default=True, help="Layout of --data."
)
@click.option("--products", metavar="A,B", help="Only these.")
@click.option("--variant", metavar="NAME", help="Of the dataset's protocol, such as single-type of visa.")
@click.option("--group", metavar="KEY", help="Key of the physical part in manifest.jsonl: for the intervals.")
@click.option(
    "--model", metavar="DIR_OR_ID", help="Model, or backbone of --method. Default: the embedded one."
)
@click.option(
    "--method",
    default="model",
    show_default=True,
    metavar="NAME_OR_FILE",
    help="The model as it is, or: clip, coop, anomalyclip, multiads, dapo, an ablation, a YAML file, "
    "or 'local contrast' (classic filters, the floor).",
)
@click.option("--train-dataset", type=click.Choice(TRAINING), help="What a method that learns is trained on.")
@click.option(
    "--train-data", type=click.Path(path_type=Path), metavar="ROOT", help="Its folder, or that of textures."
)
@click.option("--held-out", metavar="TYPES", help="Types kept from the training: novel in the test.")
@click.option("--known", metavar="TYPES", help="Types that training had; the others are reported as novel.")
@click.option("--seeds", metavar="0,1,2", help="Of the training.  [default: 0]")
@click.option(
    "--set", "changes", multiple=True, metavar="A.B=C", help="One training setting; as often as you like."
)
@click.option(
    "--words",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.yaml",
    help="Your words for the types: {type: [phrase, phrase]}.",
)
@click.option(
    "--names",
    type=click.Choice(("product", "dataset")),
    default="product",
    show_default=True,
    help="Ask each product for its own types, or for those of the whole dataset.",
)
@click.option("--shift", is_flag=True, help="Also under 24 seeded corruptions: a table of drops.")
@click.option(
    "--shots", metavar="0,1,4", help="Also beside so many good parts of the train split, as references."
)
@click.option(
    "--shot-draws", type=click.IntRange(1), help="Draws of these good parts: mean and spread.  [default: 3]"
)
@click.option(
    "--draws", type=click.IntRange(0), default=1000, show_default=True, help="Bootstrap; 0: no intervals."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/evaluate"),
    show_default=True,
    help="Tables, CSV files, JSON.",
)
@click.option("--plots", is_flag=True, help="Confusion and ROC/PR pictures too; inspects again (matplotlib).")
@click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps. Default: a GPU if there is one.")
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="All figures as JSON on stdout.")
@debug_option
@click.pass_context
def command(context: click.Context, /, **given: Any) -> None:
    """Measure a model, or a method, on a labelled dataset.

    Per product and in the mean: image AUROC, AP, F1max; pixel AUROC, AP, F1max, AUPRO; how often the type is
    named right, and the multi-type figures of the pixels. 95 % intervals by bootstrap; with several --seeds
    mean and spread. What a model trained on must not be what it is tested on.

    \b
    dapo evaluate --data parts                               the embedded model on your labelled parts
    dapo evaluate --data visa --dataset visa --model vit     another model
    dapo evaluate --data mvtec --dataset mvtec --shots 0,1,4 few-shot: with good parts as references
    dapo evaluate --data visa --dataset visa --model vit --method dapo \\
        --train-dataset mvtec --train-data mvtec --seeds 0,1,2     train on A, test on B

    An image that cannot be inspected or trained on, or whose mask does not fit, is named and left out, and
    the exit code is 1. What --out holds of the same model, settings and files is taken from there; an
    evaluation that was interrupted begins again.
    """
    from dapo.cli.stages import stages
    from dapo.config import parse
    from dapo.evaluation.campaign import Campaign
    from dapo.evaluation.experiment import Experiment

    experiment = parse(Experiment, experiment_of(given), "dapo evaluate")
    with stages() as listener:
        results = Campaign(
            experiment,
            given["out"],
            data=given["data"],
            train_data=given["train_data"],
            device=given["device"],
            batch_size=given["batch_size"],
            pictures=given["plots"],
            words=str(given["words"] or "phrases"),
            listener=listener,
        ).run()
    for complaint in results.complaints:
        click.echo(f"dapo: {complaint}", err=True)
    click.echo(json.dumps(record_of(results), allow_nan=False) if given["as_json"] else text_of(results))
    if not given["as_json"]:
        click.echo(f"Written to {given['out']}: tables, CSV files, results.json")
    context.exit(FAILED_INPUT if results.complaints else 0)


def experiment_of(given: dict[str, Any]) -> dict[str, Any]:
    """The options as an experiment of one method and one test set."""
    from dapo.cli.data import names_in
    from dapo.cli.train import put

    settings: dict[str, Any] = {}
    for change in given["changes"]:
        put(settings, change)
    test: dict[str, Any] = {
        "name": given["data"].resolve().name or "data",  # the root of a disk has no name
        "dataset": given["dataset"],
        "products": names_in(given["products"]),
        "variant": given["variant"],
        "group_key": given["group"],
        "names": given["names"],
        "known": listed(given["known"]),
        "phrases": read_words(given["words"]),
    }
    train = None
    if given["train_dataset"] is not None:
        if given["train_data"] is None and given["train_dataset"] != "generated":
            raise click.UsageError(f"--train-dataset {given['train_dataset']} needs --train-data ROOT")
        train = {"dataset": given["train_dataset"]}
        if train["dataset"] == "generated" and given["train_data"] is not None:
            train["root"] = "."
    asked = (
        {}
        if given["seeds"] is None and train is None
        else {"seeds": numbers_in("0" if given["seeds"] is None else given["seeds"], "--seeds", "0,1,2")}
    )
    if given["shots"] is not None:
        asked["shots"] = numbers_in(given["shots"], "--shots", "0,1,4")
    if given["shot_draws"] is not None:
        asked["shot_draws"] = given["shot_draws"]
    return asked | {
        "title": "evaluate",
        "methods": [given["method"]],
        "model": given["model"],
        "train": train,
        "test": [test],
        "settings": settings,
        "held_out": listed(given["held_out"]) or (),
        "shift": "all" if given["shift"] else (),
        "draws": given["draws"],
    }


def numbers_in(text: str, option: str, example: str) -> list[int]:
    """The numbers of a comma list, each once, none negative."""
    numbers = [int(part) if part.isdecimal() else -1 for part in listed(text) or [""]]
    if min(numbers) < 0 or len(set(numbers)) < len(numbers):
        raise click.UsageError(f"{option} expects numbers such as {example}, each once; got {text!r}")
    return numbers


def listed(text: str | None) -> list[str] | None:
    """ "a, b" as a list; None stays None."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def read_words(path: Path | None) -> dict[str, Any]:
    """{type: [phrases]} of a YAML file; one phrase may stand alone. Raises ConfigError for anything else, and
    names the file.
    """
    from dapo.cli.train import read_config

    words = read_config(path)
    for name, phrases in words.items():
        said = [phrases] if isinstance(phrases, str) else phrases
        if not isinstance(said, list) or not said or not all(isinstance(p, str) and p.strip() for p in said):
            raise ConfigError(
                f"{path}: expected one phrase or a list of phrases for {name!r}, got {phrases!r}. Write "
                f"{name}: [phrase, phrase], or leave the type out to go by its name."
            )
        words[name] = said
    return words


def record_of(results: Results) -> dict[str, Any]:
    """What --json prints: one evaluation, with "shots" and "shift" where asked for. skipped: in training."""
    evaluation = next(iter(results.evaluations.values()))
    record = evaluation.to_dict() | {"skipped": results.skipped}
    for shots in results.shots.values():
        record["shots"] = shots.to_dict()
    for shift in results.shifts.values():
        record["shift"] = shift.to_dict()
    return record


def text_of(results: Results) -> str:
    """The tables for people."""
    from dapo.evaluation.tables import protocol_line, tables_of

    evaluation = next(iter(results.evaluations.values()))
    parts = [table_text(table) for table in tables_of(evaluation)]
    parts += [table_text(results.tables()[f"{test} by shots"]) for test, _ in results.shots]
    parts += [table_text(shift.table()) for shift in results.shifts.values()]
    parts += [f"Adapted: {said}" for sayings in results.adapted.values() for said in sayings]
    return "\n\n".join([*parts, protocol_line(evaluation)])


def table_text(table: Table) -> str:
    """Aligned columns; a table wider than the terminal is turned over: a row a figure."""
    import shutil
    import sys

    rows = [table.head, *table.rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(table.head))]
    limit = shutil.get_terminal_size((140, 24)).columns if sys.stdout.isatty() else 140
    if sum(widths) + 2 * len(widths) > limit and len(table.rows) < len(table.head):
        rows = [tuple(column) for column in zip(*rows, strict=True)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines[0] = click.style(lines[0], bold=True)
    return "\n".join([click.style(table.title, bold=True), *lines, *([table.note] if table.note else [])])
