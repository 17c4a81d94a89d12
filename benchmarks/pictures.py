"""What drawing costs: regions and an overlay of one picture, next to a resize of it as the yardstick.

Run: python benchmarks/pictures.py. Each figure is the best of five, in milliseconds, and as a multiple of the
resize.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from PIL import Image

from dapo.inspection import Inspection
from dapo.regions import find_regions
from dapo.writers.overlay import draw_overlay

SIDES = (512, 1000, 3000)
TYPES = ("scratch", "dent", "hole", "stain", "spot", "rust", "burn", "chip")


def maps_of(side: int, spots: int = 8) -> dict[str, np.ndarray]:
    """One map a type, round spots on it."""
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    rng = np.random.default_rng(0)
    maps = {name: np.zeros((side, side), np.float32) for name in TYPES}
    for i in range(spots):
        cy, cx = rng.uniform(0.1, 0.9, 2)
        spot = np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / 0.002).astype(np.float32)
        np.maximum(maps[TYPES[i % len(TYPES)]], spot, out=maps[TYPES[i % len(TYPES)]])
    return maps


def best(action: Callable[[], object]) -> float:
    """Least milliseconds of five runs."""
    times = []
    for _ in range(5):
        began = time.perf_counter()
        action()
        times.append(1000 * (time.perf_counter() - began))
    return min(times)


def main() -> None:
    print(f"{'side':>6}{'resize ms':>12}{'regions':>18}{'overlay':>18}")
    for side in SIDES:
        maps = maps_of(side)
        anomaly = np.max(list(maps.values()), axis=0)
        pixels = np.random.default_rng(1).integers(0, 255, (side, side, 3), dtype=np.uint8)
        regions = find_regions(anomaly, maps, threshold=0.4)
        result = Inspection(
            image="part.png",
            width=side,
            height=side,
            score=0.9,
            raw_score=0.9,
            threshold=0.5,
            verdict="defective",
            types={name: float(one.max()) for name, one in maps.items()},
            regions=regions,
            anomaly_map=anomaly,
            type_maps=maps,
            model={"name": "none", "version": "0", "sha256": "0" * 64},
            timing_ms=0.0,
            pixels=pixels,
        )
        picture = Image.fromarray(pixels)
        resize = best(lambda picture=picture: picture.resize((224, 224), Image.Resampling.BICUBIC))  # type: ignore[misc]
        found = best(lambda a=anomaly, m=maps: find_regions(a, m, threshold=0.4))  # type: ignore[misc]
        drawn = best(lambda result=result: draw_overlay(result))  # type: ignore[misc]
        shares = "".join(f"{one:10.0f} ({one / resize:4.0f}x)" for one in (found, drawn))
        print(f"{side:6d}{resize:12.1f}{shares}")


if __name__ == "__main__":
    main()
