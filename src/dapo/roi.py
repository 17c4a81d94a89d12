"""Roi: the region of interest, the part of every picture that is inspected.

In: a black and white picture (white is inspected) or a polygon, in pixels or in shares of the picture. Out: a
bool mask (h, w) for a picture of any size. NumPy and Pillow only.

Polygon points are (x, y), x to the right and y downwards; (0, 0) is the outer corner of the first pixel and
(w, h) that of the last. Points that all lie within 0 to 1 are shares of the width and the height.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from dapo.errors import ConfigError, InputError
from dapo.images import load_image
from dapo.masks import fill_ring

__all__ = ["Roi", "apply", "bounds", "resize_mask"]

Mask: TypeAlias = npt.NDArray[np.bool_]
Point: TypeAlias = "tuple[float, float]"

ASPECT_SLACK = 0.02  # by how much the aspect of a mask and its picture may differ: rounded thumbnails
GREY_SHARE = 0.05  # of a mask's pixels that may be neither dark nor bright: smoothed edges
_POLYGON = re.compile(r"[-+.,;\s\deE]*,[-+.,;\s\deE]*")  # numbers and a comma: no file is called that


@dataclass(frozen=True, eq=False)
class Roi:
    """A region of interest. Make one with `from_mask`, `from_polygon` or `parse`."""

    name: str  # what messages call it
    points: tuple[Point, ...] = ()
    drawn: Mask | None = None  # (h, w), instead of points
    file: str | None = None  # where it was drawn

    @property
    def text(self) -> str | None:
        """What `parse` reads it back from; None for an array."""
        return self.file or " ".join(f"{x:g},{y:g}" for x, y in self.points) or None

    @classmethod
    def from_mask(cls, source: str | os.PathLike[str] | Mask) -> Roi:
        """From a picture file, white on black, or a bool array (h, w).

        Brighter than half of the brightest pixel counts as inside, so 0 and 1 or 0 and 255 both do;
        transparent is white. Raises ``ConfigError`` for a file that cannot be read, is not black and white,
        or marks nothing.
        """
        if isinstance(source, np.ndarray):
            if source.dtype != np.bool_ or source.ndim != 2:
                came = f"{source.dtype} {source.shape}"
                raise ConfigError(f"roi: expected a bool array (h, w), came {came}; pass array > 0")
            return cls("the array", drawn=_marked(source.copy(), "the array"))
        name = f"'{Path(source)}'"
        try:
            bright = load_image(source).max(axis=2)
        except InputError as error:
            raise ConfigError(f"roi: the mask cannot be read. {error.message}") from error
        top = int(bright.max())
        grey = float(((bright > 0.25 * top) & (bright < 0.75 * top)).mean())
        if grey > GREY_SHARE:
            came = f"{grey:.0%} of it grey"
            raise ConfigError(
                f"roi: expected {name} in black and white, came {came}; white is what is inspected"
            )
        return cls(name, drawn=_marked(bright > top / 2, name), file=os.fspath(source))

    @classmethod
    def from_polygon(cls, points: Iterable[Iterable[float]]) -> Roi:
        """From three or more points (x, y); ``ConfigError`` for fewer, for other values, or without area."""
        try:
            corners = tuple((float(x), float(y)) for x, y in points)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"roi: expected points (x, y), two numbers each; {error}") from error
        if len(corners) < 3:
            raise ConfigError(f"roi: expected a polygon of at least 3 points, came {len(corners)}; add some")
        for x, y in corners:
            if not (math.isfinite(x) and math.isfinite(y) and x >= 0 and y >= 0):
                raise ConfigError(
                    f"roi: expected points inside the picture, came ({x:g}, {y:g}); start at (0, 0)"
                )
        if _flat(corners):
            raise ConfigError(
                "roi: expected a polygon with an area, came points on one line; move one of them"
            )
        return cls("the polygon", points=corners)

    @classmethod
    def parse(cls, text: str) -> Roi:
        """From what is typed: a mask file, or points as "x0,y0 x1,y1 x2,y2" (";" also divides them)."""
        if not text.strip():
            raise ConfigError('roi: expected a mask file or points as "x0,y0 x1,y1 x2,y2", came nothing')
        if _POLYGON.fullmatch(text) is None:
            return cls.from_mask(text)
        pairs = [pair.split(",") for pair in re.split(r"[\s;]+", text.strip(" \t\n;"))]
        wrong = [",".join(pair) for pair in pairs if len(pair) != 2]
        if wrong:
            wanted = 'points as "x0,y0 x1,y1 x2,y2"'
            raise ConfigError(f"roi: expected {wanted}, came {wrong[0]!r}; write no blank at a comma")
        return cls.from_polygon([(_number(x), _number(y)) for x, y in pairs])

    def mask(self, height: int, width: int) -> Mask:
        """What is inspected of a picture, bool (height, width), read-only.

        A drawn mask of another size is resized (nearest). Raises ``InputError`` of kind "shape" for a picture
        whose aspect differs from the mask's by more than 2 %, that does not hold every point, or of which
        nothing is left.
        """
        inside = self._filled(height, width) if self.drawn is None else self._fitted(height, width)
        if not inside.any():
            advice = "draw a larger region"
            raise _misfit(f"a picture with pixels inside {self.name}", height, width, advice)
        inside.flags.writeable = False
        return inside

    def _filled(self, height: int, width: int) -> Mask:
        ring = np.array(self.points)
        if ring.max() <= 1:
            ring = ring * (width, height)
        x, y = ring.max(axis=0)
        if x > width or y > height:
            wanted = f"a picture that holds {self.name}, up to x = {x:g}, y = {y:g}"
            raise _misfit(wanted, height, width, "points from 0 to 1 are shares and fit any size")
        return fill_ring(ring, height, width)

    def _fitted(self, height: int, width: int) -> Mask:
        assert self.drawn is not None
        rows, columns = self.drawn.shape
        drift = (width * rows) / (height * columns)
        if max(drift, 1 / drift) > 1 + ASPECT_SLACK:
            wanted = f"a picture of the aspect of {self.name}, {columns} x {rows}"
            raise _misfit(wanted, height, width, "draw the mask on one of these pictures")
        return resize_mask(self.drawn, height, width)


def resize_mask(mask: Mask, height: int, width: int) -> Mask:
    """The mask (h, w) at another size: each pixel takes the nearest one."""
    if mask.shape == (height, width):
        return mask
    row = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(np.intp)
    column = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(np.intp)
    return mask[row[:, None], column]


def apply(maps: npt.NDArray[Any], mask: Mask) -> npt.NDArray[np.float32]:
    """The maps (h, w) or (k, h, w) with 0 outside the mask (h, w): a copy."""
    if maps.shape[-2:] != mask.shape or maps.ndim not in (2, 3):
        raise ValueError(f"expected maps and mask of one size (h, w), came {maps.shape} and {mask.shape}")
    return np.where(mask, maps, 0).astype(np.float32, copy=False)


def bounds(mask: Mask) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the smallest rectangle that holds the mask; ``ValueError`` if empty."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        raise ValueError("expected a mask that marks something, came an empty one")
    top, left = int(rows[0]), int(columns[0])
    return top, left, int(rows[-1]) - top + 1, int(columns[-1]) - left + 1


def _marked(mask: Mask, name: str) -> Mask:
    """The mask, read-only; ``ConfigError`` if it marks nothing."""
    if not mask.any():
        raise ConfigError(f"roi: expected {name} to mark the region in white, came all black; draw it")
    mask.flags.writeable = False
    return mask


def _flat(points: tuple[Point, ...]) -> bool:
    """Whether all points lie on one line."""
    ring = np.array(points) - points[0]
    far = ring[np.argmax(np.abs(ring).sum(axis=1))]
    offset = ring[:, 0] * far[1] - ring[:, 1] * far[0]
    return bool((np.abs(offset) <= 1e-9 * max(float(far @ far), 1e-300)).all())


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigError(f"roi: expected a number, came {text!r}; write points as x,y") from None


def _misfit(expected: str, height: int, width: int, advice: str) -> InputError:
    came = f"{width} x {height} (width x height)"
    return InputError(f"roi: expected {expected}, came {came}; {advice}", "shape")
