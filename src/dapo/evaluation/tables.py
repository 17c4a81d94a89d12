"""Tables of an evaluation: rows of text for a terminal and Markdown, CSV files for spreadsheets and pandas.

A `Table` is a title, a head and rows of text; everything that shows figures makes one.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dapo.evaluation.run import Evaluation

# (part, figure) of `Evaluation.mean` -> the column's name
FIGURES = {
    ("image", "auroc"): "image AUROC",
    ("image", "ap"): "image AP",
    ("image", "f1_max"): "image F1max",
    ("pixel", "auroc"): "pixel AUROC",
    ("pixel", "ap"): "pixel AP",
    ("pixel", "f1_max"): "pixel F1max",
    ("pixel", "aupro"): "AUPRO",
    ("types", "top1"): "type top-1",
    ("types", "balanced_accuracy"): "type balanced",
    ("types", "f1_macro"): "type F1",
    ("types", "pixel_auroc"): "multi-type AUROC",
    ("types", "pixel_ap"): "multi-type AP",
    ("types", "pixel_f1"): "multi-type F1",
}
INTERVALS = {
    ("image", "auroc"): "image_auroc",
    ("pixel", "auroc"): "pixel_auroc",
    ("types", "top1"): "top1",
    ("types", "balanced_accuracy"): "balanced_accuracy",
}
# path in a row of `Evaluation.types` -> the column's name
TYPE_FIGURES = {
    ("recall",): "recall",
    ("f1",): "F1",
    ("image_auroc",): "image AUROC",
    ("localisation_auroc",): "localisation AUROC",
    ("pixel", "auroc"): "own map AUROC",
    ("pixel", "ap"): "own map AP",
    ("pixel", "aupro"): "own map AUPRO",
    ("pixel", "f1"): "argmax F1",
}


@dataclass(frozen=True)
class Table:
    """Rows of text under a head; the first column names the row."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""

    def to_markdown(self, level: int = 3) -> str:
        lines = [f"{'#' * level} {self.title}", ""] if self.title else []
        lines += [markdown_row(self.head), "|---" + "|---:" * (len(self.head) - 1) + "|"]
        lines += map(markdown_row, self.rows)
        return "\n".join([*lines, *(["", self.note] if self.note else [])]) + "\n"

    def to_csv(self) -> str:
        return csv_text([self.head, *self.rows])


def markdown_row(cells: Sequence[str]) -> str:
    """One line of a Markdown table; a bar inside a cell does not end it."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def shown(value: float) -> str:
    """Three decimals; a dash for a figure that does not exist."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def at(figures: Mapping[str, Any], path: Iterable[str]) -> float:
    """The figure at this path; NaN where there is none."""
    value: Any = figures
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return math.nan if value is None else float(value)


def product_table(evaluation: Evaluation) -> Table:
    """A row a product, the mean, its 95 % intervals; columns without a figure are left out."""
    rows = {**evaluation.products, "mean": evaluation.mean}
    kept = [path for path in FIGURES if any(not math.isnan(at(row, path)) for row in rows.values())]
    cells = [(name, *(shown(at(row, path)) for path in kept)) for name, row in rows.items()]
    if len(evaluation.products) == 1:
        cells = [(next(iter(evaluation.products)), *cells[1][1:])]
    intervals = evaluation.mean.get("intervals", {})
    if intervals:
        cells.append(("95 % interval", *(interval(intervals, path) for path in kept)))
    if evaluation.spread is not None:
        runs = f"{len(evaluation.protocol['seeds'])} {evaluation.protocol['spread_over']}"
        cells.append((f"± over {runs}", *(shown(at(evaluation.spread, path)) for path in kept)))
    return Table("Products", ("product", *(FIGURES[path] for path in kept)), tuple(cells))


def figure_table(
    title: str, head: Sequence[str], rows: Mapping[tuple[str, ...], Evaluation], note: str = ""
) -> Table:
    """A row an evaluation under what names it: "0.718 ± 0.012" over seeds, "0.718 (0.65-0.79)" with the
    interval of a single run. Columns without a figure are left out.
    """
    kept = [
        path
        for path in FIGURES
        if any(not math.isnan(at(evaluation.mean, path)) for evaluation in rows.values())
    ]
    cells = tuple((*names, *(cell(evaluation, path) for path in kept)) for names, evaluation in rows.items())
    return Table(title, (*head, *(FIGURES[path] for path in kept)), cells, note)


def cell(evaluation: Evaluation, path: tuple[str, str]) -> str:
    """A figure of the mean with its spread or interval, where it has one."""
    value = shown(at(evaluation.mean, path))
    if evaluation.spread is not None:
        deviation = at(evaluation.spread, path)
        return value if math.isnan(deviation) else f"{value} ± {deviation:.3f}"
    low, high = evaluation.mean.get("intervals", {}).get(INTERVALS.get(path, ""), (math.nan, math.nan))
    return value if math.isnan(low) else f"{value} ({low:.2f}-{high:.2f})"


def interval(intervals: Mapping[str, Sequence[float]], path: tuple[str, str]) -> str:
    """ "0.65-0.79", or nothing."""
    low, high = intervals.get(INTERVALS.get(path, ""), (math.nan, math.nan))
    return "" if math.isnan(low) else f"{low:.2f}-{high:.2f}"


