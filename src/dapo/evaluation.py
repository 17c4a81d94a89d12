"""Evaluation: a dataset through an inspector, to figures that state their protocol.

Per product, each with its own list of types; then the unweighted mean over the products that have the figure.

- image: AUROC, AP, F1max of the raw image scores.
- pixel: AUROC, AP, F1max, AUPRO of the anomaly maps; images whose masks nobody knows are left out and
  counted. Streaming: memory does not grow with the dataset, and certain bounds of each figure stand beside it
  (`pixel_bounds`).
- types: top-1 over the defective images (the best of the product's types; right when the image has it),
  balanced accuracy (mean recall of the types), macro F1, and the mean over the types of the pixel figures of
  each type's own map, one-vs-rest.
- per_type: recall, F1, image AUROC of its images against the good ones, AUROC of the anomaly map within its
  images (localisation), and the pixel figures of its own map over all images.
- intervals: 95 % bootstrap by physical group where the dataset tells groups, by image otherwise.

A figure that does not exist (no good image, no mask) is NaN here, null in JSON and a dash in the table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dapo.contrast import FILTERS, LocalContrast
from dapo.data import Sample, types_of
from dapo.errors import DataError
from dapo.inspection import Failure
from dapo.metrics.overlap import MAX_FPR
from dapo.metrics.types import mean_of
from dapo.tally import Draws, Figures, ProductTally, intervals_of
from dapo.vocabulary import Defect, Vocabulary

DRAWS = 1000
AVERAGED = ("image", "pixel", "types")


class Streams(Protocol):
    """An Inspector, or anything that answers like one: one result or Failure for each path, in order."""

    def stream(
        self, paths: Iterable[str | Path], defects: Any = None, batch_size: int = 8
    ) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Evaluation:
    """The figures of one run.

    products: {product: {"image", "pixel", "pixel_bounds", "types", "per_type", "confusion", "counts",
    "intervals"}}. mean: {"image", "pixel", "types", "intervals"}. failures: the images that could not be
    inspected, left out.
    """

    protocol: Figures
    mean: Figures
    products: dict[str, Figures]
    failures: tuple[Failure, ...] = ()

    def to_dict(self) -> Figures:
        """Plain JSON types; NaN becomes null."""
        failed = [failure.to_dict() for failure in self.failures]
        found = {"protocol": self.protocol, "mean": self.mean, "products": self.products, "failures": failed}
        return {name: without_nan(value) for name, value in found.items()}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """A table of the products and the mean, and one of the types of each product."""
        return "\n".join([*product_table(self), "", *type_table(self)]) + "\n"


def evaluate(
    inspector: Streams,
    samples: Sequence[Sample],
    *,
    phrases: Mapping[str, Sequence[str]] | None = None,
    batch_size: int = 8,
    max_fpr: float = MAX_FPR,
    draws: int = DRAWS,
    seed: int = 0,
    on_image: Callable[[Sample], None] | None = None,
) -> Evaluation:
    """Inspect the samples and measure.

    phrases: the user's words for a type of the dataset; a type that is not in it goes by its name. draws:
    bootstrap resamples, 0 for no intervals. on_image is called after each image (progress).
    Raises DataError for no samples, a phrase for an unknown type, or a map of another size than its mask. An
    image that fails is listed in `failures`, not measured.
    """
    phrases = phrases or {}
    check(samples, phrases)
    products: dict[str, Figures] = {}
    resampled: list[Draws] = []
    failures: list[Failure] = []
    for product in dict.fromkeys(sample.product for sample in samples):
        own = [sample for sample in samples if sample.product == product]
        tally = ProductTally(types_of(own), max_fpr)
        results = inspector.stream(
            [sample.image for sample in own], vocabulary_of(tally.types, phrases), batch_size
        )
        for sample, result in zip(own, results, strict=True):
            if isinstance(result, Failure):
                failures.append(result)
            else:
                tally.add(sample, result)
            if on_image is not None:
                on_image(sample)
        products[product] = tally.figures()
        products[product]["counts"]["failed"] = len(own) - products[product]["counts"]["images"]
        if draws:
            resampled.append(tally.draws(draws, seed + len(resampled)))
            products[product]["intervals"] = intervals_of(resampled[-1])
    mean = mean_figures(list(products.values()))
    if draws:
        mean["intervals"] = intervals_of(mean_draws(resampled))
    return Evaluation(protocol_of(samples, phrases, max_fpr, draws, seed), mean, products, tuple(failures))


def local_contrast_baseline(samples: Sequence[Sample], **options: Any) -> dict[str, Evaluation]:
    """{filter: Evaluation} of the three local-contrast filters; options as for `evaluate`. See `best_of`."""
    return {name: evaluate(LocalContrast(name), samples, **options) for name in FILTERS}


def best_of(evaluations: Mapping[str, Evaluation]) -> dict[str, dict[str, float]]:
    """{"image", "pixel"}: figure by figure the best mean of all: generous, since it knows the truth."""
    means = [evaluation.mean for evaluation in evaluations.values()]
    return {
        part: {name: max((mean[part][name] for mean in means), key=rank_key) for name in means[0][part]}
        for part in ("image", "pixel")
    }


def check(samples: Sequence[Sample], phrases: Mapping[str, Sequence[str]]) -> None:
    """Raises DataError for no samples, or for phrases of types the samples do not have."""
    if not samples:
        raise DataError(
            "evaluate expected at least one sample; got none. Check the dataset's folder and splits."
        )
    types = types_of(samples)
    if unknown := sorted(set(phrases) - set(types)):
        raise DataError(
            f"phrases expected types of the dataset ({', '.join(types)}); got {', '.join(unknown)}. "
            "Correct these names."
        )


def vocabulary_of(types: Sequence[str], phrases: Mapping[str, Sequence[str]]) -> Vocabulary | None:
    """The product's types in the user's words; None, the inspector's own, when no image is defective."""
    if not types:
        return None
    return Vocabulary(tuple(Defect(name=name, phrases=tuple(phrases.get(name, (name,)))) for name in types))


