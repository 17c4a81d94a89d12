"""``dapo data``: what a data set holds and what is wrong with it, before anything is computed."""

from __future__ import annotations

import contextlib
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from dapo.cli.main import FAILED_INPUT, debug_option
from dapo.cli.options import DATASETS
from dapo.cli.stages import terminal_bar

if TYPE_CHECKING:
    from dapo.data.archive import Unpacked
    from dapo.data.check import Report

SMALLEST, LARGEST = 64, 2048  # pixels a side that are drawn
SHOWN = 20  # problems of one kind that a person is told
PICTURES = (".png", ".jpg", ".jpeg")
KINDS = {  # DATA_KINDS in words
    "layout": "not as the layout asks",
    "orphan_image": "images without mask or entry",
    "orphan_mask": "masks or entries without image",
    "unreadable": "files that cannot be read",
    "mask_size": "masks of another size than their image",
    "mask_values": "masks of other values than 0 and 255",
    "mask_empty": "empty masks of defective images",
    "unknown_type": "unknown types",
    "empty": "nothing inside",
    "twice": "images listed twice",
}

Command = TypeVar("Command", bound=Callable[..., Any])


@click.group(name="data", invoke_without_command=True)
@debug_option
@click.pass_context
def command(context: click.Context) -> None:
    """Data sets: check one, add one from an archive, look at one, draw one.

    --dataset is mvtec, visa, visa_extended, mpdd, mad_sim, mad_real or real_iad, as their owners publish
    them; or for your own: folder (the MVTec tree PRODUCT/{train/good, test/TYPE, ground_truth/TYPE} with
    any names), coco, yolo.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def dataset_options(command: Command) -> Command:
    """Adds ``--data``, ``--dataset``, ``--products`` and ``--variant``: which images."""
    options = (
        click.option(
            "--data", type=click.Path(path_type=Path), metavar="ROOT", required=True, help="Its folder."
        ),
        dataset_option,
        click.option(
            "--products", metavar="NAMES", help="Only these: bottle,cable. Default: all that are there."
        ),
        click.option(
            "--variant", metavar="NAME", help="Published protocol of the data set, where it has several."
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def dataset_option(command: Command) -> Command:
    """Adds ``--dataset``."""
    option = click.option(
        "--dataset", type=click.Choice(DATASETS), metavar="NAME", required=True, help="Its name or format."
    )
    return option(command)


def names_in(text: str | None, option: str = "--products") -> list[str] | None:
    """The names of a comma list; None for all."""
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise click.UsageError(f"{option} is empty; expected names separated by commas")
    return list(dict.fromkeys(names))


@command.command(name="check")
@dataset_options
@click.option("--deep", is_flag=True, help="Decode every image too, not only its header.")
@click.option("--json", "as_json", is_flag=True, help="Counts and all problems as JSON on stdout.")
@debug_option
@click.pass_context
def check(
    context: click.Context,
    data: Path,
    dataset: str,
    products: str | None,
    variant: str | None,
    deep: bool,
    as_json: bool,
) -> None:
    """Find what would go wrong later: before any compute.

    Masks without image and images without mask, masks of another size, of other values than 0 and 255, or
    empty; files that cannot be read, unknown types, products without images. Prints the images of each
    product and type, and compares them with the published numbers.

    Exit: 0 clean; 1 there are problems; 2 the folder is not such a data set.
    """
    from dapo.data.check import check_dataset

    with reporter("checking") as show:
        report = check_dataset(
            dataset,
            data,
            products=names_in(products),
            variant=variant,
            depth="images" if deep else "masks",
            progress=show,
        )
    if as_json:
        click.echo(json.dumps(report.to_dict(), ensure_ascii=False))
    else:
        for line in report_lines(report):
            click.echo(line)
    context.exit(0 if report.clean else FAILED_INPUT)


def report_lines(report: Report) -> Iterator[str]:
    """The report for people: a table, the problems by kind, the notes, and the sum."""
    yield from table_lines(report)
    for kind, words in KINDS.items():
        own = [problem for problem in report.problems if problem.kind == kind]
        if own:
            yield ""
            yield click.style(f"{words}: {len(own)}", bold=True)
            yield from (f"  {one_line(problem.message)}" for problem in own[:SHOWN])
        if len(own) > SHOWN:
            yield f"  and {len(own) - SHOWN} more; --json lists all"
    if report.notes:
        yield ""
        yield from (f"note: {note}" for note in report.notes)
    found = len(report.problems)
    verdict = click.style("clean", fg="green") if report.clean else f"{found} problem{'s'[: found != 1]}"
    yield ""
    yield f"{report.images} images, {report.defective} of them defective: {verdict}"


def one_line(message: str) -> str:
    """The message without line breaks: file names and decoders may bring some."""
    return message.replace("\r", " ").replace("\n", " ")


def table_lines(report: Report) -> Iterator[str]:
    """Product, type, train, test, and how many have a mask."""
    rows: dict[tuple[str, str], dict[str, int]] = {}
    for count in report.counts:
        row = rows.setdefault((count.product, count.type), {"train": 0, "test": 0, "masks": 0})
        row[count.split] += count.images
        row["masks"] += count.masks
    products = max((len(product) for product, _ in rows), default=0)
    types = max((len(kind) for _, kind in rows), default=0)
    products, types = max(products, len("product")), max(types, len("type"))
    yield click.style(f"{'product':<{products}}  {'type':<{types}}  train   test  masks", bold=True)
    before = ""
    for (product, kind), row in rows.items():
        masks = "" if kind == "good" else row["masks"]
        name = product if product != before else ""
        yield f"{name:<{products}}  {kind:<{types}}  {row['train']:5}  {row['test']:5}  {masks:>5}".rstrip()
        before = product


@command.command(name="add")
@click.argument(
    "archives",
    nargs=-1,
    required=True,
    metavar="ARCHIVE...",
    type=click.Path(path_type=Path),
)
@dataset_option
@click.option("--to", type=click.Path(path_type=Path), metavar="ROOT", required=True, help="Folder to fill.")
@click.option("--force", is_flag=True, help="Replace what the folder has of the same name.")
@debug_option
@click.pass_context
def add(context: click.Context, archives: tuple[Path, ...], dataset: str, to: Path, force: bool) -> None:
    """Unpack archives that you fetched from the owner of a data set. Nothing is downloaded.

    ARCHIVE is a zip, tar, tar.gz, tar.xz or tar.bz2; give all parts of a set at once or one after the other.
    What stands at the top of an archive is added to ROOT; if ROOT has something of that name already, nothing
    is changed without --force. Unsafe and damaged archives are refused as a whole.
    """
    from dapo.data import DATASETS as CATALOGUE
    from dapo.data.archive import add_archives
    from dapo.data.check import check_dataset

    entry = CATALOGUE[dataset]
    home = f"\nThe owner's page, where its terms stand: {entry.home}" if entry.home else ""
    click.echo(f"{entry.title}. Licence: {entry.licence}.{home}")
    tell_leftovers(to)
    with ending_on_signals(), reporter("unpacking") as show:
        done = add_archives(archives, to, force=force, progress=show)
    for line in unpacked_lines(done, to):
        click.echo(line)
    report = check_dataset(dataset, to, depth="structure")
    click.echo(f"{report.images} images, {report.defective} of them defective")
    for problem in report.problems[:SHOWN]:
        click.echo(f"dapo: {one_line(problem.message)}", err=True)
    click.echo(f"Next: dapo data check --data {quoted(to)} --dataset {dataset}")
    context.exit(0 if report.clean else FAILED_INPUT)


def unpacked_lines(done: Sequence[Unpacked], to: Path) -> Iterator[str]:
    """Checksum and size of each archive."""
    from dapo.data.archive import amount

    for unpacked in done:
        yield f"{unpacked.sha256}  {unpacked.archive}"
        yield f"  {unpacked.files} files, {amount(unpacked.size)} unpacked into {to}"


def tell_leftovers(to: Path) -> None:
    """Names folders that a killed run left beside the target; they are never read."""
    from dapo.data.archive import STAGING

    for folder in to.absolute().parent.glob(f"{STAGING}*"):
        click.echo(
            f"note: {folder} was left by a run that was stopped, or belongs to one that runs", err=True
        )


def quoted(path: Path) -> str:
    """A path as it can be pasted into a shell."""
    text = str(path)
    return f'"{text}"' if " " in text else text


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """A polite kill ends like Ctrl-C, so that what was half unpacked is removed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@command.command(name="show")
@dataset_options
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    required=True,
    help="Picture to write, .png or .jpg.",
)
@click.option(
    "--per-type", type=click.IntRange(1, 24), default=6, show_default=True, help="Images of each type."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Which images.")
@debug_option
@click.pass_context
def show(
    context: click.Context,
    data: Path,
    dataset: str,
    products: str | None,
    variant: str | None,
    out: Path,
    per_type: int,
    seed: int,
) -> None:
    """Draw a contact sheet: some images of each product and type, their masks outlined.

    Each type has one colour in the whole picture. An image whose mask is not known says so.
    """
    if out.suffix.lower() not in PICTURES:
        raise click.UsageError(f"--out {out}: expected a name ending in {' or '.join(PICTURES)}")

    from dapo.data.check import open_known
    from dapo.errors import DataError
    from dapo.whole import save_picture
    from dapo.writers.gallery import draw_gallery

    problems: list[DataError] = []
    samples = open_known(dataset, data, problems.append, products=names_in(products), variant=variant)
    subtitle = (
        f"{dataset}: {len(samples)} images, {sum(sample.defective for sample in samples)} of them defective"
    )
    picture = draw_gallery(samples, data.resolve().name, subtitle, per_type=per_type, seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_picture(picture, out, "PNG" if out.suffix.lower() == ".png" else "JPEG")
    for problem in problems[:SHOWN]:
        click.echo(f"dapo: {one_line(str(problem))}", err=True)
    click.echo(f"{out}: {picture.width} x {picture.height} px")
    context.exit(FAILED_INPUT if problems else 0)


@command.command(name="synth")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", required=True, help="New folder to fill."
)
@click.option("--lines", type=click.IntRange(1), default=3, show_default=True, help="Products.")
@click.option(
    "--good",
    type=click.IntRange(1),
    default=20,
    show_default=True,
    help="Good parts of each, to learn from and to test.",
)
@click.option(
    "--flawed", type=click.IntRange(0), default=8, show_default=True, help="Pictures of each type of flaw."
)
@click.option("--kinds", type=click.IntRange(1), default=5, show_default=True, help="Types of flaws of each.")
@click.option("--defects", metavar="NAMES", help="These instead, on parts where they occur.")
@click.option("--size", metavar="WxH", default="256x256", show_default=True, help="Pixels.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Another set of products.")
@click.option(
    "--textures",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help="Photographs of materials for the surfaces, one folder a material.",
)
@debug_option
def synth(
    out: Path,
    lines: int,
    good: int,
    flawed: int,
    kinds: int,
    defects: str | None,
    size: str,
    seed: int,
    textures: Path | None,
) -> None:
    """Draw a data set: product lines with flaws and exact masks, to try things on.

    \b
    dapo data synth --out drawn
    dapo calibrate --good drawn/line-01/train/good
    dapo evaluate --data drawn

    The embedded model learned from pictures of this generator, though not from these, so figures on them
    flatter it: they show that a pipeline works, not what it is worth on your parts.
    """
    from dapo.pretraining.surfaces import Textures
    from dapo.pretraining.synth import Plan, synthesise

    w, h = pixels_of(size)
    types = None if defects is None else tuple(names_in(defects, "--defects") or ())
    plan = Plan(lines, good, good, flawed, kinds, types, h, w, seed)
    with reporter("drawing") as show:
        pictures = synthesise(out, plan, textures=Textures(textures), progress=show)
    click.echo(f"{pictures} pictures of {lines} product{'s'[: lines != 1]} in {out}")
    click.echo(f"Next: dapo evaluate --data {quoted(out)}")


def pixels_of(size: str) -> tuple[int, int]:
    """(width, height) of "640x480"."""
    width, cross, height = size.lower().partition("x")
    if not cross or not width.isdecimal() or not height.isdecimal():
        raise click.UsageError(f"--size {size}: expected width x height in pixels, such as 640x480")
    if not all(SMALLEST <= side <= LARGEST for side in (int(width), int(height))):
        raise click.UsageError(f"--size {size}: expected {SMALLEST} to {LARGEST} pixels a side")
    return int(width), int(height)


@contextlib.contextmanager
def reporter(what: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar on stderr for (done, all), on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    with terminal_bar(what, count=False) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
