"""DAPO: find flaws in pictures of parts, and name them, from a list of words.

In: an image and defect types in the user's own words. Out: an ``Inspection`` with an image score, a verdict,
a score for each type, named regions and maps at the original size.

Public names load when first used (PEP 562): ``import dapo`` costs milliseconds and does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# public name -> (module that defines it, attribute there; None = the module itself)
_PUBLIC: dict[str, tuple[str, str | None]] = {
    "Calibration": ("dapo.calibration", "Calibration"),
    "Defect": ("dapo.vocabulary", "Defect"),
    "Failure": ("dapo.inspection", "Failure"),
    "Inspection": ("dapo.inspection", "Inspection"),
    "Inspector": ("dapo.inspector", "Inspector"),
    "Region": ("dapo.inspection", "Region"),
    "Vocabulary": ("dapo.vocabulary", "Vocabulary"),
    "calibrate": ("dapo.goodparts", "calibrate"),
    "errors": ("dapo.errors", None),
    "evaluate": ("dapo.evaluation", "evaluate"),
    "metrics": ("dapo.metrics", None),
    "train": ("dapo.learning", "train"),
}

__all__ = [
    "Calibration",
    "Defect",
    "Failure",
    "Inspection",
    "Inspector",
    "Region",
    "Vocabulary",
    "__version__",
    "calibrate",
    "errors",
    "evaluate",
    "metrics",
    "train",
]

if TYPE_CHECKING:
    from dapo import errors, metrics
    from dapo.calibration import Calibration
    from dapo.evaluation import evaluate
    from dapo.goodparts import calibrate
    from dapo.inspection import Failure, Inspection, Region
    from dapo.inspector import Inspector
    from dapo.learning import train
    from dapo.vocabulary import Defect, Vocabulary


def __getattr__(name: str) -> Any:
    """Import a public name on first use and keep it."""
    if name not in _PUBLIC:
        raise AttributeError(f"dapo has no {name!r}; public names: {', '.join(sorted(_PUBLIC))}")
    module, attribute = _PUBLIC[name]
    loaded = import_module(module)
    value = loaded if attribute is None else getattr(loaded, attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
