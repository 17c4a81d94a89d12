"""``dapo train``: labelled or generated defects in, a model folder out."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dapo.cli.main import FAILED_INPUT, debug_option
from dapo.cli.options import DATASETS, TRACKERS, CommaList
from dapo.cli.stages import terminal_bar
from dapo.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from dapo.config import TrainingSettings
    from dapo.data import Sample
    from dapo.learning import Progress

GENERATED = "generated"


@click.command(name="train")
@click.option("--data", type=click.Path(path_type=Path), metavar="ROOT", help="Folder of the dataset.")
@click.option(
    "--dataset",
    type=click.Choice((*DATASETS, GENERATED)),
    default="folder",
    show_default=True,
    help="What --data holds. folder: PRODUCT/test/TYPE, masks in PRODUCT/ground_truth/TYPE. generated: "
    "scenes, no --data.",
)
@click.option("--products", metavar="NAMES", help="Only these products of --data: bottle,screw.")
@click.option("--variant", metavar="NAME", help="Protocol variant of the dataset.")
@click.option("--samples", type=click.IntRange(min=1), metavar="N", help="Generated scenes in all.")
@click.option(
    "--textures",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Real textures for generated scenes, one subfolder of .jpg files a material.",
)
@click.option(
    "--model",
    metavar="DIR_OR_ID",
    help="Backbone: a model or CLIP folder, or a hub id. Default: the embedded one.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("out/train"),
    show_default=True,
    help="Folder to write to; the model comes into its subfolder model.",
)
@click.option(
    "--method",
    metavar="NAME",
    help="coop, anomalyclip, multiads, dapo or an ablation of it (dapo-one-group, ...), or a YAML file. "
    "--config and --set change it.",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.yaml",
    help="Training settings.",
)
@click.option(
    "--track",
    type=CommaList(TRACKERS),
    help="Also tell these of losses, rate and speed: pip install 'dapo[track]'.",
)
@click.option("--set", "changes", multiple=True, metavar="A.B=C", help="One setting; as often as you like.")
@click.option("--seed", type=click.IntRange(min=0), help="Default: 42, as published.")
@click.option("--resume", is_flag=True, help="Go on with the run in --out.")
@click.option("--device", default="cpu", show_default=True, metavar="NAME", help="cpu, cuda, cuda:1, mps.")
@click.option("--json", "as_json", is_flag=True, help="The outcome as JSON on stdout.")
@debug_option
@click.pass_context
def command(
    context: click.Context,
    data: Path | None,
    dataset: str,
    products: str | None,
    variant: str | None,
    samples: int | None,
    textures: Path | None,
    model: str | None,
    out: Path,
    method: str | None,
    config: Path | None,
    track: tuple[str, ...] | None,
    changes: tuple[str, ...],
    seed: int | None,
    resume: bool,
    device: str,
    as_json: bool,
) -> None:
    """Learn prompts, deep tokens and adapters from labelled defects, on a frozen CLIP.

    The defaults are the published method; --method dapo takes them whole, whatever the model folder has
    learned, and fits them to the backbone. The test split of --data holds the labelled defects; or
    --dataset generated learns from seeded scenes. A run that was stopped goes on with --resume and loses
    at most save_every steps. Then: dapo inspect IMAGE --model OUT/model

    Several GPUs: accelerate launch -m dapo train ... --device cuda (or torchrun); they share each step.

    An image that cannot be read is named and skipped, and the exit code is 1.
    """
    if (data is None) == (dataset != GENERATED):
        needs = f"--dataset {dataset} needs --data ROOT"
        raise click.UsageError(needs if data is None else "--dataset generated takes no --data")
    if data is None and (products is not None or variant is not None):
        raise click.UsageError("--products and --variant belong to --data")
    if data is not None and (samples is not None or textures is not None):
        raise click.UsageError("--samples and --textures belong to --dataset generated")
    raw = read_config(config)
    for change in changes:
        put(raw, change)
    extra: dict[str, Any] = {"generated.samples": samples, "generated.textures": textures and str(textures)}
    extra |= {"seed": seed, "track": track}
    for key, value in extra.items():
        if value is not None:
            assign(raw, key, value)

    name, examples = None, None
    if data is not None:
        name, licence, examples = read_examples(dataset, data, products, variant)
        if licence is not None:
            raw.setdefault("data_licence", licence)

    from dapo.config import TrainingSettings, parse

    where = str(config or "settings")
    if method is None:
        settings = parse(TrainingSettings, raw, where)
    else:
        settings = method_settings(method, raw, model, where)

    from dapo.learning import train
    from dapo.learning.processes import launched

    with reporter() if launched().leads else contextlib.nullcontext(Watch(lines)) as watch:
        folder = train(
            out,
            data=examples,
            data_name=name,
            model=model,
            settings=settings,
            resume=resume,
            device=device,
            on_step=watch,
        )
    if not launched().leads:
        return
    last = watch.last
    skipped = {} if last is None else dict(last.skipped)
    outcome: dict[str, Any] = {"model": str(folder), "steps": last and last.step, "skipped": skipped}
    if last is not None:
        outcome |= {"losses": dict(last.losses), "per_second": round(last.per_second, 1)}
    click.echo(json.dumps(outcome) if as_json else sentence(outcome))
    context.exit(FAILED_INPUT if skipped else 0)


def read_examples(
    dataset: str, root: Path, products: str | None, variant: str | None
) -> tuple[str, str | None, tuple[Sample, ...]]:
    """Name and licence (None: the user's own) for the model's card, and the samples of the test split."""
    from dapo.data.catalogue import DATASETS as CATALOGUE
    from dapo.data.catalogue import open_dataset

    only = None if products is None else [name.strip() for name in products.split(",") if name.strip()]
    samples = open_dataset(dataset, root, products=only, splits=("test",), variant=variant)
    entry = CATALOGUE[dataset]
    if entry.taxonomy:
        return entry.title, entry.licence, samples
    return root.resolve().name, None, samples


def method_settings(method: str, raw: Mapping[str, Any], model: str | None, where: str) -> TrainingSettings:
    """The method fitted to the backbone of `model`, `raw` put over it; says on stderr what was fitted."""
    from dapo.learning.methods import load_method, training_settings
    from dapo.model.artifact import backbone_config

    chosen = load_method(method).for_backbone(backbone_config(model))
    settings = training_settings(chosen, raw, where)
    for difference in chosen.adapted:
        click.echo(f"dapo: {chosen.name} fitted to this backbone: {difference}", err=True)
    return settings


def sentence(outcome: Mapping[str, Any]) -> str:
    """The outcome for people."""
    if outcome["steps"] is None:
        return f"this run had ended; the model is in {outcome['model']}"
    parts = [f"{outcome['steps']} steps, loss {outcome['losses']['loss']:.3f}"]
    parts.append(f"{outcome['per_second']:.0f} images a second")
    if outcome["skipped"]:
        parts.append(f"{len(outcome['skipped'])} images skipped")
    return f"{', '.join(parts)}; the model is in {outcome['model']}"


def read_config(path: Path | None) -> dict[str, Any]:
    """Nested settings of a YAML file. Raises ConfigError for anything else."""
    if path is None:
        return {}
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"{path} cannot be read as YAML ({why}); give a file of settings") from error
    if raw is None:
        return {}
    if not isinstance(raw, dict):
        raise ConfigError(f"{path} should hold settings by name, it holds a {type(raw).__name__}")
    return raw


def put(raw: dict[str, Any], change: str) -> None:
    """Apply ``a.b=c`` to nested settings; c is read as YAML. Raises ConfigError for another form."""
    import yaml

    key, equals, value = change.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"--set expects a.b=c, such as detector.tau=0.07; got {change!r}")
    try:
        assign(raw, key, yaml.safe_load(value))
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: the value {value!r} cannot be read; quote it as in YAML") from error


def assign(raw: dict[str, Any], key: str, value: Any) -> None:
    """raw[a][b] = value for the key a.b."""
    *sections, last = key.split(".")
    for name in sections:
        inner = raw.setdefault(name, {})
        if inner is None:
            inner = raw[name] = {}
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {key}: {name} is a value, not a section; it was {inner!r}")
        raw = inner
    raw[last] = value


class Watch:
    """Told of each step: remembers the last, names what is skipped, shows what it is given to show with."""

    def __init__(self, show: Callable[[Progress], None]) -> None:
        self.show = show
        self.last: Progress | None = None

    def __call__(self, progress: Progress) -> None:
        known = self.last.skipped if self.last is not None else {}
        for path, why in progress.skipped.items():
            if path not in known:
                click.echo(f"dapo: {why if path in why else f'{path}: {why}'}", err=True)
        self.show(progress)
        self.last = progress


@contextlib.contextmanager
def reporter() -> Iterator[Watch]:
    """On stderr: a bar with losses and speed on a terminal, else a line now and then."""
    if not sys.stderr.isatty():
        yield Watch(lines)
        return
    with terminal_bar("training", facts=True, transient=False) as bar:
        task = bar.add_task("", total=None, facts="")

        def show(progress: Any) -> None:
            bar.update(task, completed=progress.step, total=progress.steps, facts=facts(progress))

        yield Watch(show)


def lines(progress: Progress) -> None:
    """Twenty lines a run."""
    every = max(1, progress.steps // 20)
    if progress.step % every == 0 or progress.step == progress.steps:
        click.echo(f"step {progress.step} of {progress.steps}: {facts(progress)}", err=True)


def facts(progress: Progress) -> str:
    """Losses and speed."""
    losses = ", ".join(f"{name} {value:.3f}" for name, value in progress.losses.items())
    return f"{losses}; {progress.per_second:.1f} images a second"
