"""StreamingPixelMetrics: the four pixel figures of any number of images in fixed memory, with certain bounds.

Scores are kept by their `bits` leading float32 bits in an order-preserving code: sign, 8 bits of exponent,
the rest of mantissa. With 20 bits (24 MiB) two scores share a bin only when they differ by less than one part
in 2048. The figures are exact for the scores rounded so. What rounding can have changed is known afterwards:
only the order inside a bin is lost, so best and worst order of every bin enclose the exact figure. `bounds()`
returns that enclosure; a wide one means scores crowd into few values (a saturated map), and says so instead
of hiding it.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from dapo.errors import DataError
from dapo.metrics.curves import Counts, Floats, Steps, auroc, average_precision, curve, f1_max
from dapo.metrics.overlap import (
    MAX_FPR,
    NAMES,
    Maps,
    aupro,
    check_max_fpr,
    paired,
    region_weights,
)

BITS = 20  # 2**20 bins x (8 + 8 + 8) bytes = 24 MiB
SIGN = np.uint32(0x8000_0000)
PENDING = 1 << 21  # pixels held before they are counted; one count costs a pass over all bins


def codes(scores: NDArray[np.generic], bits: int) -> NDArray[np.uint32]:
    """Order-preserving code in [0, 2**bits) of each score: a <= b implies code(a) <= code(b). No NaN."""
    with np.errstate(over="ignore"):  # a float64 beyond float32 is infinite here, still in order
        raw = (scores.astype(np.float32) + np.float32(0)).view(np.uint32)  # + 0: -0.0 and 0.0 are one score
    ordered = np.where(raw & SIGN, ~raw, raw | SIGN)
    return np.asarray(ordered >> np.uint32(32 - bits), dtype=np.uint32)


class StreamingPixelMetrics:
    """Feed images with `update`, join shards with `merge`, read `compute` and `bounds` at any time.

    max_fpr in (0, 1] bounds AUPRO. bits in 10..26: memory is 24 bytes x 2**bits, resolution 1 part in
    2**(bits - 9). Degenerate input as in `pixel_metrics`: NaN where the figure does not exist, all NaN after
    a NaN score.
    """

    def __init__(self, max_fpr: float = MAX_FPR, bits: int = BITS) -> None:
        check_max_fpr(max_fpr)
        if not 10 <= bits <= 26:
            raise DataError(f"bits expected a number from 10 to 26; got {bits}. 20 takes 24 MiB.")
        self.max_fpr = max_fpr
        self.bits = bits
        self.images = 0
        self._positive: Counts = np.zeros(1 << bits, dtype=np.int64)
        self._negative: Counts = np.zeros(1 << bits, dtype=np.int64)
        self._overlap: Floats = np.zeros(1 << bits, dtype=np.float64)
        self._pending: list[NDArray[np.uint32]] = []
        self._held = 0
        self._nan = False

    def update(self, maps: Maps, masks: Maps) -> None:
        """Count images, given as to `pixel_metrics`, with the same errors."""
        for scores, mask in paired(maps, masks):
            self.images += 1
            if np.isnan(scores).any():
                self._nan = True
                continue
            code = codes(scores, self.bits)
            hit = code[mask]
            np.add.at(self._positive, hit, 1)
            np.add.at(self._overlap, hit, region_weights(mask))
            self._pending.append(code[~mask])
            self._held += code.size
            if self._held >= PENDING:
                self._count()

    def merge(self, other: StreamingPixelMetrics) -> None:
        """Add what another one has seen. Raises DataError when its bits or max_fpr differ."""
        if (self.bits, self.max_fpr) != (other.bits, other.max_fpr):
            raise DataError(
                f"merge expected bits {self.bits} and max_fpr {self.max_fpr}; got {other.bits} and "
                f"{other.max_fpr}. Make both with the same settings."
            )
        other._count()
        self._positive += other._positive
        self._negative += other._negative
        self._overlap += other._overlap
        self.images += other.images
        self._nan |= other._nan

    def compute(self) -> dict[str, float]:
        """{"auroc", "ap", "f1_max", "aupro"}, exact for the rounded scores; inside `bounds()`."""
        if self._nan:
            return dict.fromkeys(NAMES, math.nan)
        steps, overlap = self._steps()
        return {
            "auroc": auroc(steps),
            "ap": average_precision(steps),
            "f1_max": f1_max(steps),
            "aupro": aupro(steps, overlap, self.max_fpr),
        }

    def curve(self, points: int = 200) -> dict[str, Floats]:
        """The ROC and precision-recall curve of the rounded scores, as `metrics.curves.curve`."""
        if self._nan:
            return {name: np.empty(0) for name in ("fpr", "recall", "precision")}
        return curve(self._steps()[0], points)

    def bounds(self) -> dict[str, tuple[float, float]]:
        """{figure: (low, high)} that hold the exact figure of the unrounded scores (to float64 rounding,
        1e-9).

        (NaN, NaN) where the figure does not exist.
        """
        steps, overlap = self._steps()
        if self._nan or not steps.positives:
            return dict.fromkeys(NAMES, (math.nan, math.nan))
        found = {"ap": ap_bounds(steps), "f1_max": f1_bounds(steps)}
        if not steps.negatives:
            return dict.fromkeys(NAMES, (math.nan, math.nan)) | found
        return {"auroc": auroc_bounds(steps), **found, "aupro": aupro_bounds(steps, overlap, self.max_fpr)}

    def _count(self) -> None:
        """Move the pending negatives into the bins."""
        if self._pending:
            self._negative += np.bincount(np.concatenate(self._pending), minlength=1 << self.bits)
        self._pending, self._held = [], 0

    def _steps(self) -> tuple[Steps, Floats]:
        """The ranking of the bins that hold a positive, best first, and the running overlap there."""
        self._count()
        bins = np.flatnonzero(self._positive)[::-1]
        at_or_above = np.cumsum(self._negative[::-1])[::-1]
        false = at_or_above[bins]
        true = np.cumsum(self._positive[bins])
        steps = Steps(
            true=true,
            above=false - self._negative[bins],
            false=false,
            positives=int(true[-1]) if len(true) else 0,
            negatives=int(at_or_above[0]),
        )
        return steps, np.cumsum(self._overlap[bins])


def auroc_bounds(steps: Steps) -> tuple[float, float]:
    """A pair inside a bin counts one half in the figure; its true order moves that by one half either way."""
    pairs = float(np.dot(steps.gained, steps.false - steps.above)) / steps.positives / steps.negatives
    return auroc(steps) - pairs / 2, auroc(steps) + pairs / 2


def ap_bounds(steps: Steps) -> tuple[float, float]:
    """Every bin with all its negatives first, and with none of them before any positive.

    In the worst order the i-th positive of a bin has precision (before + i) / (before + i + false): concave
    in i, so the mean over a bin is at least the mean of its first and its last.
    """
    first = steps.true - steps.gained + 1
    worst = first / (first + steps.false) + steps.true / (steps.true + steps.false)
    best = steps.true / (steps.true + steps.above)
    return float(steps.gained @ worst) / 2 / steps.positives, float(steps.gained @ best) / steps.positives


def f1_bounds(steps: Steps) -> tuple[float, float]:
    """The end of a bin is a threshold that exists; inside it no threshold beats all positives and no
    negative.
    """
    return f1_max(steps), float(np.max(2 * steps.true / (steps.positives + steps.true + steps.above)))


def aupro_bounds(steps: Steps, overlap: Floats, max_fpr: float) -> tuple[float, float]:
    """Every bin's overlap gained after all its negatives, and before all of them: two staircases."""
    height = np.append(0.0, overlap / overlap[-1])
    found = []
    for edge in (steps.false, steps.above):
        rate = np.append(edge / steps.negatives, 1.0)
        x, y = np.append(0.0, np.repeat(rate, 2)), np.append(np.repeat(height, 2), 1.0)
        found.append(area_to(x, y, max_fpr) / max_fpr)
    return found[0], found[1]


def area_to(x: Floats, y: Floats, end: float) -> float:
    """Area under the polyline (x, y) from 0 to `end`; x ascends from 0 to at least `end`."""
    inside = int(np.searchsorted(x, end, side="right"))  # x[:inside] <= end
    x_cut, y_cut = x[:inside], y[:inside]
    if x_cut[-1] < end:
        share = (end - x[inside - 1]) / (x[inside] - x[inside - 1])
        x_cut = np.append(x_cut, end)
        y_cut = np.append(y_cut, y[inside - 1] + share * (y[inside] - y[inside - 1]))
    return float(np.dot(np.diff(x_cut), y_cut[1:] + y_cut[:-1]) / 2)
