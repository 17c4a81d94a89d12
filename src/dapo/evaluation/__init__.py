"""Evaluation: a dataset through an inspector, to figures that state their protocol."""

from __future__ import annotations

from dapo.evaluation.contrast import LocalContrast, best_of, local_contrast_baseline
from dapo.evaluation.run import Evaluation, evaluate

__all__ = ["Evaluation", "LocalContrast", "best_of", "evaluate", "local_contrast_baseline"]
