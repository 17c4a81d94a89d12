"""Two tables: a row for each image and a row for each region, as CSV and Parquet hold them.

In: an inspection or a failure. Out: one dictionary for the image, one for each of its regions. The score of
each type is a column ``type:NAME``; a failed image has its name and ``error``, the rest is empty.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from dapo.inspection import DECIMALS, Failure, Inspection

__all__ = ["IMAGE_COLUMNS", "REGION_COLUMNS", "TYPE_PREFIX", "image_row", "region_rows"]

IMAGE_COLUMNS: dict[str, type] = {
    "image": str,
    "verdict": str,
    "score": float,
    "raw_score": float,
    "threshold": float,
    "calibration": str,
    "best_type": str,
    "best_type_score": float,
    "regions": int,
    "width": int,
    "height": int,
    "error": str,
}
REGION_COLUMNS: dict[str, type] = {
    "image": str,
    "region": int,
    "type": str,
    "severity": str,
    "score": float,
    "margin": float,
    "x": int,
    "y": int,
    "width": int,
    "height": int,
    "area_px": int,
    "centroid_x": float,
    "centroid_y": float,
}
TYPE_PREFIX = "type:"


def image_row(result: Inspection | Failure) -> dict[str, Any]:
    """The image's row; columns that do not apply are left out."""
    if isinstance(result, Failure):
        return {"image": result.image, "error": f"{result.kind}: {result.message}"}
    best = max(result.types, key=lambda name: result.types[name], default=None)
    scores = {f"{TYPE_PREFIX}{name}": round(score, DECIMALS) for name, score in result.types.items()}
    row = {
        "image": result.image,
        "verdict": result.verdict,
        "score": round(result.score, DECIMALS),
        "raw_score": round(result.raw_score, DECIMALS),
        "threshold": round(result.threshold, DECIMALS),
        "calibration": result.calibration_statement,
        "regions": len(result.regions),
        "width": result.width,
        "height": result.height,
    }
    if best is not None:
        row |= {"best_type": best, "best_type_score": scores[f"{TYPE_PREFIX}{best}"]}
    return row | scores


def region_rows(result: Inspection | Failure, severities: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The rows of an image's regions; ``severities`` by type name."""
    for region in () if isinstance(result, Failure) else result.regions:
        x, y, width, height = region.bbox
        yield {
            "image": result.image,
            "region": region.id,
            "type": region.type,
            "severity": severities.get(region.type, ""),
            "score": round(region.score, DECIMALS),
            "margin": round(region.margin, DECIMALS),
            "x": x,
            "y": y,
            "width": width,
            "height": height,
            "area_px": region.area_px,
            "centroid_x": round(region.centroid[0], 2),
            "centroid_y": round(region.centroid[1], 2),
        }
