"""Datasets: one Sample, and a reader for each layout as its owner publishes it."""

from __future__ import annotations

from dapo.data.folder import read_folder
from dapo.data.sample import Sample, types_of

__all__ = ["Sample", "read_folder", "types_of"]
