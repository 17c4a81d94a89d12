"""What a look at one picture costs: model folders in turns, one picture alone and eight together.

Run: python benchmarks/seconds.py [MODEL ...]; without one, the embedded model. Pictures of 224 x 224 px are
drawn at random, for the time does not depend on what they show; loading, regions and writing are left out.
Median milliseconds an image, Markdown on stdout; about half a minute a model on two cores.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch

from dapo.model.artifact import load
from dapo.model.detector import Detector
from dapo.vocabulary import Vocabulary

TOGETHER, ROUNDS, SIDE = (1, 8), 30, 224
WORDS = Vocabulary.of(["scratch", "crack", "hole", "stain", "dent"])


@torch.inference_mode()
def milliseconds(detector: Detector, pixels: torch.Tensor) -> float:
    """Of one look, an image."""
    began = time.perf_counter()
    detector(pixels, WORDS)
    return 1000 * (time.perf_counter() - began) / len(pixels)


def main() -> None:
    folders: list[str | None] = [*sys.argv[1:]] or [None]
    loaded = [load(folder) for folder in folders]
    print("| model | " + " | ".join(f"{count} together" for count in TOGETHER) + " |")
    print("|---|" + "---:|" * len(TOGETHER))
    times: dict[tuple[int, int], list[float]] = {}
    for count in TOGETHER:
        pixels = torch.rand(count, 3, SIDE, SIDE)
        for turn in range(-2, ROUNDS):  # two to warm up
            for i, (detector, _) in enumerate(loaded):
                spent = milliseconds(detector, pixels)
                if turn >= 0:
                    times.setdefault((i, count), []).append(spent)
    for i, (_, info) in enumerate(loaded):
        cells = (f"{statistics.median(times[i, count]):.0f}" for count in TOGETHER)
        print(f"| {info.name} {info.config.version} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
