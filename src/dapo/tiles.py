"""Tiles: a large picture cut into overlapping parts, and their maps blended back into one.

In: the size of a picture; later, for each tile, its maps on the patch grid. Out: where to cut (`plan`, always
from the original picture, never from a reduced one), maps of the whole picture without seams (`Canvas`), one
image score from the scores of the tiles (`combine`), and the smallest flaw worth looking for
(`smallest_defect`). NumPy only.

Cost grows with the number of tiles, about (h / stride) (w / stride) looks of the model, stride = 3/4 size:
halving the tile halves the smallest findable flaw and quadruples the time. A tile also sees less of its
surroundings: what is wrong only in view of the whole part (a missing corner, a discoloured half) is better
seen untiled.

Sources: a window over each tile, normalised by the sum of all windows, as in overlap-add synthesis (Allen and
Rabiner, Proc. IEEE 65, 1977); averages of e-values (Vovk and Wang, Annals of Statistics 49, 2021) for
`combine`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from dapo.errors import ConfigError
from dapo.images import MAX_ASPECT, MIN_SIDE

__all__ = [
    "Canvas",
    "Tile",
    "Tiling",
    "auto_size",
    "combine",
    "parse_tiling",
    "plan",
    "smallest_defect",
    "tile_size",
    "within",
]

Map: TypeAlias = npt.NDArray[np.float32]
Floats: TypeAlias = npt.NDArray[np.float64]
Tiling: TypeAlias = "int | Literal['auto', 'off']"
Pixel = TypeVar("Pixel", bound=np.generic)

OVERLAP = 0.25  # of a tile: what it shares with the next one at least
MAX_OVERLAP = 0.75  # sixteen looks at every place already
WHOLE = 6.0  # times the model's side: a picture of no more pixels than a square of that is looked at whole
TILE = 2.0  # times the model's side: a tile, so that tiling makes the smallest flaw at least 3 times smaller
TILE_ASPECT = 2.0  # long side : short side of a tile cut from a line scan
SMALLEST = 0.5  # times the model's side: a smaller automatic tile would only be enlarged
CELLS_PER_PATCH = 3  # canvas cells along a patch: a lone patch keeps 0.69 of its height at worst
CANVAS_VALUES = 24_000_000  # cells times maps of a canvas, 96 MB: 10 types of 48 megapixels in 448 px tiles
FLOOR = 1e-6  # of the window's height: an edge is never weighed with nothing
CERTAIN = 1e-6  # probabilities are kept this far from 0 and 1 before their odds are taken


@dataclass(frozen=True)
class Tile:
    """A rectangle of the original picture, in pixels."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, picture: npt.NDArray[Pixel]) -> npt.NDArray[Pixel]:
        """Its part of a picture (h, w, 3) or mask (h, w): a view, nothing is copied."""
        return picture[self.top : self.top + self.height, self.left : self.left + self.width]


def parse_tiling(value: int | str) -> Tiling:
    """What was typed for ``--tile``: "auto", "off" or a number of pixels; ``ConfigError`` for all else."""
    text = str(value).strip().lower()
    if text == "auto":
        return "auto"
    if text == "off":
        return "off"
    if text.isdecimal() and int(text) >= MIN_SIDE:
        return int(text)
    wanted = f"'auto', 'off' or the tile's side in pixels, at least {MIN_SIDE}"
    raise ConfigError(f"tile: expected {wanted}, came {value!r}; 'auto' suits most pictures")


def tile_size(tiling: Tiling, height: int, width: int, *, side: int) -> int | None:
    """The side of the tiles for a picture; None = look at it whole (also where it fits into one tile)."""
    if tiling == "off":
        return None
    size = auto_size(height, width, side=side) if tiling == "auto" else tiling
    return None if size is None or size >= max(height, width) else size


def auto_size(height: int, width: int, *, side: int) -> int | None:
    """The policy of ``--tile auto`` for a model of ``side`` pixels: the side of the tiles, None = no tiling.

    A picture is cut if it has more pixels than a square of ``WHOLE`` times the model's side, or if its aspect
    is beyond 4:1, where ``prepare`` would squash it. A tile measures ``TILE`` times the model's side; of a
    narrow picture at most twice the shorter side, so that tiles are never longer than 2:1, unless the strip
    is less than a quarter of the model's side wide. For a side of 224 px: 1.8 megapixels stay whole (1 look),
    4000 x 3000 is cut into 108 tiles of 448 px, a line scan of 200 x 5000 into 17 of 200 x 400.
    """
    shorter = min(height, width)
    if height * width <= (WHOLE * side) ** 2 and max(height, width) <= MAX_ASPECT * shorter:
        return None
    size = max(min(TILE * side, TILE_ASPECT * shorter), SMALLEST * side, MIN_SIDE)
    return round(size)


