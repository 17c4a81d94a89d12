"""Writers: one file a format. Each is a context manager with ``open()``, ``write(result)`` and ``close()``.

Results are written as they come or wait on disk, so a run of any length needs the memory of one image. A file
appears whole, also after an interruption or an error; a full disk leaves the older one.
"""

from __future__ import annotations

from dapo.writers.coco import CocoWriter
from dapo.writers.crops import CropsWriter
from dapo.writers.csv import CsvWriter
from dapo.writers.heatmap import HeatmapWriter
from dapo.writers.html import HtmlReport
from dapo.writers.jsonl import JsonlWriter, read_jsonl
from dapo.writers.label_studio import LabelStudioWriter
from dapo.writers.mask import MaskWriter
from dapo.writers.overlay import OverlayWriter, compare, draw_overlay
from dapo.writers.parquet import ParquetWriter
from dapo.writers.tiff import TiffWriter
from dapo.writers.yolo import YoloWriter

__all__ = [
    "CocoWriter",
    "CropsWriter",
    "CsvWriter",
    "HeatmapWriter",
    "HtmlReport",
    "JsonlWriter",
    "LabelStudioWriter",
    "MaskWriter",
    "OverlayWriter",
    "ParquetWriter",
    "TiffWriter",
    "YoloWriter",
    "compare",
    "draw_overlay",
    "read_jsonl",
]
