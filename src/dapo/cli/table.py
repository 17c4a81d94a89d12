"""The lines a person reads while images are inspected: one an image, aligned, cut to the terminal."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from dapo.inspection import Inspection

NAME_WIDTHS = (12, 44)  # narrowest and widest image column, in characters
TYPES_SHOWN = 3
VERDICT_WIDTH = len("defective")


def shorten(text: str, width: int) -> str:
    """Cut from the front, where paths are least telling: ``…/line-3/part-017.png``."""
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


class ResultTable:
    """Formats rows; the image column is as wide as the longest of ``names`` allows."""

    def __init__(self, names: Sequence[str]) -> None:
        self.root = common_folder(names)
        longest = max((len(self.label(name)) for name in names), default=0)
        self.width = min(max(longest, NAME_WIDTHS[0]), NAME_WIDTHS[1])
        self.columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None

    def label(self, name: str) -> str:
        """The name without the folder all images share."""
        return name[len(self.root) :]

    def header(self) -> str:
        row = f"{'image':<{self.width}}  {'verdict':<{VERDICT_WIDTH}}  score  regions  types"
        return click.style(row, bold=True)

    def row(self, result: Inspection) -> str:
        """One inspected image: verdict, score, regions, and the types that score highest."""
        name = shorten(self.label(result.image), self.width)
        best = sorted(result.types.items(), key=lambda item: -item[1])[:TYPES_SHOWN]
        types = ", ".join(f"{kind} {score:.2f}" for kind, score in best)
        numbers = f"{result.score:5.2f}  {len(result.regions):7d}  "
        if self.columns is not None:
            room = self.columns - self.width - VERDICT_WIDTH - len(numbers) - 5
            while len(types) > room and ", " in types:
                types = types.rpartition(", ")[0]
        colour = "red" if result.verdict == "defective" else "green"
        verdict = click.style(f"{result.verdict:<{VERDICT_WIDTH}}", fg=colour)
        return f"{name:<{self.width}}  {verdict}  {numbers}{types}"


def common_folder(names: Sequence[str]) -> str:
    """The folder that holds all of ``names``, with its separator; "" when there is none."""
    folders = {os.path.split(name)[0] for name in names}
    if len(folders) == 1:
        folder = folders.pop()
        return folder + os.sep if folder else ""
    try:
        folder = os.path.commonpath(folders) if folders else ""
    except ValueError:  # different drives, or relative beside absolute
        return ""
    return folder + os.sep if folder and folder != os.sep else ""
