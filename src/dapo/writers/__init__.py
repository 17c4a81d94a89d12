"""Writers: one file a format. Each is a context manager with ``open()``, ``write(result)`` and ``close()``.

Results are written as they come, so a run of any length needs the memory of one image.
"""

from __future__ import annotations

from dapo.writers.heatmap import HeatmapWriter
from dapo.writers.html import HtmlReport
from dapo.writers.jsonl import JsonlWriter
from dapo.writers.overlay import OverlayWriter, compare, draw_overlay

__all__ = ["HeatmapWriter", "HtmlReport", "JsonlWriter", "OverlayWriter", "compare", "draw_overlay"]
