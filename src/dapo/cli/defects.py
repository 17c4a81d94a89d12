"""``dapo defects``: how a model reads the words of a vocabulary, and what is known near them."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dapo.cli.main import FAILED_INPUT, debug_option
from dapo.cli.options import chosen_defects

if TYPE_CHECKING:
    from dapo.lint import Finding, Likeness, Reader, Scale
    from dapo.vocabulary import Defect, Vocabulary

SCHEMA = 1
COLUMNS = 100  # of a line of text
FACTS = ("name", "phrases", "severity", "causes", "actions")

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(name="defects", invoke_without_command=True)
@debug_option
@click.pass_context
def command(context: click.Context) -> None:
    """Vocabularies: what in one will not work with a model, and what the built-in one knows.

    Both verbs read words as the model does: another model may tell apart what this one cannot.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def model_option(command: Command) -> Command:
    """Adds ``--model``."""
    option = click.option(
        "--model",
        metavar="DIR_OR_ID",
        help="A model folder, or the hub id of a fetched model. Default: the embedded one.",
    )
    return option(command)


@command.command(name="lint")
@click.argument(
    "file", required=False, metavar="[FILE.yaml]", type=click.Path(dir_okay=False, path_type=Path)
)
@click.option("--defects", metavar="NAMES", help='Names instead of a file: "scratch, pin hole".')
@model_option
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.yaml",
    help="Write the vocabulary with the proposals filled in; it must not exist yet.",
)
@click.option("--json", "as_json", is_flag=True, help="Findings and scale as JSON on stdout.")
@debug_option
@click.pass_context
def lint(
    context: click.Context,
    file: Path | None,
    defects: str | None,
    model: str | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Say what in a vocabulary will not work with this model, why, and what to do.

    Types that it cannot tell apart, or from a good part; words it does not know or must spell; phrases too
    long for it; a phrase in two types, or twice. Hints, which do not count: types that are close, one phrase
    where the built-in vocabulary has more, no causes or actions.

    Similarity: 100 is the same, 0 is two different known types. Nothing is changed; --out writes a new file.

    Exit: 0 clean, hints or not; 1 there are warnings; 2 the file is no vocabulary.
    """
    if file is None and defects is None:
        raise click.UsageError('expected a vocabulary file or --defects "scratch, pin hole"; got neither')
    if file is not None and defects is not None:
        raise click.UsageError("a file and --defects exclude each other; give one")
    if out is not None and out.exists():
        raise click.UsageError(f"--out {out} exists; nothing is overwritten, give another name")
    vocabulary = chosen_defects(defects, file)

    from dapo import lint as linting

    reader, name = reader_of(model)
    found = linting.lint(reader, vocabulary)
    if as_json:
        click.echo(json.dumps(lint_facts(name, reader, found), ensure_ascii=False))
    else:
        for line in finding_lines(found, vocabulary, name):
            click.echo(line)
    if out is not None:
        write(linting.proposed(reader, vocabulary), out)
        click.echo(f"{out}: written, with the proposals filled in", err=as_json)
    context.exit(FAILED_INPUT if any(one.level == "warning" for one in found) else 0)


def reader_of(model: str | None) -> tuple[Reader, str]:
    """The model as a reader of words, and its name."""
    from dapo.lint import Reader
    from dapo.model.artifact import load

    detector, info = load(model)
    return Reader(detector), info.name


def write(vocabulary: Vocabulary, path: Path) -> None:
    """Whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    from dapo.whole import replaced

    with replaced(path) as partial:
        vocabulary.to_yaml(partial)


def lint_facts(model: str, reader: Reader, found: Iterable[Finding]) -> dict[str, Any]:
    """The JSON of ``lint``; scale: similarities from which types are close and alike, null if not read."""
    scale = reader.scale if reader.reads_names else None
    findings = [finding.to_dict() for finding in found]
    return {
        "schema": SCHEMA,
        "model": model,
        "scale": scale and {"close": scale.similarity(scale.near), "alike": scale.similarity(scale.alike)},
        "clean": all(finding["level"] != "warning" for finding in findings),
        "findings": findings,
    }


def finding_lines(found: tuple[Finding, ...], vocabulary: Vocabulary, model: str) -> Iterator[str]:
    """What, why and what to do of each finding, then the sum."""
    for finding in found:
        colour = "red" if finding.level == "warning" else "yellow"
        first, *rest = textwrap.wrap(finding.what, COLUMNS - 9)
        yield click.style(f"{finding.level:<7}", fg=colour) + f"  {first}"
        yield from (f"{'':9}{line}" for line in rest)
        yield from wrapped("why", finding.why)
        yield from wrapped("do", finding.do)
    warnings = sum(finding.level == "warning" for finding in found)
    counts = f"{warnings} warning{'s'[: warnings != 1]}, {len(found) - warnings} hints"
    yield f"{len(vocabulary)} types read by {model}: {counts}"


def wrapped(label: str, text: str, indent: int = 9) -> Iterator[str]:
    """A labelled text, its further lines below its first word."""
    start = f"{'':{indent}}{label + ': ':<10}"
    yield from textwrap.wrap(
        text,
        COLUMNS,
        initial_indent=start,
        subsequent_indent=" " * len(start),
        break_long_words=False,
        break_on_hyphens=False,
    )


@command.command(name="show")
@click.argument("names", nargs=-1, metavar="[NAME... or FILE.yaml]")
@model_option
@click.option(
    "--count",
    type=click.IntRange(1, 20),
    default=3,
    show_default=True,
    help="Known types shown for each name.",
)
@click.option("--json", "as_json", is_flag=True, help="The same as JSON on stdout.")
@debug_option
def show(names: tuple[str, ...], model: str | None, count: int, as_json: bool) -> None:
    """List the known types, or those that a model finds nearest to your names.

    Without names: the built-in vocabulary by kind and trade; this needs no model. With names, or a
    vocabulary file: for each the nearest known types, how similar they are to this model (100 is the same, 0
    is two different known types), their phrases, severity, causes and actions.
    """
    if not names:
        from dapo.vocabulary import builtin_groups

        groups = builtin_groups()
        lines = (
            iter([json.dumps(group_facts(groups), ensure_ascii=False)]) if as_json else group_lines(groups)
        )
        for line in lines:
            click.echo(line)
        return

    from dapo.vocabulary import Vocabulary

    vocabulary = Vocabulary.of(names[0] if len(names) == 1 else names)
    reader, name = reader_of(model)
    if not reader.reads_names:
        raise click.UsageError(f"{name} does not read the names of defects; choose another --model")
    _, states = reader.states(vocabulary)
    found = [(defect, reader.nearest(state, count)) for defect, state in zip(vocabulary, states, strict=True)]
    if as_json:
        click.echo(json.dumps(show_facts(name, found), ensure_ascii=False))
        return
    for line in near_lines(found, reader.scale):
        click.echo(line)


def facts_of(defect: Defect) -> dict[str, Any]:
    """An entry as plain data."""
    return {key: list(v) if isinstance(v := getattr(defect, key), tuple) else v for key in FACTS}


def group_facts(groups: Mapping[str, tuple[Defect, ...]]) -> dict[str, Any]:
    """The JSON of ``show`` without names."""
    listed = [
        {"group": title, "defects": [facts_of(defect) for defect in defects]}
        for title, defects in groups.items()
    ]
    return {"schema": SCHEMA, "groups": listed}


def group_lines(groups: Mapping[str, tuple[Defect, ...]]) -> Iterator[str]:
    """The built-in vocabulary: name, severity, other phrases, cut to the line."""
    width = max(len(defect.name) for defects in groups.values() for defect in defects)
    for title, defects in groups.items():
        yield click.style(title, bold=True)
        for defect in defects:
            phrases = ", ".join(phrase for phrase in defect.phrases if phrase != defect.name)
            phrases = textwrap.shorten(phrases, COLUMNS - width - 14, placeholder=" ...")
            yield f"  {defect.name:<{width}}  {defect.severity:<8}  {phrases}".rstrip()
        yield ""
    count = sum(map(len, groups.values()))
    yield f"{count} types. dapo defects show NAME says more of one, and of those near it."


def show_facts(model: str, found: Iterable[tuple[Defect, list[Likeness]]]) -> dict[str, Any]:
    """The JSON of ``show`` with names."""
    listed = [
        {
            "name": defect.name,
            "phrases": list(defect.phrases),
            "nearest": [{"similarity": one.similarity, **facts_of(one.defect)} for one in near],
        }
        for defect, near in found
    ]
    return {"schema": SCHEMA, "model": model, "defects": listed}


def near_lines(found: Iterable[tuple[Defect, list[Likeness]]], scale: Scale) -> Iterator[str]:
    """Each name with its nearest known types."""
    alike, close = scale.similarity(scale.alike), scale.similarity(scale.near)
    for defect, near in found:
        yield click.style(defect.name, bold=True) + f": {', '.join(defect.phrases)}"
        for one in near:
            known = one.defect
            yield f"  {one.similarity:>3}  {click.style(known.name, bold=True)} ({known.severity})"
            for label in ("phrases", "causes", "actions"):
                yield from wrapped(label, ", ".join(getattr(known, label)), 7)
        yield ""
    yield f"similarity: from {alike} the same to this model, from {close} close, below another type"
