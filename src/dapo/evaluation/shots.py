"""Few-shot: the same test set with k good parts of each product as references, over draws of these parts.

In: an inspector, samples, pictures of good parts; out: a `Shots`, an evaluation for each k. Zero-shot is
k = 0. The field's protocol (WinCLIP, APRIL-GAN): the good parts come from the train split, and mean and
spread are over several draws of them. Pictures of one physical part count as one, and a part that is tested
is no reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from dapo.data import Sample
from dapo.errors import DataError, InputError
from dapo.evaluation.experiment import SHOT_DRAWS
from dapo.evaluation.fingerprint import data_facts, short_hash
from dapo.evaluation.run import Evaluation, evaluate
from dapo.evaluation.seeds import over_seeds
from dapo.inspection import Failure
from dapo.inspector import Inspector
from dapo.model.memory import Memory, remember

Parts = dict[str, list[Sample]]


@dataclass(frozen=True)
class Shots:
    """evaluations: {k: mean and spread over the draws}. note: for the table."""

    evaluations: dict[int, Evaluation]
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """{"k": {"0": the evaluation's record, ...}}; NaN becomes null."""
        return {"k": {str(k): evaluation.to_dict() for k, evaluation in self.evaluations.items()}}


def evaluate_shots(
    inspector: Inspector,
    samples: Sequence[Sample],
    good: Sequence[Sample],
    *,
    shots: Sequence[int],
    shot_draws: int = SHOT_DRAWS,
    seed: int = 0,
    clean: Evaluation | None = None,
    through: Callable[[str, Callable[[], Evaluation]], Evaluation] = lambda name, make: make(),
    **options: Any,
) -> Shots:
    """Evaluate the samples with k references, for each k of `shots` and each of `shot_draws` draws.

    good: samples to draw from. clean: the evaluation without references, if that was done. through: as for
    `evaluate_shift`. options: as for `evaluate`; with references, intervals only where `draws` asks.
    Raises DataError, before anything is computed, where a product has fewer good parts than k.
    """
    parts = parts_of(good, samples)
    check_parts(parts, max(shots))
    found: dict[int, Evaluation] = {}
    for k in shots:
        if k == 0:
            if clean is None:
                clean = evaluate(inspector.changed(), samples, seed=seed, **options)
            found[k] = clean
            continue
        runs = []
        for draw in range(shot_draws):
            shown = Referred(inspector, samples, parts, k, seed + draw)
            make = partial(shown.evaluate, samples, seed=seed, **{"draws": 0, **options})
            runs.append(through(f"{k}-shot draw {draw + 1}", make))
        found[k] = over_seeds(runs, "reference_seed")
    return Shots(found)


def parts_of(good: Iterable[Sample], samples: Sequence[Sample]) -> Parts:
    """{product of the samples: one picture of each good part that is not among them}."""
    tested = set(map(part_of, samples))
    found: dict[str, dict[Any, Sample]] = {sample.product: {} for sample in samples}
    for sample in good:
        if sample.product in found and not sample.defective and part_of(sample) not in tested:
            found[sample.product].setdefault(part_of(sample), sample)
    return {product: list(parts.values()) for product, parts in found.items()}


def part_of(sample: Sample) -> tuple[str, str]:
    """(product, what tells the physical part): its group, or the picture alone."""
    return sample.product, sample.group or str(sample.image)


def check_parts(parts: Parts, k: int, where: str = "the dataset") -> None:
    """Raises DataError where a product has fewer than k good parts."""
    for product, own in parts.items():
        if k and not own:
            raise DataError(
                f"{where}: expected good parts of {product} in the train split, as references; found none "
                "that is not tested. Add some (PRODUCT/train/good in a folder by type), or leave shots out."
            )
        if len(own) < k:
            raise DataError(
                f"{where}: expected {k} good parts of {product} in the train split, for {k} shots; there are "
                f"{len(own)}. Ask for fewer shots, or add good parts."
            )


def drawn(parts: Sequence[Sample], k: int, seed: int) -> list[Sample]:
    """All of the parts in the order of this draw: the first k are the references, the others stand in."""
    return [parts[i] for i in np.random.default_rng([seed, k]).permutation(len(parts))]


class Referred:
    """An inspector that compares the pictures of each product with k good parts of it."""

    def __init__(
        self, inspector: Inspector, samples: Sequence[Sample], parts: Parts, k: int, seed: int
    ) -> None:
        self.inspector, self.k = inspector.changed(), k
        self.products = {sample.image: sample.product for sample in samples}
        self.drawn = {product: drawn(own, k, seed) for product, own in parts.items()}
        self.failures: list[Failure] = []
        self.info = inspector.info
        chosen = [sample for own in self.drawn.values() for sample in own[:k]]
        self.told = {"shots": k, "reference_seed": seed, "references": short_hash(data_facts(chosen))}

    def evaluate(self, samples: Sequence[Sample], **options: Any) -> Evaluation:
        """The samples, beside the references; options as for `evaluate`. A good part that cannot be read is
        among the failures.
        """
        found = evaluate(self, samples, **options)
        return replace(found, failures=(*found.failures, *self.failures))

    def stream(self, paths: Iterable[Any], defects: Any = None, batch_size: int = 8) -> Iterator[Any]:
        """As the inspector's, of pictures of one product."""
        pictures = list(paths)
        memory = self.memory(self.products[pictures[0]])
        return self.inspector.changed(memory=memory).stream(pictures, defects, batch_size)

    def memory(self, product: str) -> Memory:
        """What the references look like; the next part takes the place of one that cannot be read."""

        def prepared() -> Iterator[list[torch.Tensor]]:
            missing = self.k
            for sample in self.drawn[product]:
                if not missing:
                    return
                try:
                    views = self.inspector.views(sample.image)
                except InputError as error:
                    said = f"{error} It is left out of the good parts."
                    self.failures.append(Failure(str(sample.image), error.kind, said))
                    continue
                missing -= 1
                yield [torch.from_numpy(view) for view in views]
            if missing:
                raise DataError(
                    f"expected {self.k} good parts of {product} that can be read; there are "
                    f"{self.k - missing}. dapo data check names the others."
                )

        return remember(self.inspector.detector, prepared())
