"""Pictures of an evaluation: confusion of types, ROC and precision-recall (matplotlib, extra `plot`)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dapo.errors import ConfigError
from dapo.evaluation.run import Evaluation
from dapo.evaluation.tables import at
from dapo.writers.palette import Palette, hex_code

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CELL = 0.55  # inches a class
COLUMNS = 3  # confusion panels a row
LEGEND = 8  # products named beside the curves


def new_figure(width: float, height: float) -> Figure:
    """An empty figure that needs no screen. Raises ConfigError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            'pictures need matplotlib, which is not installed: pip install "dapo[plot]", or leave them out'
        ) from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def draw_confusion(evaluation: Evaluation, path: Path) -> Path | None:
    """A panel a product: rows the truth, columns what the image was called, shares of the row and counts.

    Returns None, and draws nothing, when no image was named.
    """
    named = {name: row["confusion"] for name, row in evaluation.products.items() if row["confusion"]}
    if not named:
        return None
    columns = min(COLUMNS, len(named))
    rows = math.ceil(len(named) / columns)
    side = 1.8 + CELL * max(len(confusion) for confusion in named.values())
    figure = new_figure(columns * side, rows * side)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, (product, confusion) in zip(panels, named.items(), strict=False):
        draw_counts(panel, product, confusion)
    for panel in panels[len(named) :]:
        panel.axis("off")
    figure.supxlabel("called", fontsize=9)
    figure.supylabel("truth", fontsize=9)
    return saved(figure, path)


def draw_counts(panel: Axes, title: str, confusion: dict[str, dict[str, int]]) -> None:
    names = list(confusion)
    counts = np.array([[confusion[truth][call] for call in names] for truth in names], dtype=float)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    panel.imshow(share, vmin=0, vmax=1, cmap="Blues")
    for row, column in np.ndindex(counts.shape):
        if counts[row, column]:
            ink = "white" if share[row, column] > 0.55 else "#223"
            panel.text(
                column, row, f"{counts[row, column]:.0f}", ha="center", va="center", color=ink, fontsize=8
            )
    panel.set_title(title, fontsize=10)
    panel.set_xticks(range(len(names)), names, rotation=40, ha="right", fontsize=8)
    panel.set_yticks(range(len(names)), names, fontsize=8)
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)


def draw_curves(evaluation: Evaluation, path: Path) -> Path | None:
    """ROC and precision-recall, of the images and, where masks are known, of the pixels, a line a product.

    Returns None, and draws nothing, when no curve exists.
    """
    known = {
        name: curves
        for name, curves in evaluation.curves.items()
        if any(len(curve["recall"]) for curve in curves.values())
    }
    if not known:
        return None
    parts = [part for part in ("image", "pixel") if any(len(own[part]["recall"]) for own in known.values())]
    figure = new_figure(10, 4.2 * len(parts))
    panels = figure.subplots(len(parts), 2, squeeze=False)
    colours = Palette(known)
    for row, part in enumerate(parts):
        for name, curves in known.items():
            figures = evaluation.products[name][part]
            style: dict[str, Any] = {"color": hex_code(colours[name]), "linewidth": 1.6}
            draw_roc(panels[row][0], curves[part], f"{name}  {figures['auroc']:.3f}", style)
            draw_precision(panels[row][1], curves[part], f"{name}  AP {at(figures, ('ap',)):.3f}", style)
        label(panels[row][0], f"{part}s: ROC", "false alarms (share of good)", "defects found")
        label(panels[row][1], f"{part}s: precision and recall", "defects found", "calls that are right")
        panels[row][0].plot([0, 1], [0, 1], color="#999", linewidth=0.8, linestyle=":")
    return saved(figure, path)


def draw_roc(panel: Axes, curve: dict[str, Any], name: str, style: dict[str, Any]) -> None:
    if len(curve["fpr"]) and not np.isnan(curve["fpr"]).any():
        panel.plot(curve["fpr"], curve["recall"], label=name, **style)


def draw_precision(panel: Axes, curve: dict[str, Any], name: str, style: dict[str, Any]) -> None:
    if len(curve["recall"]):
        panel.plot(curve["recall"], curve["precision"], label=name, **style)


def label(panel: Axes, title: str, across: str, up: str) -> None:
    panel.set_title(title, fontsize=10)
    panel.set_xlabel(across, fontsize=9)
    panel.set_ylabel(up, fontsize=9)
    panel.set_xlim(-0.01, 1.01)
    panel.set_ylim(-0.01, 1.02)
    panel.grid(color="#e4e4e8", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    handles, names = panel.get_legend_handles_labels()
    if handles:
        panel.legend(handles[:LEGEND], names[:LEGEND], fontsize=8, frameon=False)


def saved(figure: Figure, path: Path) -> Path:
    figure.savefig(path, format="png", dpi=130, facecolor="white")
    return path
