"""Figures of merit of scores and maps, without torch: numpy, and scipy for connected regions.

Exact (`image_metrics`, `pixel_metrics`, `type_metrics`), or streaming in fixed memory with certain bounds.
A figure that does not exist (no defect, no good part) is NaN, never a made-up number.
"""

from __future__ import annotations

from dapo.metrics.curves import image_metrics
from dapo.metrics.overlap import pixel_metrics
from dapo.metrics.streaming import StreamingPixelMetrics
from dapo.metrics.types import type_metrics

__all__ = ["StreamingPixelMetrics", "image_metrics", "pixel_metrics", "type_metrics"]
