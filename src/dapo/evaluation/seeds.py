"""Over seeds: the evaluations of runs that differ in one seed alone, as one with mean and spread."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dapo.errors import DataError
from dapo.evaluation.run import AVERAGED, Evaluation
from dapo.evaluation.tally import Figures
from dapo.metrics.types import mean_of

Fold = Callable[[Sequence[float]], float]

VARIED = {"training_seed": "seeds", "reference_seed": "draws of the good parts"}  # of the protocol: in words


def over_seeds(evaluations: Sequence[Evaluation], varied: str = "training_seed") -> Evaluation:
    """Each figure's mean over the runs; confusions and counts are added up.

    varied: the seed of the protocol in which the runs differ, of VARIED. `spread` holds the sample standard
    deviation of the mean's figures; one run alone comes back as it is. Intervals, which speak of one run, are
    left out. The protocol holds what the runs share, "models" (each once), "seeds" (the values of `varied`)
    and "spread_over", these in words. `failures` are those of all runs. Raises DataError for no run, or runs
    of other data.
    """
    if not evaluations:
        raise DataError("expected at least one evaluation to take the mean of; got none. Run one first.")
    first = evaluations[0]
    if len(evaluations) == 1:
        return first
    if any(set(other.products) != set(first.products) for other in evaluations):
        raise DataError(
            "expected runs on the same products; got others: "
            + "; ".join(", ".join(other.products) for other in evaluations)
            + ". Evaluate each model on the same data."
        )
    means = [without(evaluation.mean, "intervals") for evaluation in evaluations]
    products = [
        {name: without(row, "intervals") for name, row in evaluation.products.items()}
        for evaluation in evaluations
    ]
    models = [evaluation.protocol.get("model") for evaluation in evaluations]
    novel = [evaluation.novel for evaluation in evaluations if evaluation.novel is not None]
    return Evaluation(
        protocol={k: v for k, v in first.protocol.items() if all(e.protocol.get(k) == v for e in evaluations)}
        | {
            "images": min(evaluation.protocol["images"] for evaluation in evaluations),
            "failed": max(evaluation.protocol["failed"] for evaluation in evaluations),
            "intervals": None,
            "models": [model for i, model in enumerate(models) if model not in models[:i]],
            "seeds": [evaluation.protocol.get(varied) for evaluation in evaluations],
            "spread_over": VARIED[varied],
            "config_hash": "+".join(
                dict.fromkeys(str(e.protocol.get("config_hash", "-")) for e in evaluations)
            ),
        },
        mean=folded(means, mean_of),
        products=folded(products, mean_of),
        types=folded([evaluation.types for evaluation in evaluations], mean_of),
        novel=folded(novel, mean_of) if novel else None,
        failures=tuple(dict.fromkeys(failure for e in evaluations for failure in e.failures)),
        spread=folded([{part: mean[part] for part in AVERAGED} for mean in means], deviation),
    )


def without(figures: Mapping[str, Any], key: str) -> Figures:
    return {name: value for name, value in figures.items() if name != key}


def deviation(values: Sequence[float]) -> float:
    """Sample standard deviation; NaN of fewer than two figures that exist."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.stdev(known) if len(known) > 1 else math.nan


def folded(trees: Sequence[Any], fold: Fold, *, add: bool = False) -> Any:
    """Nested figures of equal shape as one: floats by `fold`, "confusion" added up, the rest as the first."""
    first = trees[0]
    if isinstance(first, Mapping):
        return {
            name: folded([tree[name] for tree in trees], fold, add=add or name == "confusion")
            for name in first
        }
    if isinstance(first, list) and first and all(isinstance(value, float) for value in first):
        return [fold(values) for values in zip(*trees, strict=True)]
    if isinstance(first, float):
        return fold(trees)
    if add and isinstance(first, int):
        return sum(trees)
    return first
