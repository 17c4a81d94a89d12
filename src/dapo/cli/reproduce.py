"""``dapo reproduce``: the tables of the documentation, again, from the experiments in the package."""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dapo.cli.main import FAILED_INPUT, debug_option
from dapo.errors import ConfigError, DapoError

if TYPE_CHECKING:
    from dapo.evaluation.results import Results

END = "<!-- end of table -->"


@click.command(name="reproduce")
@click.argument("names", nargs=-1, metavar="[EXPERIMENT]...")
@click.option("--data", type=click.Path(path_type=Path), metavar="ROOT", help="Folder of the datasets.")
@click.option(
    "--train-data",
    type=click.Path(path_type=Path),
    metavar="ROOT",
    help="Folder of the train set, or of textures, where it is another.",
)
@click.option("--model", metavar="DIR_OR_ID", help="Backbone or model instead of the experiment's.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/reproduce"),
    show_default=True,
    help="A folder each; a run that was stopped goes on.",
)
@click.option(
    "--docs",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    metavar="DIR",
    help="Put the tables into the pages of this folder, between their marks.",
)
@click.option("--list", "only_list", is_flag=True, help="Name the experiments and stop.")
@click.option("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps. Default: a GPU if there is one.")
@click.option("--json", "as_json", is_flag=True, help="Everything as JSON on stdout.")
@debug_option
@click.pass_context
def command(
    context: click.Context,
    names: tuple[str, ...],
    data: Path | None,
    train_data: Path | None,
    model: str | None,
    out: Path,
    docs: Path | None,
    only_list: bool,
    device: str | None,
    as_json: bool,
) -> None:
    """Regenerate tables: every method, every seed, mean and spread.

    EXPERIMENT is a name of --list or a YAML file of your own; without any, all of --list are run. Below
    --data lie the datasets, each in the folder that the experiment names. Every trained model and every
    finished evaluation is kept in --out and not made twice. An experiment that cannot be run is named and
    left out, so is an image that cannot be read, and the exit code is 1.
    """
    from dapo.evaluation.experiment import experiment_names, load_experiment

    experiments = {name: load_experiment(name) for name in names or experiment_names()}
    if only_list:
        width = max(map(len, experiments))
        for name, experiment in experiments.items():
            click.echo(f"{name:<{width}}  {experiment.title}")
        return
    if data is None:
        raise click.UsageError("expected the folder of the datasets; give --data ROOT")
    if docs is not None and model is not None:
        raise click.UsageError(
            "--docs takes the tables of the experiments as they are; leave --model out, or name the model in "
            "an experiment of your own"
        )
    if docs is not None:
        for name, experiment in experiments.items():
            check_marks(docs, name, experiment.table_names())

    from dapo.cli.evaluate import table_text
    from dapo.cli.stages import stages
    from dapo.evaluation.campaign import Campaign
    from dapo.evaluation.experiment import slug

    records: dict[str, Any] = {}
    failed = False
    for name, experiment in experiments.items():
        try:
            with stages() as listener:
                results = Campaign(
                    experiment,
                    out / slug(Path(name).stem),
                    data=data,
                    train_data=train_data,
                    model=model,
                    device=device,
                    listener=listener,
                ).run()
        except DapoError as error:
            if len(experiments) == 1:
                raise
            click.echo(f"dapo: {name} left out: {error}", err=True)
            failed = True
            continue
        for complaint in results.complaints:
            click.echo(f"dapo: {name}: {complaint}", err=True)
            failed = True
        records[name] = results.to_dict()
        if not as_json:
            instead = "" if model is None else f" (with the model {Path(model).name})"
            click.echo(click.style(experiment.title + instead, bold=True) + "\n")
            for table in results.tables().values():
                click.echo(table_text(table) + "\n")
        if docs is not None:
            for page in fill(docs, name, results):
                click.echo(f"{page} holds the tables of {name}", err=True)
    if as_json:
        click.echo(json.dumps(records, allow_nan=False))
    context.exit(FAILED_INPUT if failed else 0)


def check_marks(docs: Path, name: str, tables: Collection[str]) -> None:
    """Raises ConfigError for a mark of this experiment that names none of these tables, or has no end."""
    for page in sorted(docs.rglob("*.md")):
        parts = mark_of(name).split(page.read_text(encoding="utf-8"))
        for mark, rest in zip(parts[1::2], parts[2::2], strict=True):
            if mark not in tables or END not in rest:
                raise ConfigError(
                    f"{page}: expected a table of {name} ({', '.join(sorted(tables))}) and {END} after it; "
                    f"got {mark!r}. Correct the mark."
                )


def mark_of(name: str) -> re.Pattern[str]:
    """Begins of tables of one experiment, which a file's stem names too; the group is the table's name."""
    names = "|".join(map(re.escape, dict.fromkeys((name, Path(name).stem))))
    return re.compile(rf"<!-- table: (?:{names})/(.*?) -->\n")


def fill(docs: Path, name: str, results: Results) -> list[Path]:
    """Put the tables of one experiment between their marks; the pages that hold them.

    A mark is ``<!-- table: EXPERIMENT/TABLE -->``, and the table ends at ``<!-- end of table -->``. Raises
    ConfigError as `check_marks`.
    """
    from dapo.evaluation.record import write_text

    tables = results.tables()
    check_marks(docs, name, tables)
    pages = []
    for page in sorted(docs.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        whole = re.compile(rf"({mark_of(name).pattern}).*?{re.escape(END)}", re.DOTALL)

        def filled(found: re.Match[str]) -> str:
            return f"{found[1]}{tables[found[2]].to_markdown(level=4)}{END}"

        if whole.search(text):
            write_text(page, whole.sub(filled, text))
            pages.append(page)
    return pages
