"""Speed and memory of `dapo.metrics.pixel_metrics`: 40 maps of 518 x 518, all four pixel figures, one thread.

Against the usual way (200 thresholds x region properties of every image, and scikit-learn's AUROC and AP) and
against scikit-learn's AUROC and AP alone, in the same run. Exits 1 when the promise is broken: at least 10
times faster than the first, faster than the second, at most 6 times the input in memory.

    python benchmarks/metrics_speed.py
"""
# ruff: noqa: E402  (the number of threads is set before numpy starts)

from __future__ import annotations

import os

for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[name] = "1"  # before numpy starts its threads

import sys
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from skimage.measure import label, regionprops
from sklearn.metrics import average_precision_score, roc_auc_score

from dapo.metrics import StreamingPixelMetrics, pixel_metrics

IMAGES, SIDE, THRESHOLDS, MAX_FPR = 40, 518, 200, 0.3
FASTER, MEMORY = 10, 6

Maps = NDArray[np.float32]
Masks = NDArray[np.bool_]


def generated(seed: int = 0) -> tuple[Maps, Masks]:
    """Smooth maps and masks of a few round defects, a quarter of the images good; each (40, 518, 518)."""
    generator = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    masks = np.zeros((IMAGES, SIDE, SIDE), dtype=np.bool_)
    for mask in masks[IMAGES // 4 :]:
        for _ in range(generator.integers(1, 5)):
            row, column, radius = (
                generator.uniform(20, SIDE - 20),
                generator.uniform(20, SIDE - 20),
                generator.uniform(4, 30),
            )
            mask |= (rows - row) ** 2 + (columns - column) ** 2 < radius**2
    noise = ndimage.gaussian_filter(generator.standard_normal(masks.shape), (0, 4, 4))
    signal = ndimage.gaussian_filter(masks.astype(np.float32), (0, 6, 6))
    return (1 / (1 + np.exp(-(noise / noise.std() + 4 * signal - 2)))).astype(np.float32), masks


def loop_aupro(maps: Maps, masks: Masks) -> float:
    """AUPRO as it is usually computed: thresholds in even steps, every region of every image looked at each
    time.
    """
    points = []
    good = ~masks
    for threshold in np.linspace(maps.max(), maps.min(), THRESHOLDS):
        called = maps >= threshold
        overlaps = [
            called[image][tuple(region.coords.T)].mean()
            for image, mask in enumerate(masks)
            for region in regionprops(label(mask, connectivity=2))
        ]
        points.append(((called & good).sum() / good.sum(), np.mean(overlaps)))
    rate, overlap = np.array(points).T
    inside = np.append(rate[rate <= MAX_FPR], MAX_FPR)
    level = np.interp(inside, rate, overlap)
    return float(np.dot(np.diff(inside), level[1:] + level[:-1]) / 2 / MAX_FPR)


def ranked_by_scikit_learn(maps: Maps, masks: Masks) -> tuple[float, float]:
    truth, scores = masks.ravel(), maps.ravel()
    return float(roc_auc_score(truth, scores)), float(average_precision_score(truth, scores))


def streamed(maps: Maps, masks: Masks) -> dict[str, float]:
    metrics = StreamingPixelMetrics(MAX_FPR)
    metrics.update(maps, masks)
    return metrics.compute()


def timed(work: Callable[[], object], repeats: int) -> tuple[float, object]:
    """Best time in seconds of some repeats, and what the work gave."""
    best, found = np.inf, None
    for _ in range(repeats):
        start = time.perf_counter()
        found = work()
        best = min(best, time.perf_counter() - start)
    return float(best), found


def peak_over_input(maps: Maps, masks: Masks) -> float:
    """Memory held at the worst moment, in multiples of the input."""
    tracemalloc.start()
    pixel_metrics(maps, masks)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / (maps.nbytes + masks.nbytes)


def main() -> int:
    maps, masks = generated()
    ours, figures = timed(lambda: pixel_metrics(maps, masks), 3)
    stream, _ = timed(lambda: streamed(maps, masks), 3)
    ranking, _ = timed(lambda: ranked_by_scikit_learn(maps, masks), 2)
    loop, aupro = timed(lambda: loop_aupro(maps, masks), 1)
    memory = peak_over_input(maps, masks)
    table = Table(title=f"{IMAGES} maps of {SIDE} x {SIDE}, one thread, {masks.mean():.1%} defect pixels")
    for column in ("way", "figures", "seconds", "times ours"):
        table.add_column(column, justify="left" if column in ("way", "figures") else "right")
    for way, what, seconds in (
        ("pixel_metrics", "AUROC, AP, F1max, AUPRO", ours),
        ("StreamingPixelMetrics", "AUROC, AP, F1max, AUPRO", stream),
        ("scikit-learn", "AUROC, AP", ranking),
        (f"scikit-learn + {THRESHOLDS}-step loop", "AUROC, AP, about AUPRO", ranking + loop),
    ):
        table.add_row(way, what, f"{seconds:.2f}", f"{seconds / ours:.1f}")
    console = Console()
    console.print(table)
    console.print(
        f"pixel_metrics holds {memory:.1f} times its input; {figures}; AUPRO of the loop {aupro:.4f}"
    )
    kept = (ranking + loop) / ours >= FASTER and ranking > ours and memory <= MEMORY
    console.print(
        "promise kept"
        if kept
        else f"PROMISE BROKEN: {FASTER} times faster, faster than scikit-learn, {MEMORY} times the input"
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
