"""Results to test writers with: photographs or grey cards with round flaws painted on, maps to match."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from dapo.inspection import Inspection
from dapo.regions import find_regions

TYPES = ("scratch", "pin hole", "stain")
Spot = tuple[str, float, float, float, float]  # type, x, y, radius, score; lengths as shares of the size


def inspected(
    image: str = "part.png",
    spots: Sequence[Spot] = (("scratch", 0.3, 0.3, 0.1, 0.9),),
    size: tuple[int, int] = (120, 160),
    types: Sequence[str] = TYPES,
    pixels: np.ndarray | None = None,
    **changes: Any,
) -> Inspection:
    """An inspection (h, w) = ``size`` that found ``spots``; without any, a good part."""
    if pixels is None:
        pixels = np.full((*size, 3), 128, np.uint8)
    height, width = pixels.shape[:2]
    rows, columns = np.mgrid[:height, :width] + 0.5
    maps = {name: np.zeros((height, width), np.float32) for name in types}
    for name, x, y, radius, score in spots:
        disc = np.hypot(columns - x * width, rows - y * height) <= radius * min(height, width)
        maps.setdefault(name, np.zeros((height, width), np.float32))[disc] = score
    anomaly = np.max(list(maps.values()), axis=0)
    score = float(anomaly.max()) if spots else 0.1
    given = {
        "image": image,
        "width": width,
        "height": height,
        "score": score,
        "raw_score": score,
        "threshold": 0.5,
        "verdict": "defective" if score >= 0.5 else "ok",
        "types": {name: float(maps[name].max()) for name in types},
        "regions": find_regions(anomaly, maps, threshold=0.4),
        "anomaly_map": anomaly,
        "type_maps": maps,
        "model": {"name": "dapo", "version": "0.1.0", "sha256": "ab" * 32},
        "timing_ms": 12.0,
        "pixels": pixels,
    }
    return Inspection(**{**given, **changes})
