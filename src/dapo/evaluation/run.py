"""Evaluation: a dataset through an inspector, to figures that state their protocol.

Per product, each with its own list of types; then the unweighted mean over the products that have the figure.

- image: AUROC, AP, F1max of the raw image scores.
- pixel: AUROC, AP, F1max, AUPRO of the anomaly maps; images whose masks nobody knows are left out and
  counted. Streaming: memory does not grow with the dataset, and certain bounds of each figure stand beside it
  (`pixel_bounds`).
- types, of the images: top-1 over the defective images (the best of the product's types; right when the image
  has it), balanced accuracy (mean recall of the types), macro F1; of the pixels (the multi-type protocol,
  section 7 of the method): one-vs-rest AUROC and AP and F1 of the argmax, macro over the product's classes,
  normal included. A class without a pixel in the truth has no figure and is not averaged.
- per_type, of each product: recall, F1, image AUROC of its images against the good ones, AUROC of the anomaly
  map within its images (localisation), and the pixel figures of its own map over all images. `types` of the
  evaluation: the mean of these over the products that have the type.
- novel: with `known`, the mean over types that training had and over those it never had.
- intervals: 95 % bootstrap by physical group where the dataset tells groups, by image otherwise.

A figure that does not exist (no good image, no mask) is NaN here, null in JSON and a dash in the table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from dapo import __version__
from dapo.data import Sample, types_of
from dapo.data.taxonomy import plain
from dapo.errors import DataError
from dapo.evaluation.fingerprint import data_facts, short_hash
from dapo.evaluation.tally import Draws, Figures, ImageRow, ProductTally, intervals_of
from dapo.inspection import Failure
from dapo.metrics.overlap import MAX_FPR
from dapo.metrics.types import mean_of
from dapo.vocabulary import Defect, Vocabulary

DRAWS = 1000
AVERAGED = ("image", "pixel", "types")
Names = Literal["product", "dataset"]
Curves = dict[str, dict[str, NDArray[np.float64]]]


class Streams(Protocol):
    """An Inspector, or anything that answers like one: one result or Failure for each path, in order."""

    def stream(self, paths: Iterable[Any], defects: Any = None, batch_size: int = 8) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Evaluation:
    """The figures of one run.

    products: {product: {"image", "pixel", "pixel_bounds", "types", "per_type", "normal", "confusion",
    "counts", "intervals"}}. mean: {"image", "pixel", "types", "intervals"}. types: {type: its figures}.
    novel: {"known", "novel"} or None. failures: the images that could not be inspected, left out.
    images: what was said of each image. curves: {product: {"image", "pixel"}}, to draw. spread: standard
    deviation of the mean over seeds, see `dapo.evaluation.seeds`.
    """

    protocol: Figures
    mean: Figures
    products: dict[str, Figures]
    types: dict[str, Figures] = field(default_factory=dict)
    novel: dict[str, Figures] | None = None
    failures: tuple[Failure, ...] = ()
    images: tuple[ImageRow, ...] = field(default=(), repr=False)
    curves: dict[str, Curves] = field(default_factory=dict, repr=False)
    spread: Figures | None = None

    def to_dict(self) -> Figures:
        """Plain JSON types; NaN becomes null. Without `images` and `curves`."""
        found: Figures = {"protocol": self.protocol, "mean": self.mean, "products": self.products}
        found["types"] = self.types
        if self.novel is not None:
            found["novel"] = self.novel
        if self.spread is not None:
            found["spread"] = self.spread
        found["failures"] = [failure.to_dict() for failure in self.failures]
        return {name: without_nan(value) for name, value in found.items()}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Evaluation:
        """The evaluation of a `to_dict` record; null becomes NaN in figures. Raises DataError."""
        try:
            failures = [(row["image"], row["error"]) for row in record["failures"]]
            return cls(
                protocol=dict(record["protocol"]),
                mean=with_nan(record["mean"]),
                products=with_nan(record["products"]),
                types=with_nan(record["types"]),
                novel=with_nan(record["novel"]) if "novel" in record else None,
                spread=with_nan(record["spread"]) if "spread" in record else None,
                failures=tuple(Failure(image, error["kind"], error["message"]) for image, error in failures),
            )
        except (KeyError, TypeError) as error:
            raise DataError(
                f"expected the record of an evaluation; {error} is not in it. Run the evaluation again."
            ) from error

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"

    def to_markdown(self) -> str:
        """The protocol, a table of the products and the mean, one of the types, one of novel types."""
        from dapo.evaluation.tables import to_markdown

        return to_markdown(self)


def evaluate(
    inspector: Streams,
    samples: Sequence[Sample],
    *,
    phrases: Mapping[str, Sequence[str]] | None = None,
    names: Names = "product",
    known: Iterable[str] | None = None,
    facts: Mapping[str, Any] | None = None,
    batch_size: int = 8,
    max_fpr: float = MAX_FPR,
    draws: int = DRAWS,
    seed: int = 0,
    on_image: Callable[[Sample], None] | None = None,
) -> Evaluation:
    """Inspect the samples and measure.

    phrases: the user's words for a type of the dataset; a type that is not in it goes by its name. names: ask
    each product for its own types, or for those of the whole "dataset". known: types that training had; the
    others are novel. facts: what else the protocol should state (dataset, licence, method). draws: bootstrap
    resamples, 0 for no intervals. on_image is called after each image (progress).
    Raises DataError for no samples, or a phrase for an unknown type. An image that fails, or whose mask
    cannot be read or has another size, is listed in `failures`, not measured.
    """
    phrases = phrases or {}
    check(samples, phrases)
    everything = types_of(samples)
    products: dict[str, Figures] = {}
    resampled: list[Draws] = []
    failures: list[Failure] = []
    rows: list[ImageRow] = []
    curves: dict[str, Curves] = {}
    for product in dict.fromkeys(sample.product for sample in samples):
        own = [sample for sample in samples if sample.product == product]
        tally = ProductTally(types_of(own), max_fpr)
        words = vocabulary_of(tally.types if names == "product" else everything, phrases)
        results = inspector.stream([sample.image for sample in own], words, batch_size)
        for sample, result in zip(own, results, strict=True):
            failure = result if isinstance(result, Failure) else added(tally, sample, result)
            if failure is not None:
                failures.append(failure)
            if on_image is not None:
                on_image(sample)
        products[product] = tally.figures()
        products[product]["counts"]["failed"] = len(own) - products[product]["counts"]["images"]
        rows += tally.rows
        curves[product] = tally.curves()
        if draws:
            resampled.append(tally.draws(draws, seed + len(resampled)))
            products[product]["intervals"] = intervals_of(resampled[-1])
    mean = mean_figures(list(products.values()))
    if draws:
        mean["intervals"] = intervals_of(mean_draws(resampled))
    by_type = type_figures(list(products.values()))
    protocol = protocol_of(inspector, samples, phrases, names, max_fpr, draws, seed)
    return Evaluation(
        protocol={"images": len(rows), "failed": len(failures)} | protocol | dict(facts or {}),
        mean=mean,
        products=products,
        types=by_type,
        novel=None if known is None else novel_figures(by_type, set(known)),
        failures=tuple(failures),
        images=tuple(rows),
        curves=curves,
    )


def added(tally: ProductTally, sample: Sample, result: Any) -> Failure | None:
    """Count the image; the failure when its mask is at fault."""
    try:
        tally.add(sample, result)
    except DataError as error:
        hint = "dapo data check names all such masks."
        return Failure(str(sample.image), error.kind, f"{sample.image} is left out: {error} {hint}")
    return None


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
    """The types in the user's words; None, the inspector's own, when no image is defective."""
    if not types:
        return None
    return Vocabulary(tuple(Defect(name=name, phrases=tuple(phrases.get(name, (name,)))) for name in types))


def protocol_of(
    inspector: Streams,
    samples: Sequence[Sample],
    phrases: Mapping[str, Sequence[str]],
    names: Names,
    max_fpr: float,
    draws: int,
    seed: int,
) -> Figures:
    """What a reader must know to compare the figures; `config_hash` is equal where all of it and the content
    of the data are, wherever the data lie.
    """
    unit = "physical group" if any(sample.group is not None for sample in samples) else "image"
    info = getattr(inspector, "info", None)
    found: Figures = {
        "splits": sorted({sample.split for sample in samples}),
        "model": None if info is None else model_facts(info),
        "names": f"the types of the {names}",
        "phrases": {name: list(phrases.get(name, (name,))) for name in types_of(samples)},
        "masks": "binarised above 127",
        "max_fpr": max_fpr,
        "intervals": f"95 % bootstrap, {draws} draws by {unit}" if draws else None,
        "seed": seed,
        "version": __version__,
    }
    told = getattr(inspector, "told", {})  # what it does to the pictures
    return found | told | {"config_hash": short_hash([found, told, data_facts(samples)])}


def model_facts(info: Any) -> Figures:
    """Name, version and checksum of the model, and what its card says it was trained on."""
    data = getattr(getattr(info, "config", None), "training_data", ())
    return {**info.to_dict(), "training_data": [entry.name for entry in data]}


def mean_figures(products: Sequence[Figures]) -> Figures:
    """{"image", "pixel", "types"}: each figure's unweighted mean over the products that have it."""
    return {
        part: {name: mean_of(row[part][name] for row in products) for name in products[0][part]}
        for part in AVERAGED
    }


