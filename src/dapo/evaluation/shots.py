"""k-shot evaluation: the same test set with k good parts as references, over several draws of them.

In: an inspector, samples, pictures of good parts; out: an `Evaluation` over the draws for each k. Zero-shot
is k = 0. The field's protocol (WinCLIP, APRIL-GAN): the k good images are drawn from the training split.
Pictures of one physical part are drawn together as one, since they are no independent references.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dapo.data import Sample
from dapo.errors import DataError
from dapo.evaluation.run import Evaluation, evaluate
from dapo.evaluation.seeds import over_seeds
from dapo.inspector import Inspector
from dapo.model.memory import remember

SHOTS = (0, 1, 4, 20)
DRAWN = 3  # draws of references for each k


def evaluate_shots(
    inspector: Inspector,
    samples: Sequence[Sample],
    good: Sequence[Sample],
    *,
    shots: Sequence[int] = SHOTS,
    drawn: int = DRAWN,
    seed: int = 0,
    on_run: Callable[[str], None] = lambda _: None,
    **options: Any,
) -> dict[int, Evaluation]:
    """{k: the evaluation, mean and spread over `drawn` draws}; options as for `evaluate`.

    Each product has its own references. Raises DataError where a product has fewer than k good parts.
    """
    found: dict[int, Evaluation] = {}
    facts = dict(options.pop("facts", {}))
    for k in shots:
        runs = []
        for draw in range(drawn if k else 1):
            on_run(f"{k} shots, draw {draw + 1}")
            stated = facts | {"shots": k, "training_seed": draw if k else None}
            chosen = with_references(inspector, samples, good, k, seed + draw)
            runs.append(evaluate(chosen, samples, facts=stated, seed=seed, **options))
        found[k] = over_seeds(runs)
    return found


def with_references(
    inspector: Inspector, samples: Sequence[Sample], good: Sequence[Sample], k: int, seed: int
) -> Any:
    """The inspector, shown k good parts of each product of the samples."""
    plain = inspector.changed()
    if not k:
        return plain
    judges: dict[str, Inspector] = {}
    for product in dict.fromkeys(sample.product for sample in samples):
        own = [sample for sample in good if sample.product == product]
        if not own:
            raise DataError(f"expected good parts of {product} as references; there is none in training.")
        views = ([torch.from_numpy(view) for view in plain.views(s.image)] for s in draw_parts(own, k, seed))
        memory = remember(plain.detector, views)
        judges[product] = plain.changed(memory=memory)
    return Referred(judges, {sample.image: sample.product for sample in samples}, plain.info)


def draw_parts(samples: Sequence[Sample], k: int, seed: int) -> list[Sample]:
    """k pictures, no two of one physical part. Raises DataError when there are fewer parts."""
    parts: dict[str, Sample] = {}
    for sample in samples:
        parts.setdefault(sample.group or str(sample.image), sample)
    if len(parts) < k:
        raise DataError(
            f"expected {k} good parts of {samples[0].product} as references; there are {len(parts)}. "
            "Ask for fewer shots."
        )
    order = np.random.default_rng([seed, k]).permutation(len(parts))
    everything = list(parts.values())
    return [everything[i] for i in order[:k]]


@dataclass(frozen=True)
class Referred:
    """An inspector with references for each product; a stream is of one product, as `evaluate` asks."""

    judges: Mapping[str, Inspector]
    products: Mapping[Path, str]  # of each picture
    info: Any

    def stream(self, paths: Iterable[Any], defects: Any = None, batch_size: int = 8) -> Iterator[Any]:
        pictures = list(paths)
        return self.judges[self.products[pictures[0]]].stream(pictures, defects, batch_size)
