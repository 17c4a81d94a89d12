"""Figures of a model on real images, next to the local-contrast baseline and to chance.

DATA_ROOT holds `magnetic_tile` (5 defect types with masks, good tiles; intervals by physical tile) and
`steel_strip` (7 types, image labels only: naming). Prints the tables and writes `real_images.json` and
`real_images.md` into --out.

    python benchmarks/real_images.py DATA_ROOT --model FOLDER
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import yaml
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from dapo.data import Sample, read_folder
from dapo.errors import DapoError
from dapo.evaluation import Evaluation, best_of, evaluate, local_contrast_baseline
from dapo.inspector import Inspector

WORDS = Path(__file__).with_name("words.yaml")
GROUPS = {"magnetic_tile": "tile", "steel_strip": None}  # the manifest's key of the physical part
DETECTION = (
    ("image", "auroc", "image AUROC"),
    ("image", "ap", "image AP"),
    ("image", "f1_max", "image F1max"),
    ("pixel", "auroc", "pixel AUROC"),
    ("pixel", "ap", "pixel AP"),
    ("pixel", "f1_max", "pixel F1max"),
    ("pixel", "aupro", "AUPRO"),
)
NAMING = (
    ("types", "top1", "type top-1"),
    ("types", "balanced_accuracy", "balanced accuracy"),
    ("types", "f1_macro", "type macro F1"),
)
INTERVAL = {
    ("image", "auroc"): "image_auroc",
    ("pixel", "auroc"): "pixel_auroc",
    ("types", "top1"): "top1",
    ("types", "balanced_accuracy"): "balanced_accuracy",
}

Figures = dict[str, dict[str, float]]
Rows = list[tuple[str, list[str]]]


def chance(samples: Sequence[Sample]) -> Figures:
    """What calling every defective image by the most frequent type gives; a random score for the images."""
    counts = Counter(sample.types[0] for sample in samples if sample.defective)
    share = max(counts.values()) / sum(counts.values())
    naming = {
        "top1": share,
        "balanced_accuracy": 1 / len(counts),
        "f1_macro": 2 * share / (1 + share) / len(counts),
    }
    return {"image": {"auroc": 0.5}, "pixel": {"auroc": 0.5}, "types": naming}


def cell(figures: dict[str, Any], part: str, name: str) -> str:
    """ "0.700 (0.65-0.75)", the interval where there is one; a dash for a figure that does not exist."""
    value = figures.get(part, {}).get(name, math.nan)
    if math.isnan(value):
        return "-"
    low, high = figures.get("intervals", {}).get(INTERVAL.get((part, name)), (math.nan, math.nan))
    return f"{value:.3f}" if math.isnan(low) else f"{value:.3f} ({low:.2f}-{high:.2f})"


def figure_rows(columns: dict[str, dict[str, Any]], masked: bool) -> Rows:
    """A row a figure, a column a way of answering."""
    names = (*DETECTION, *NAMING) if masked else NAMING
    return [
        (label, [cell(figures, part, name) for figures in columns.values()]) for part, name, label in names
    ]


def type_table(evaluation: Evaluation) -> tuple[list[str], Rows]:
    """Head and a row a type; columns without a figure are left out."""
    names = ["recall", "F1", "image AUROC", "localisation AUROC", "own map AUROC"]
    found: Rows = []
    for product in evaluation.products.values():
        for name, row in product["per_type"].items():
            values = [
                row["recall"],
                row["f1"],
                row["image_auroc"],
                row["localisation_auroc"],
                row["pixel"]["auroc"],
            ]
            wrong = Counter({call: n for call, n in product["confusion"][name].items() if call != name and n})
            mistaken = ", ".join(f"{call} ({n})" for call, n in wrong.most_common(1))
            cells = ["-" if math.isnan(value) else f"{value:.3f}" for value in values]
            found.append((name, [str(row["images"]), *cells, mistaken]))
    head = ["type", "images", *names, "most often mistaken for"]
    kept = [0, *(n for n in range(1, len(head)) if any(cells[n - 1] != "-" for _, cells in found))]
    return [head[n] for n in kept], [(label, [cells[n - 1] for n in kept[1:]]) for label, cells in found]


def print_table(console: Console, title: str, head: Sequence[str], rows: Rows) -> None:
    table = Table(title=title, title_justify="left")
    for name in head:
        table.add_column(
            name, justify="left" if name in ("figure", "type", "most often mistaken for") else "right"
        )
    for label, cells in rows:
        table.add_row(label, *cells)
    console.print(table)


def markdown(title: str, head: Sequence[str], rows: Rows) -> str:
    lines = [f"### {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    return "\n".join([*lines, *(f"| {' | '.join([label, *cells])} |" for label, cells in rows)]) + "\n"


@dataclass(frozen=True)
class Answers:
    """The model's evaluation of one dataset, the baseline's where there are masks, and chance."""

    dataset: str
    model: Evaluation
    baseline: dict[str, Evaluation]
    chance: Figures

    def tables(self) -> list[tuple[str, list[str], Rows]]:
        """(title, head, rows) of the figures and of the types."""
        protocol = self.model.protocol
        columns: dict[str, Any] = {"model": self.model.mean}
        if self.baseline:
            columns["best local contrast"] = best_of(self.baseline)
        columns["chance"] = self.chance
        title = f"{self.dataset}: {protocol['images']} test images, {len(self.model.failures)} failed"
        title += f"; intervals: {protocol['intervals']}" if protocol["intervals"] else ""
        figures = figure_rows(columns, masked=bool(self.baseline))
        return [(title, ["figure", *columns], figures), (f"{self.dataset}: by type", *type_table(self.model))]

    def record(self) -> dict[str, Any]:
        baseline = {name: evaluation.to_dict() for name, evaluation in self.baseline.items()}
        best = best_of(self.baseline) if self.baseline else None
        return self.model.to_dict() | {"baseline": baseline, "baseline_best": best, "chance": self.chance}


def answers(
    inspector: Inspector, root: Path, phrases: dict[str, list[str]], batch_size: int, draws: int, seed: int
) -> Answers:
    """Evaluate one dataset, with progress on stderr."""
    samples = read_folder(root, splits=("test",), group_key=GROUPS[root.name])
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(root.name, total=len(samples))
        found = evaluate(
            inspector,
            samples,
            phrases=phrases,
            batch_size=batch_size,
            draws=draws,
            seed=seed,
            on_image=lambda _: progress.advance(task),
        )
    masked = any(sample.defective and sample.masks for sample in samples)
    baseline = local_contrast_baseline(samples, draws=draws, seed=seed) if masked else {}
    return Answers(root.name, found, baseline, chance(samples))


@click.command(help=__doc__)
@click.argument("data_root", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--model", default=None, help="Model folder or hub id; default: the embedded model.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/benchmarks"), show_default=True)
@click.option(
    "--words", type=click.Path(path_type=Path, exists=True), default=WORDS, help="Phrases for each type."
)
@click.option("--batch-size", type=click.IntRange(1), default=16, show_default=True)
@click.option(
    "--draws", type=click.IntRange(0), default=1000, show_default=True, help="Resamples; 0: no intervals."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--dataset", "chosen", multiple=True, type=click.Choice(list(GROUPS)), help="Only this one.")
def main(
    data_root: Path,
    model: str | None,
    out: Path,
    words: Path,
    batch_size: int,
    draws: int,
    seed: int,
    chosen: tuple[str, ...],
) -> None:
    console = Console()
    pages: list[str] = []
    phrases = yaml.safe_load(words.read_text(encoding="utf-8"))
    try:
        inspector = Inspector.from_pretrained(model)
        record: dict[str, Any] = {"model": dict(inspector.info.to_dict())}
        for dataset in chosen or GROUPS:
            found = answers(inspector, data_root / dataset, phrases.get(dataset, {}), batch_size, draws, seed)
            record[dataset] = found.record()
            for table in found.tables():
                print_table(console, *table)
                pages.append(markdown(*table))
    except DapoError as error:
        raise click.ClickException(str(error)) from error
    out.mkdir(parents=True, exist_ok=True)
    (out / "real_images.json").write_text(
        json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8"
    )
    (out / "real_images.md").write_text("\n".join(pages), encoding="utf-8")
    console.print(f"Written to {out / 'real_images.json'} and {out / 'real_images.md'}")


if __name__ == "__main__":
    main()