def type_figures(products: Sequence[Figures]) -> dict[str, Figures]:
    """{type: {"products", "images", "recall", ..., "pixel"}}: means over the products that have the type."""
    found: dict[str, Figures] = {}
    for name in sorted({name for product in products for name in product["per_type"]}):
        rows = [product["per_type"][name] for product in products if name in product["per_type"]]
        found[name] = {"products": len(rows), "images": sum(row["images"] for row in rows)} | mean_rows(rows)
    return found


def mean_rows(rows: Sequence[Figures]) -> Figures:
    """The mean of each figure of rows as in `per_type`; counts are left out."""
    found: Figures = {
        name: mean_of(row[name] for row in rows)
        for name, value in rows[0].items()
        if isinstance(value, float)
    }
    return found | {"pixel": {key: mean_of(row["pixel"][key] for row in rows) for key in rows[0]["pixel"]}}


def novel_figures(by_type: Mapping[str, Figures], known: set[str]) -> dict[str, Figures]:
    """{"known", "novel"}: the means over the types that training had, and over those it never had.

    Names are the same whatever their case and underscores: "pin hole" is pin_hole, missing is Missing.
    """
    keys = set(map(plain, known))
    found: dict[str, Figures] = {}
    for part, chosen in (
        ("known", [name for name in by_type if plain(name) in keys]),
        ("novel", [name for name in by_type if plain(name) not in keys]),
    ):
        found[part] = {"types": chosen}
        if chosen:
            found[part] |= mean_rows([by_type[name] for name in chosen])
    return found


def mean_draws(resampled: Sequence[Draws]) -> Draws:
    """The mean over the products, resample by resample; a product without the figure is left out."""
    found: Draws = {}
    for name in resampled[0]:
        rows = [draws[name] for draws in resampled if np.isfinite(draws[name]).any()]
        found[name] = np.mean(rows, axis=0) if rows else np.full(1, math.nan)
    return found


def without_nan(value: Any) -> Any:
    """The same nested lists and dicts with NaN replaced by None."""
    if isinstance(value, dict):
        return {name: without_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def with_nan(value: Any) -> Any:
    """The same nested lists and dicts with None replaced by NaN, except where a whole part is missing."""
    if isinstance(value, dict):
        return {name: inner if name == "confusion" else with_nan(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [with_nan(inner) for inner in value]
    return math.nan if value is None else value
