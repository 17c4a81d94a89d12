"""LocalContrast, the floor any detector must beat: three classic filters at full size, no learning, no words.

It answers like an Inspector (`stream`), so the evaluator treats both alike. The grey image is first brought
to mean 0 and standard deviation 1, so that light does not rank images. The image score is the peak of the map
over its mean: of the usual choices (peak, top percent, mean, peak over mean) the strongest on the magnetic
tiles.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from dapo.data import Sample
from dapo.errors import ConfigError, InputError
from dapo.evaluation.run import Evaluation, evaluate
from dapo.images import load_image
from dapo.inspection import Failure

Map = NDArray[np.float32]

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601
EDGE = 2.0  # px, sigma of the gradient
WINDOW = 15  # px, side of the window of the standard deviation
FINE, COARSE = 2.0, 8.0  # px, sigmas of the difference of Gaussians


@dataclass(frozen=True)
class Contrast:
    """What LocalContrast says of one image: the fields of an Inspection that an evaluator reads."""

    image: str
    raw_score: float
    anomaly_map: Map  # (h, w), any scale: only its order means something
    types: dict[str, float] = field(default_factory=dict)
    type_maps: dict[str, Map] = field(default_factory=dict)


def gradient(grey: Map) -> Map:
    """Gradient magnitude of (h, w)."""
    return np.asarray(ndimage.gaussian_gradient_magnitude(grey, EDGE), dtype=np.float32)


def deviation(grey: Map) -> Map:
    """Standard deviation within a square window, (h, w)."""
    mean = ndimage.uniform_filter(grey, WINDOW)
    return np.asarray(
        np.sqrt(np.maximum(ndimage.uniform_filter(grey * grey, WINDOW) - mean * mean, 0)), dtype=np.float32
    )


def difference(grey: Map) -> Map:
    """Absolute difference of two Gaussians, (h, w)."""
    return np.asarray(
        np.abs(ndimage.gaussian_filter(grey, FINE) - ndimage.gaussian_filter(grey, COARSE)), dtype=np.float32
    )


FILTERS: dict[str, Callable[[Map], Map]] = {
    "gradient magnitude": gradient,
    "local standard deviation": deviation,
    "difference of Gaussians": difference,
}


class LocalContrast:
    """One of FILTERS as an inspector that names nothing. Raises ConfigError for another filter."""

    def __init__(self, name: str) -> None:
        if name not in FILTERS:
            raise ConfigError(f"expected a filter among {', '.join(FILTERS)}; got {name!r}.")
        self.name = name

    def inspect(self, path: str | Path) -> Contrast:
        """Map and score of one image; raises InputError as `load_image`."""
        grey = load_image(path).astype(np.float32) @ LUMA
        found = FILTERS[self.name]((grey - grey.mean()) / max(float(grey.std()), 1e-3))
        return Contrast(str(path), float(found.max() / max(float(found.mean()), 1e-6)), found)

    def stream(
        self, paths: Iterable[str | Path], defects: object = None, batch_size: int = 8
    ) -> Iterator[Contrast | Failure]:
        """In order, one at a time; an image that cannot be read gives a Failure. `defects` and `batch_size`
        change nothing.
        """
        for path in paths:
            try:
                yield self.inspect(path)
            except InputError as error:
                yield Failure(image=str(path), kind=error.kind, message=str(error))


def local_contrast_baseline(samples: Sequence[Sample], **options: Any) -> dict[str, Evaluation]:
    """{filter: Evaluation} of the three local-contrast filters; options as for `evaluate`. See `best_of`."""
    return {name: evaluate(LocalContrast(name), samples, **options) for name in FILTERS}


def best_of(evaluations: Mapping[str, Evaluation]) -> dict[str, dict[str, float]]:
    """{"image", "pixel"}: figure by figure the best mean of all: generous, since it knows the truth."""
    return best_rows([evaluation.mean for evaluation in evaluations.values()])


def best_rows(rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """{"image", "pixel"}: figure by figure the best of rows of one product, or of means."""
    return {
        part: {name: max((row[part][name] for row in rows), key=rank_key) for name in rows[0][part]}
        for part in ("image", "pixel")
    }


def best_filter(samples: Sequence[Sample], facts: Mapping[str, Any], **options: Any) -> Evaluation:
    """The best of the filters, figure by figure, as one evaluation; nothing is named. options: of
    `evaluate`. The mean is the best of the filters' means, not the mean of the products' best.
    """
    found = list(local_contrast_baseline(samples, draws=0, facts=facts, **options).values())
    products = {
        product: {
            **best_rows([evaluation.products[product] for evaluation in found]),
            "types": row["types"],
            "per_type": {},
            "confusion": None,
            "counts": row["counts"],
        }
        for product, row in found[0].products.items()
    }
    return Evaluation(
        protocol=found[0].protocol | {"note": "figure by figure the best of three filters"},
        mean=best_rows([evaluation.mean for evaluation in found]),
        products=products,
        failures=found[0].failures,
    )


def rank_key(value: float) -> float:
    """NaN ranks below every figure."""
    return -math.inf if math.isnan(value) else value
