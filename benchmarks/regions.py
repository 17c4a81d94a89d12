"""Regions against flaws, on generated scenes: how many flaws are hit, in how many pieces, how many false.

Run: python benchmarks/regions.py [--scenes 150] [--side 224] [--tile 256] [--model DIR]; Markdown on stdout.
Two minutes on two cores with the defaults. As many good parts (world 40001) as flawed ones (world 40002). A
flaw is a connected part of a mask of at least 30 pixels; a region hits it where they share a pixel. "Joined":
with the rule that ships (`find_regions`, bridge); "apart": without it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from scipy import ndimage

import dapo.answering
from dapo.inspection import Region
from dapo.inspector import Inspector
from dapo.pretraining.scenes import Scene, World

GOOD, FLAWED = 40_001, 40_002  # seeds of the worlds
SMALLEST = 30  # pixels of a flaw
EIGHT = np.ones((3, 3), dtype=bool)

Mask = NDArray[np.bool_]


def flaws(scene: Scene) -> Iterator[Mask]:
    """Connected parts of the masks, fragments up to 4 px apart as one."""
    for mask in scene.masks.values():
        labels, number = ndimage.label(ndimage.binary_dilation(mask, EIGHT, 2), EIGHT)
        for label in range(1, number + 1):
            flaw = mask & (labels == label)
            if flaw.sum() >= SMALLEST:
                yield flaw


def figures(inspect: Callable[[Any], tuple[Region, ...]], scenes: int, side: int) -> list[str]:
    """One row of the table."""
    good = World(seed=GOOD, normal=1.0)
    false = [len(inspect(good.scene(i, side, side).image)) for i in track(range(scenes), "good parts")]
    world, pieces, overlaps, astray, regions, two = World(seed=FLAWED, normal=0.0), [], [], 0, 0, 0
    for i in track(range(scenes), "flawed parts"):
        scene = world.scene(i, side, side)
        found = [region.mask for region in inspect(scene.image)]
        true = list(flaws(scene))
        flawed = scene.flawed
        for flaw in true:
            hits = [mask for mask in found if (mask & flaw).any()]
            pieces.append(len(hits))
            if hits:
                union = np.any(hits, axis=0)
                overlaps.append((union & flaw).sum() / (union | flaw).sum())
        regions += len(found)
        astray += sum(not (mask & flawed).any() for mask in found)
        two += sum(sum((mask & flaw).any() for flaw in true) > 1 for mask in found)
    hit = np.array([number for number in pieces if number])
    return [
        f"{len(hit) / len(pieces):.3f} of {len(pieces)}",
        f"{100 * np.mean(hit > 1):.1f} %",
        f"{np.mean(false):.2f}",
        f"{astray} of {regions}",
        str(two),
        f"{np.mean(overlaps):.3f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scenes", type=int, default=150)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--tile", default=None)
    parser.add_argument("--model")
    options = parser.parse_args()
    inspector = Inspector.from_pretrained(options.model, tile=options.tile, calibration=False)

    def regions_in(image: Any) -> tuple[Region, ...]:
        return inspector.inspect(image).regions

    print("| fragments | flaws hit | of these in several regions | regions on a good part |", end=" ")
    print("false on flawed parts | over two flaws | IoU |\n|---|---|---|---|---|---|---|")
    joined = dapo.answering.find_regions
    for name, rule in (("joined", joined), ("apart", lambda *a, **k: joined(*a, **{**k, "bridge": None}))):
        dapo.answering.find_regions = rule
        cells = figures(regions_in, options.scenes, options.side)
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
