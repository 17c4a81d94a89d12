"""Confidence intervals by resampling physical groups: pictures of one part are not independent, parts are.

Bootstrap with replacement over groups (Efron and Tibshirani 1993, percentile interval). Each draw gives every
group a weight, how often it was drawn; a figure is then computed from weighted counts, so no image is looked
at twice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from dapo.metrics.curves import Floats

LEVEL = 0.95
CHUNK = 64  # draws at a time
FOLD = 256  # images held apart before their counts are added


def group_weights(groups: int, draws: int, seed: int) -> Iterator[Floats]:
    """Weights (<= 64, groups) of `draws` resamples in chunks; each row sums to `groups`."""
    generator = np.random.default_rng(seed)
    share = np.full(groups, 1 / groups)
    for start in range(0, draws, CHUNK):
        yield generator.multinomial(groups, share, size=min(CHUNK, draws - start)).astype(np.float64)


def auroc_draws(positive: sparse.csr_array, negative: sparse.csr_array, draws: int, seed: int) -> Floats:
    """AUROC of each resample, (draws,), from counts (groups, bins), bins ascending in score.

    NaN where a draw lacks a class.
    """
    found = []
    for weights in group_weights(positive.shape[0], draws, seed):
        hit, miss = weights @ positive, weights @ negative
        beaten = np.cumsum(miss, axis=1) - miss / 2
        pairs = hit.sum(axis=1) * miss.sum(axis=1)
        with np.errstate(invalid="ignore"):
            found.append(np.einsum("ij,ij->i", hit, beaten) / pairs)
    return np.concatenate(found)


def recall_draws(hits: Floats, totals: Floats, draws: int, seed: int) -> Floats:
    """Mean over classes of hits / totals in each resample, (draws,), from counts (groups, classes).

    A class that a draw lacks is left out of its mean. One column gives the plain accuracy.
    """
    found = []
    for weights in group_weights(len(hits), draws, seed):
        size = weights @ totals
        recall = np.divide(weights @ hits, size, out=np.full(size.shape, np.nan), where=size > 0)
        known = np.isfinite(recall)
        count = known.sum(axis=1)
        total = np.where(known, recall, 0).sum(axis=1)
        found.append(np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0))
    return np.concatenate(found)


def percentile_interval(values: NDArray[np.float64], level: float = LEVEL) -> tuple[float, float]:
    """The middle `level` of the draws that exist; (NaN, NaN) when none does."""
    known = values[np.isfinite(values)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


class GroupHistogram:
    """Counts of coded scores per group in bounded memory: what `auroc_draws` needs for pixels.

    groups: how many there may be. bins: codes are in [0, bins). Occupied bins only are kept.
    """

    def __init__(self, groups: int, bins: int) -> None:
        self._shape = (groups, bins)
        self._counts = [sparse.csr_array(self._shape, dtype=np.int64) for _ in range(2)]
        self._new: list[list[tuple[int, NDArray[np.int64], NDArray[np.int64]]]] = [[], []]

    def add(self, group: int, code: NDArray[np.uint32], mask: NDArray[np.bool_]) -> None:
        """Count the codes (h, w) of one image of a group, apart for mask True and False."""
        for new, chosen in zip(self._new, (code[mask], code[~mask]), strict=True):
            bins, counts = np.unique(chosen, return_counts=True)
            new.append((group, bins.astype(np.int64), counts.astype(np.int64)))
        if len(self._new[0]) >= FOLD:
            self._fold()

    def counts(self) -> tuple[sparse.csr_array, sparse.csr_array]:
        """(positives, negatives), each (groups, occupied bins), bins ascending."""
        self._fold()
        used = np.unique(np.concatenate([part.indices for part in self._counts]))
        positive, negative = (part.tocsc()[:, used].tocsr() for part in self._counts)
        return positive, negative

    def _fold(self) -> None:
        """Move the new counts into the matrices."""
        for which, new in enumerate(self._new):
            if new:
                rows = np.repeat([group for group, _, _ in new], [len(bins) for _, bins, _ in new])
                columns = np.concatenate([bins for _, bins, _ in new])
                values = np.concatenate([counts for _, _, counts in new])
                self._counts[which] = self._counts[which] + sparse.csr_array(
                    (values, (rows, columns)), shape=self._shape
                )
            new.clear()
