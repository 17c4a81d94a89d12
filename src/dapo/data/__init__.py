"""Datasets: one Sample, a reader for each layout as its owner publishes it, and the catalogue of them all."""

from __future__ import annotations

from dapo.data.catalogue import DATASETS, Dataset, open_dataset
from dapo.data.folder import read_folder
from dapo.data.sample import Sample, types_of
from dapo.data.taxonomy import Taxonomy, load_taxonomy

__all__ = [
    "DATASETS",
    "Dataset",
    "Sample",
    "Taxonomy",
    "load_taxonomy",
    "open_dataset",
    "read_folder",
    "types_of",
]
