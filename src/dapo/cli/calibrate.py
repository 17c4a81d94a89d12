"""``dapo calibrate``: good parts in, thresholds at a stated false-alarm rate out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from dapo.cli.main import FAILED_INPUT, debug_option
from dapo.cli.options import Rate, chosen_defects, defect_options, looking_options, model_options
from dapo.errors import InputError

if TYPE_CHECKING:
    from dapo.inspector import Inspector


@click.command(name="calibrate")
@click.option(
    "--good",
    "good",
    multiple=True,
    required=True,
    metavar="PATH",
    help="Good parts: a folder, an image or a pattern; as often as you like. About 20 or more.",
)
@click.option(
    "--false-alarm", type=Rate(), default="5%", show_default=True, metavar="RATE", help="To hold: 1% or 0.01."
)
@click.option(
    "--defective",
    multiple=True,
    metavar="PATH",
    help="Labelled defective parts, to estimate how many escape.",
)
@defect_options
@model_options
@looking_options
@click.option(
    "--references/--no-references",
    default=True,
    show_default=True,
    help="Remember what the good parts look like, and compare with it.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write to. Default: the model folder; for the embedded model, ./calibration.",
)
@click.option("--json", "as_json", is_flag=True, help="The outcome as JSON on stdout.")
@debug_option
@click.pass_context
def command(
    context: click.Context,
    good: tuple[str, ...],
    false_alarm: float,
    defective: tuple[str, ...],
    defects: str | None,
    vocabulary: Path | None,
    model: str | None,
    device: str | None,
    precision: Literal["auto", "fp32", "bf16"],
    batch_size: int,
    tile: str | None,
    roi: str | None,
    references: bool,
    out: Path | None,
    as_json: bool,
) -> None:
    """From good parts alone: thresholds at a stated rate of false alarms, and references to compare with.

    Writes calibration.json (and references.safetensors). What a number of good parts can promise is said, and
    what they cannot is refused: 20 parts carry 4.8 %, 200 carry 0.5 %. Then, with the same words:

    \b
    dapo inspect photos --calibration FOLDER

    A file that cannot be read is named and left out, and the exit code is 1.
    """
    from dapo.cli.inspect import find_files
    from dapo.cli.stages import stages

    words = chosen_defects(defects, vocabulary)
    parts, missing = find_files(good)
    flawed, lost = find_files(defective) if defective else ([], [])

    from dapo.calibration import Calibration
    from dapo.goodparts import calibrate, enough
    from dapo.inspector import Inspector

    if not parts:
        raise InputError("\n".join(failure.message for failure in missing), kind="empty")
    enough(len(parts), false_alarm)
    inspector = Inspector.from_pretrained(
        model, device=device, precision=precision, calibration=False, tile=tile, roi=roi
    )
    folder = out or (Path("calibration") if model is None else inspector.info.folder)
    failures = [*missing, *lost]
    with stages() as listener:
        listener.stage("looking at the parts", len(parts) + len(flawed))
        calibrated = calibrate(
            inspector,
            parts,
            false_alarm=false_alarm,
            defects=words,
            references=references,
            defective=flawed,
            out=folder,
            on_image=lambda _: listener.advance(),
            on_failure=failures.append,
        )
    for failure in failures:
        click.echo(f"dapo: {failure.message}", err=True)
    found = calibrated.calibration
    assert isinstance(found, Calibration)
    if as_json:
        click.echo(json.dumps({"folder": str(folder), **found.record(), "escapes": found.escapes}))
    else:
        click.echo("\n".join(lines(calibrated, folder)))
    context.exit(FAILED_INPUT if failures else 0)


def lines(inspector: Inspector, folder: Path) -> list[str]:
    """The outcome for people: what is promised, what it costs, what to do next."""
    from dapo.calibration import percent, smallest_rate

    found = inspector.calibration
    assert found is not None
    promise = found.promise()
    low, high = promise.interval
    said = [
        f"{promise.images} good parts, words: {', '.join(found.words)}",
        f"threshold: at most {percent(promise.rate)} of good parts are called defective, on average over "
        f"such samples of {promise.images};",
        f"for these parts the true rate is between {percent(low)} and {percent(high)} (95 %)",
        f"the smallest rate that {promise.images} parts can promise is "
        f"{percent(smallest_rate(promise.images))}",
    ]
    if found.references is not None:
        said.append(
            f"references: {found.references['images']} parts remembered, {found.references['megabytes']} MB"
        )
    if found.escapes is not None:
        low, high = found.escapes["interval"]
        missed, count = found.escapes["missed"], found.escapes["defective"]
        said.append(
            f"escapes: {missed} of {count} defective parts stay below the threshold "
            f"({percent(low)} to {percent(high)} at 95 %)"
        )
    said.append(f"written to {folder}; next: dapo inspect PHOTOS --calibration {folder}")
    return said
