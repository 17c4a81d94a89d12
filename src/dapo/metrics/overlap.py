"""The four pixel figures of anomaly maps, with AUPRO, the area under the per-region overlap: exact, one sort.

PRO at a threshold is the mean, over the connected defect regions of all images, of the share of the region at
or above the threshold (Bergmann et al., MVTec AD, IJCV 2021). AUPRO is the area under PRO against the
false-positive rate over all defect-free pixels, from 0 to `max_fpr`, divided by `max_fpr`; the end point is
interpolated. Every positive pixel of a region of area a adds 1/a, so PRO is a weighted running sum over the
same sort that gives AUROC, AP and F1max. Regions are 8-connected (scipy.ndimage.label; scipy is a core
dependency).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from dapo.errors import DataError
from dapo.metrics.curves import Floats, Steps, as_scores, as_truth, auroc, average_precision, f1_max, rank

EIGHT_CONNECTED = np.ones((3, 3), dtype=np.bool_)
MAX_FPR = 0.3
NAMES = ("auroc", "ap", "f1_max", "aupro")

Maps = NDArray[np.generic] | Sequence[ArrayLike]


def pixel_metrics(maps: Maps, masks: Maps, max_fpr: float = MAX_FPR) -> dict[str, float]:
    """{"auroc", "ap", "f1_max", "aupro"} over all pixels of all maps, exact.

    maps: real (n, h, w), higher = more anomalous; masks: bool (n, h, w), True = defect (integers 0 and 1 also
    pass). Images of different sizes: sequences of (h, w) arrays. max_fpr in (0, 1] bounds AUPRO.

    Degenerate input gives NaN, never a made-up number: no defect pixel at all: all NaN. Only defect pixels:
    auroc and aupro NaN (there is no false-positive rate); ap and f1_max 1 (every call is right). All scores
    equal: auroc 0.5, ap = the share of defect pixels, aupro = max_fpr / 2 (the diagonal). A NaN score cannot
    be ranked: all NaN. One image is as good as many; images without a defect only add false-positive pixels.
    Raises DataError when shapes differ, masks are not true/false, or max_fpr is outside (0, 1].
    """
    check_max_fpr(max_fpr)
    pairs = list(paired(maps, masks))
    if any(np.isnan(scores).any() for scores, _ in pairs):
        return dict.fromkeys(NAMES, math.nan)
    steps, overlap = ranked(pairs)
    return {
        "auroc": auroc(steps),
        "ap": average_precision(steps),
        "f1_max": f1_max(steps),
        "aupro": aupro(steps, overlap, max_fpr),
    }


def ranked(pairs: Sequence[tuple[NDArray[np.generic], NDArray[np.bool_]]]) -> tuple[Steps, Floats]:
    """The ranking of all pixels of (map, mask) pairs, and the running sum of 1/area at each step: (s,)."""
    negative = concatenated([scores[~mask] for scores, mask in pairs])
    negative.sort()
    positive = concatenated([scores[mask] for scores, mask in pairs])
    order = np.argsort(positive)
    positive = positive[order]
    weight = concatenated([region_weights(mask) for _, mask in pairs]).astype(np.float64, copy=False)
    weight = weight[order[::-1]]
    del order  # at most 6 times the input is held, so what is done with goes
    np.cumsum(weight, out=weight)
    steps, last = rank(positive, negative)
    return steps, weight[last]


def aupro(steps: Steps, overlap: Floats, max_fpr: float) -> float:
    """Area under overlap against false-positive rate up to max_fpr, over max_fpr; NaN without either class.

    overlap: (s,) running sum of 1/area over the positives at or above each step; the last is the number of
    regions. A step climbs on a straight line from `above` to `false`; between two steps the curve is flat.
    """
    if not steps.positives or not steps.negatives:
        return math.nan
    end = max_fpr * steps.negatives
    whole = int(np.searchsorted(steps.false, end, side="right"))  # steps that end before the limit
    above, false, height = steps.above[:whole], steps.false[:whole], overlap[:whole] / overlap[-1]
    x, y = (
        np.append(0, false),
        np.append(0.0, height),
    )  # where the curve is before each step, and after the last
    area = float(np.dot(above - x[:-1], y[:-1])) + float(np.dot(false - above, y[:-1] + height)) / 2
    start = min(end, steps.above[whole]) if whole < len(overlap) else end
    area += float((start - x[-1]) * y[-1])
    if start < end:  # the limit cuts a climb
        climb = (overlap[whole] / overlap[-1] - y[-1]) * (end - start) / (steps.false[whole] - start)
        area += float((end - start) * (y[-1] + climb / 2))
    return min(1.0, area / end)


def check_max_fpr(max_fpr: float) -> None:
    """Raises DataError unless max_fpr is in (0, 1]."""
    if not 0 < max_fpr <= 1:
        raise DataError(
            f"max_fpr expected a rate above 0 and at most 1; got {max_fpr}. The usual value is 0.3."
        )


def region_weights(mask: NDArray[np.bool_]) -> Floats:
    """1 / area of its 8-connected region for each True pixel of the mask (h, w), row-major: (p,)."""
    regions, count = ndimage.label(mask, structure=EIGHT_CONNECTED)
    if not count:
        return np.empty(0, dtype=np.float64)
    member = regions[mask]
    area = np.bincount(member, minlength=count + 1)
    return np.asarray(1.0 / area[member], dtype=np.float64)


def paired(maps: Maps, masks: Maps) -> Iterator[tuple[NDArray[np.generic], NDArray[np.bool_]]]:
    """(map (h, w), mask (h, w)) image by image, each checked; DataError names the image that does not fit."""
    if len(maps) != len(masks):
        raise DataError(
            f"expected one mask for each map; got {len(maps)} maps and {len(masks)} masks. "
            "A good image needs a mask too, all False."
        )
    for index, (scores, mask) in enumerate(zip(maps, masks, strict=True)):
        values, truth = as_scores(scores, f"maps[{index}]"), as_truth(mask, f"masks[{index}]")
        if values.ndim != 2 or values.shape != truth.shape:
            raise DataError(
                f"expected maps[{index}] and masks[{index}] of one shape (h, w); got {values.shape} and "
                f"{truth.shape}. Resize the map to the size of its mask."
            )
        yield values, truth


def concatenated(parts: Iterable[NDArray[np.generic]]) -> NDArray[np.generic]:
    """One array (sum of lengths,); an empty list gives an empty float64 array."""
    held = list(parts)
    return np.concatenate(held) if held else np.empty(0, dtype=np.float64)