def type_table(evaluation: Evaluation) -> Table:
    """A row for each type: means over the products that have it, and what it was mistaken for most."""
    rows = evaluation.types
    kept = [path for path in TYPE_FIGURES if any(not math.isnan(at(row, path)) for row in rows.values())]
    mistaken = mistakes(evaluation)
    head = ("type", "products", "images", *(TYPE_FIGURES[path] for path in kept), "most often mistaken for")
    cells = (
        (name, str(row["products"]), str(row["images"]), *(shown(at(row, path)) for path in kept), wrong)
        for name, row in rows.items()
        for wrong in [mistaken.get(name, "-")]
    )
    return Table("Types", head, tuple(cells))


def mistakes(evaluation: Evaluation) -> dict[str, str]:
    """{type: the other type it was called most, with the number of images}."""
    counts: dict[str, dict[str, int]] = {}
    for product in evaluation.products.values():
        for truth, calls in (product["confusion"] or {}).items():
            for call, number in calls.items():
                if call != truth and number:
                    own = counts.setdefault(truth, {})
                    own[call] = own.get(call, 0) + number
    return {
        truth: "{} ({})".format(*max(calls.items(), key=lambda item: item[1]))
        for truth, calls in counts.items()
    }


def novel_table(evaluation: Evaluation) -> Table | None:
    """Known types beside novel ones; None when the evaluation was not asked for it."""
    if evaluation.novel is None:
        return None
    kept = [
        path
        for path in TYPE_FIGURES
        if any(not math.isnan(at(row, path)) for row in evaluation.novel.values())
    ]
    rows = tuple(
        (f"{part} ({len(row['types'])})", *(shown(at(row, path)) for path in kept))
        for part, row in evaluation.novel.items()
    )
    note = "Novel types, absent from training: " + (", ".join(evaluation.novel["novel"]["types"]) or "none")
    return Table("Known and novel types", ("types", *(TYPE_FIGURES[path] for path in kept)), rows, note + ".")


def protocol_line(evaluation: Evaluation) -> str:
    """The protocol in one sentence."""
    protocol = evaluation.protocol
    parts = [str(protocol[key]) for key in ("dataset", "method") if protocol.get(key)]
    parts.append(f"{protocol['images']} images ({', '.join(protocol['splits'])})")
    if evaluation.failures:
        parts.append(f"{len(evaluation.failures)} failed")
    parts += [f"WARNING: {said}" for said in warnings_of(evaluation)]
    models = protocol.get("models") or [protocol["model"]] * bool(protocol.get("model"))
    parts += [f"model {m['name']}, version {m['version']} ({str(m['sha256'])[:12]})" for m in models]
    trained_on = dict.fromkeys(name for model in models for name in model.get("training_data", ()))
    parts += [f"trained on {', '.join(trained_on)}"] if trained_on else []
    parts += [f"names: {protocol['names']}"] if "names" in protocol else []
    parts += [f"references: {protocol['shots']} good parts a product"] if protocol.get("shots") else []
    parts += [str(protocol[key]) for key in ("intervals", "corruption", "note") if protocol.get(key)]
    parts += [f"data licence: {protocol['licence']}"] if protocol.get("licence") else []
    return "; ".join([*parts, f"configuration {protocol.get('config_hash', '-')}"])


def warnings_of(evaluation: Evaluation) -> list[str]:
    """What makes figures worth less than they look."""
    found = []
    if seen := evaluation.protocol.get("trained_on_test_images"):
        found.append(f"{seen} of the test images were trained on")
    if empty := sum(row.get("counts", {}).get("empty_masks", 0) for row in evaluation.products.values()):
        found.append(f"the masks of {empty} defective images mark nothing; dapo data check names them")
    return found


def tables_of(evaluation: Evaluation) -> list[Table]:
    """Products, types, and novel types where asked for."""
    found = [product_table(evaluation)]
    if evaluation.types:
        found.append(type_table(evaluation))
    novel = novel_table(evaluation)
    return found if novel is None else [*found, novel]


def to_markdown(evaluation: Evaluation) -> str:
    """All tables under the protocol."""
    parts = [protocol_line(evaluation) + ".", *(table.to_markdown() for table in tables_of(evaluation))]
    return "\n\n".join(part.rstrip() for part in parts) + "\n"


def products_csv(evaluation: Evaluation) -> str:
    """A row a product and the mean, every figure in full precision; empty where there is none."""
    rows = {**evaluation.products, "mean": evaluation.mean}
    head = ("product", *(f"{part}_{name}" for part, name in FIGURES))
    return csv_text(
        [head, *((name, *(full(at(row, path)) for path in FIGURES)) for name, row in rows.items())]
    )


def types_csv(evaluation: Evaluation) -> str:
    """A row for each type of each product."""
    head = ("product", "type", "images", *("_".join(path) for path in TYPE_FIGURES))
    return csv_text(
        [
            head,
            *(
                (product, name, str(row["images"]), *(full(at(row, path)) for path in TYPE_FIGURES))
                for product, figures in evaluation.products.items()
                for name, row in figures["per_type"].items()
            ),
        ]
    )


def images_csv(evaluation: Evaluation) -> str:
    """A row an image: its truth (a bar between several types), its raw score, what it was called."""
    rows = (
        (row.image, row.product, "|".join(row.types) or "good", repr(row.score), row.called or "")
        for row in evaluation.images
    )
    return csv_text([("image", "product", "truth", "raw_score", "called"), *rows])


def full(value: float) -> str:
    """All digits, or nothing."""
    return "" if math.isnan(value) else repr(round(value, 9))


def csv_text(rows: Iterable[Sequence[str]]) -> str:
    """RFC 4180 but for the line ends, which are plain."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()
