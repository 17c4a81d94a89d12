"""What ``dapo inspect`` writes: the formats and pictures by name, and the writer of each.

In: names as typed. Out: context managers with ``write(result)``. Formats hold the whole run in a few files,
pictures are files of each image.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

PICTURES = ("overlay", "heatmap", "mask", "tiff", "crops")
FORMATS = ("jsonl", "csv", "parquet", "coco", "yolo", "label-studio", "html")
SEGMENTATIONS = ("rle", "polygon")
RESULTS = "results.jsonl"
FILES = {
    "jsonl": RESULTS,
    "csv": "results.csv, regions.csv",
    "parquet": "results.parquet, regions.parquet",
    "coco": "coco/coco.json",
    "yolo": "yolo/",
    "label-studio": "label-studio/label-studio.json, label-studio.xml",
    "html": "report.html",
}
FOLDERS = {"tiff": "anomaly_maps"}  # MVTec's name; the other pictures lie in a folder of their own name


def open_journal(out: Path, formats: Iterable[str], *, append: bool) -> Iterator[Any]:
    """The writer of results.jsonl, if it is among ``formats``; ``append``: it goes on."""
    from dapo.writers.jsonl import JsonlWriter

    if "jsonl" in formats:
        yield JsonlWriter(out / RESULTS, append=append, shape="both")


def open_documents(
    out: Path, formats: Iterable[str], names: Sequence[str], words: Any = None, segmentation: str = "rle"
) -> Iterator[Any]:
    """A writer in ``out`` for each of ``formats`` but jsonl.

    Paths are told from the folder that ``names`` share; severities, causes and actions are those of the
    vocabulary ``words``.
    """
    root = shared_folder(names)
    severities = {defect.name: defect.severity for defect in getattr(words, "defects", ())}
    for name in formats:
        module = import_module(f"dapo.writers.{name.replace('-', '_')}")
        if name == "csv":
            yield module.CsvWriter(out, severities)
        elif name == "parquet":
            yield module.ParquetWriter(out, severities)
        elif name == "coco":
            yield module.CocoWriter(out / "coco" / "coco.json", root, segmentation)
        elif name == "yolo":
            yield module.YoloWriter(out / "yolo", root)
        elif name == "label-studio":
            yield module.LabelStudioWriter(out / "label-studio" / "label-studio.json", root)
        elif name == "html":
            yield module.HtmlReport(out / "report.html", title="Inspection", vocabulary=words)


def open_pictures(out: Path, save: Iterable[str], names: Sequence[str]) -> Iterator[Any]:
    """A writer for each of ``save``, in its own folder in ``out``; the folders of ``names`` are mirrored.

    Each name gets its file now: which of two equal names stays as it is does not depend on what fails.
    """
    for kind in save:
        root: str | None = shared_folder(names)
        module = import_module(f"dapo.writers.{kind}")
        if kind == "tiff":
            root = module.tree_root(names) or root
        writer = getattr(module, f"{kind.capitalize()}Writer")(out / FOLDERS.get(kind, kind), root)
        for name in names:
            writer.names.path_for(name)
        yield writer


def shared_folder(names: Sequence[str]) -> str:
    """The folder that holds all of ``names``."""
    from dapo.cli.table import common_folder

    return common_folder(names) or "."


def where(out: Path, pictures: Path, save: Iterable[str], formats: Iterable[str]) -> str:
    """The line that says what was written: files into ``out``, pictures into ``pictures``."""
    files = ", ".join(FILES[name] for name in formats)
    folders = ", ".join(f"{FOLDERS.get(kind, kind)}/" for kind in save)
    told = [f"{out}: {files}"] if files and (out != pictures or not folders) else []
    if folders:
        told.append(f"{pictures}: {', '.join(filter(None, [files if out == pictures else '', folders]))}")
    return f"written to {'; '.join(told)}"
