"""Memory of an evaluation by number of images: what the streaming figures hold does not grow with the pixels.

No model: an inspector that answers random maps at once, 518 x 518 with five types, so that all memory is the
evaluator's. Prints the resident set after every tenth of the images; what still grows is a line of text an
image. Figures and masks as in `dapo evaluate`.

    python benchmarks/evaluation_memory.py --images 3000
"""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from dapo.data import Sample
from dapo.evaluation import evaluate

SIDE, TYPES = 518, ("bent", "crack", "dent", "hole", "scratch")
UNIT = 1024 if sys.platform == "darwin" else 1  # ru_maxrss: bytes there, KiB elsewhere


@dataclass(frozen=True)
class Answer:
    raw_score: float
    anomaly_map: NDArray[np.float32]
    types: dict[str, float]
    type_maps: dict[str, NDArray[np.float32]]


class Random:
    """Random maps; the same handful over and over, shifted, so that drawing them takes no time."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.noise = rng.random((SIDE, 2 * SIDE), dtype=np.float32) / (len(TYPES) + 1)
        self.number = 0

    def stream(self, paths: Iterable[Any], defects: Any = None, batch_size: int = 8) -> Iterator[Answer]:
        for _ in paths:
            self.number += 1
            maps = {
                name: self.noise[:, (37 * self.number + 91 * place) % SIDE :][:, :SIDE]
                for place, name in enumerate(TYPES)
            }
            yield Answer(
                float(self.noise[0, self.number % SIDE]),
                sum(maps.values(), np.zeros((SIDE, SIDE), np.float32)),
                {name: float(found[0, 0]) for name, found in maps.items()},
                maps,
            )


@dataclass(frozen=True)
class Square:
    """A mask that needs no file."""

    at: int

    def read(self, height: int, width: int) -> NDArray[np.bool_]:
        mask = np.zeros((height, width), np.bool_)
        mask[self.at : self.at + 40, self.at : self.at + 60] = True
        return mask


def samples(count: int, folder: Path) -> list[Sample]:
    """Every second image is defective; every one is a part of its own."""
    found = []
    for number in range(count):
        kind = (TYPES[number // 2 % len(TYPES)],) if number % 2 else ()
        masks = {name: Square(number % 400) for name in kind}
        found.append(Sample(folder / f"{number}.png", "plate", kind, masks, "test"))
    return found


@click.command(help=__doc__)
@click.option("--images", type=click.IntRange(10), default=3000, show_default=True)
def main(images: int) -> None:
    seen = 0

    def watch(_: Sample) -> None:
        nonlocal seen
        seen += 1
        if seen % (images // 10) == 0:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / UNIT / 1024
            click.echo(f"{seen:7d} images  {peak:7.0f} MiB at most")

    with tempfile.TemporaryDirectory() as folder:
        evaluate(Random(), samples(images, Path(folder)), draws=1000, on_image=watch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / UNIT / 1024
    click.echo(f"with intervals  {peak:7.0f} MiB at most")


if __name__ == "__main__":
    main()