def protocol_of(
    samples: Sequence[Sample], phrases: Mapping[str, Sequence[str]], max_fpr: float, draws: int, seed: int
) -> Figures:
    """What a reader must know to compare the figures."""
    unit = "physical group" if any(sample.group is not None for sample in samples) else "image"
    return {
        "images": len(samples),
        "splits": sorted({sample.split for sample in samples}),
        "masks": "binarised above 127",
        "max_fpr": max_fpr,
        "phrases": {name: list(phrases.get(name, (name,))) for name in types_of(samples)},
        "intervals": f"95 % bootstrap, {draws} draws by {unit}" if draws else None,
        "seed": seed,
    }


def mean_figures(products: Sequence[Figures]) -> Figures:
    """{"image", "pixel", "types"}: each figure's unweighted mean over the products that have it."""
    return {
        part: {name: mean_of(row[part][name] for row in products) for name in products[0][part]}
        for part in AVERAGED
    }


def mean_draws(resampled: Sequence[Draws]) -> Draws:
    """The mean over the products, resample by resample; a product without the figure is left out."""
    found: Draws = {}
    for name in resampled[0]:
        rows = [draws[name] for draws in resampled if np.isfinite(draws[name]).any()]
        found[name] = np.mean(rows, axis=0) if rows else np.full(1, math.nan)
    return found


def rank_key(value: float) -> float:
    """NaN ranks below every figure."""
    return -math.inf if math.isnan(value) else value


def without_nan(value: Any) -> Any:
    """The same nested lists and dicts with NaN replaced by None."""
    if isinstance(value, dict):
        return {name: without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def shown(value: float) -> str:
    """Three decimals; a dash for a figure that does not exist."""
    return "-" if math.isnan(value) else f"{value:.3f}"


def product_table(evaluation: Evaluation) -> list[str]:
    """Markdown lines: a row a product, then the mean."""
    head = [f"{part} {name}" for part in AVERAGED for name in evaluation.mean[part]]
    lines = [f"| product | {' | '.join(head)} |", "|---" * (len(head) + 1) + "|"]
    for product, row in [*evaluation.products.items(), ("mean", evaluation.mean)]:
        lines.append(
            f"| {product} | " + " | ".join(shown(v) for part in AVERAGED for v in row[part].values()) + " |"
        )
    return lines


def type_table(evaluation: Evaluation) -> list[str]:
    """Markdown lines: a row for each type of each product."""
    lines = [
        "| product | type | images | recall | F1 | image AUROC | localisation AUROC | own map AUROC |",
        "|---" * 8 + "|",
    ]
    for product, figures in evaluation.products.items():
        for name, row in figures["per_type"].items():
            numbers = [row[key] for key in ("recall", "f1", "image_auroc", "localisation_auroc")]
            cells = [product, name, str(row["images"]), *map(shown, [*numbers, row["pixel"]["auroc"]])]
            lines.append(f"| {' | '.join(cells)} |")
    return lines