def plan(height: int, width: int, *, size: int, overlap: float = OVERLAP) -> tuple[Tile, ...]:
    """Tiles of one shape that cover a picture, row by row, evenly spaced.

    ``size``: side in pixels; a picture shorter than that in one direction has one tile there, of its own
    length. Neighbours share at least ``overlap`` of a tile. Raises ``ConfigError`` for a size below 8 px or
    an overlap outside 0 to 0.75, ``ValueError`` for a picture without pixels.
    """
    if size < MIN_SIDE:
        raise ConfigError(f"tile: expected at least {MIN_SIDE} pixels, came {size}; use a larger tile")
    if not 0 <= overlap <= MAX_OVERLAP:
        raise ConfigError(f"overlap: expected 0 to {MAX_OVERLAP} of a tile, came {overlap}; 0.25 is usual")
    if height < 1 or width < 1:
        raise ValueError(f"expected a picture with pixels, came {height} x {width} (height x width)")
    rows, columns = _starts(height, size, overlap), _starts(width, size, overlap)
    shape = (min(height, size), min(width, size))
    return tuple(Tile(top, left, *shape) for top in rows for left in columns)


def _starts(length: int, size: int, overlap: float) -> list[int]:
    """Where tiles begin along one side; whole-number steps that never exceed the stride."""
    if length <= size:
        return [0]
    stride = size - math.ceil(overlap * size)
    steps = -(-(length - size) // stride)
    return [step * (length - size) // steps for step in range(steps + 1)]


def within(tiles: Iterable[Tile], mask: npt.NDArray[np.bool_]) -> tuple[Tile, ...]:
    """The tiles that show some of a region of interest, bool (h, w); the others need no look."""
    return tuple(tile for tile in tiles if tile.cut(mask).any())


class Canvas:
    """Where the maps of tiles are blended into maps of the whole picture, in any order.

    Maps of 48 megapixels for 10 types would take 2 GB. A canvas is coarser: three cells along each patch of
    the model, never finer than the picture, and fewer where ``states`` maps would exceed ``CANVAS_VALUES``.
    It covers the picture exactly, so `dapo.images.restore_map` takes it to the original size. It holds
    4 (states + 1) rows columns bytes, at most 192 MB, and while a tile is added once more its share of that.

    Each tile is enlarged bilinearly and weighed by a raised cosine, highest in its middle, where a patch sees
    most of its surroundings; weights at a place are divided by their sum. So a constant stays constant, no
    value leaves the range of what was added, and there is no seam.
    """

    def __init__(self, height: int, width: int, *, states: int, tile: Tile, grid: tuple[int, int]) -> None:
        """height, width: of the picture. states: maps per tile. tile, grid: any tile and its patch grid."""
        if min(height, width, states, tile.height, tile.width, *grid) < 1:
            raise ValueError(f"nothing to draw on: {height} x {width} px, {states} maps, {tile}, grid {grid}")
        rows = min(height, math.ceil(CELLS_PER_PATCH * height * grid[0] / tile.height))
        columns = min(width, math.ceil(CELLS_PER_PATCH * width * grid[1] / tile.width))
        shrink = min(1.0, math.sqrt(CANVAS_VALUES / (states * rows * columns)))
        self.shape = (states, max(1, math.floor(rows * shrink)), max(1, math.floor(columns * shrink)))
        self.picture = (height, width)
        self._sum = np.zeros(self.shape, dtype=np.float32)
        self._weight = np.zeros(self.shape[1:], dtype=np.float32)
        self._low = np.full((states, 1, 1), np.inf, dtype=np.float32)
        self._high = -self._low
        self._done = False

    def add(self, tile: Tile, maps: npt.NDArray[Any]) -> None:
        """Blend in the maps of one tile: (states, gh, gw), or (gh, gw) where there is one state.

        Raises ``ValueError`` for maps of another shape, a tile outside the picture, or after ``maps``.
        """
        stack = np.asarray(maps[None] if maps.ndim == 2 else maps, dtype=np.float32)
        self._check(tile, stack)
        _, rows, columns = self.shape
        down, enlarge_down, window_down = _axis(self.picture[0], rows, tile.top, tile.height, stack.shape[1])
        right, enlarge_right, window_right = _axis(
            self.picture[1], columns, tile.left, tile.width, stack.shape[2]
        )
        window = np.outer(window_down, window_right)
        part = enlarge_down @ stack @ enlarge_right.T
        part *= window
        self._sum[:, down, right] += part
        self._weight[down, right] += window
        np.minimum(self._low, stack.min(axis=(1, 2), keepdims=True), out=self._low)
        np.maximum(self._high, stack.max(axis=(1, 2), keepdims=True), out=self._high)

    def maps(self) -> Map:
        """The blended maps, float32 (states, rows, columns); 0 where no tile was added. Ends the canvas."""
        self._done = True
        unseen = self._weight == 0
        self._weight[unseen] = 1
        for state, (low, high) in zip(self._sum, zip(self._low, self._high, strict=True), strict=True):
            state /= self._weight
            np.clip(state, low, high, out=state)  # rounding alone could leave the range
            state[unseen] = 0
        return self._sum

    def _check(self, tile: Tile, stack: Map) -> None:
        if self._done:
            raise ValueError("the maps were taken off this canvas; make a new one")
        if stack.ndim != 3 or len(stack) != self.shape[0] or 0 in stack.shape:
            raise ValueError(f"expected {self.shape[0]} maps (gh, gw), came shape {stack.shape}")
        bottom, right = tile.top + tile.height, tile.left + tile.width
        if min(tile.top, tile.left) < 0 or bottom > self.picture[0] or right > self.picture[1]:
            raise ValueError(f"{tile} is not inside a picture of {self.picture} (height, width)")


def _axis(length: int, cells: int, start: int, extent: int, patches: int) -> tuple[slice, Map, Map]:
    """Of one tile along one side: its cells, the matrix (n, patches) that resamples to them, their window.

    A cell belongs to the tile if its middle does. The matrix is a triangle filter as wide as a patch (or as a
    cell, where that is larger), normalised, so that at the edges the outer patch goes on: the rule of
    ``restore_map``.
    """
    first = max(0, math.ceil(start * cells / length - 0.5))
    last = min(cells, math.ceil((start + extent) * cells / length - 0.5))
    middle = ((np.arange(first, last) + 0.5) * length / cells - start) / extent  # 0 to 1 along the tile
    reach = max(1.0, length / cells * patches / extent)
    distance = np.abs(middle[:, None] * patches - 0.5 - np.arange(patches)) / reach
    weights = np.maximum(0.0, 1.0 - distance)
    weights /= weights.sum(axis=1, keepdims=True)
    window = np.maximum(np.sin(np.pi * middle) ** 2, FLOOR)
    return slice(first, last), weights.astype(np.float32), window.astype(np.float32)


def smallest_defect(
    height: int, width: int, size: int | None, *, side: int, patch: int, fit: Literal["squash", "aspect"]
) -> float:
    """Side in original pixels of the smallest flaw worth expecting to find: what one patch covers.

    ``size``: side of the tiles, None = untiled; ``side``: pixels at which pictures are prepared; the longer
    direction counts where a patch covers more of one. It is a limit of sampling, not a promise: a patch is
    the smallest thing the model names, and a flaw of half its side fills a quarter of it. Strong ones below
    this may be found, faint ones well above it missed. Never less than one pixel.
    """
    tall, broad = (height, width) if size is None else (min(height, size), min(width, size))
    longer, aspect = max(tall, broad), max(tall, broad) / min(tall, broad)
    stretch = math.sqrt(min(aspect, MAX_ASPECT)) if fit == "aspect" else 1.0
    return max(1.0, longer * patch / (side * stretch))


def combine(scores: npt.ArrayLike, *, power: float) -> npt.NDArray[np.float64]:
    """One image score (or one for each type) from the scores (n,) or (n, k) of n tiles, probabilities.

    The more tiles, the more chances that one of a good part scores high by accident: the maximum (``power``
    = inf) of n tiles raises false alarms up to n times. Here: the power mean of the odds,

        odds = (mean of odds_i ** power) ** (1 / power), so logit <= max logit, >= max logit - log(n) / power.

    ``power`` = 1, the mean of the odds, is Bayes' rule for one flaw that is equally likely in each tile. Odds
    over prior odds are likelihood ratios, whose mean over good parts is 1 whatever n, so by Markov's
    inequality a good part exceeds the level 1/a with probability at most a, also where tiles overlap and
    depend on one another. Price: one lone tile loses log(n). That is right for scores that are probabilities.
    Logits of good tiles whose tail falls faster, as exp(-logit / b) with b < 1, need less: ``power`` = 1 / b
    keeps their false alarms within a constant for every n, where b is measured on good parts (mean excess of
    their tiles' logits over a high quantile).

    A threshold calibrated on good parts that were cut in the same way absorbs n by itself: the maximum then
    needs no correction. Lies between the lowest and the highest score; one tile keeps its score.
    Raises ``ValueError`` without scores, for scores outside 0 to 1, or a power below 1.
    """
    given = np.asarray(scores, dtype=np.float64)
    if given.ndim not in (1, 2) or 0 in given.shape or not ((given >= 0) & (given <= 1)).all():
        raise ValueError(f"expected scores (n,) or (n, k) from 0 to 1, at least one; came {given!r:.80}")
    if not power >= 1:
        raise ValueError(f"expected a power of at least 1, came {power}")
    low, high = given.min(axis=0), given.max(axis=0)
    if math.isinf(power):
        return np.asarray(high)
    sure = given.clip(CERTAIN, 1 - CERTAIN)
    logits = np.log(sure) - np.log1p(-sure)
    mean = np.logaddexp.reduce(power * logits, axis=0) - math.log(len(given))
    return np.asarray((1 / (1 + np.exp(-mean / power))).clip(low, high))
