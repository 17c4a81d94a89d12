"""Masks: boolean pictures as run lengths and as outlines.

In: bool (h, w). Out: COCO's uncompressed run-length encoding, or closed rings of points. Coordinates are
pixel corners: the pixel in column x, row y covers [x, x + 1] x [y, y + 1], so a ring may touch x = w and y =
h.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = ["RunLengths", "decode_rle", "encode_rle", "ring_area", "simplify", "trace_outlines"]

Mask = npt.NDArray[np.bool_]
Ring = npt.NDArray[np.float64]

EIGHT = np.ones((3, 3), dtype=bool)  # diagonal neighbours belong together
TOLERANCE = 0.5  # pixels: how far a simplified ring may lie from the traced one
AREA_DRIFT = 0.02  # of the area: a simplification that changes more is refused


class RunLengths(TypedDict):
    """COCO's uncompressed RLE: ``counts`` alternate clear and set pixels down the columns, clear first."""

    size: list[int]  # [height, width]
    counts: list[int]


def encode_rle(
    mask: Mask, size: tuple[int, int] | None = None, offset: tuple[int, int] = (0, 0)
) -> RunLengths:
    """Run lengths of ``mask`` (h, w) placed with its corner at ``offset`` (x, y) in a picture of ``size`` (h,
    w).

    Without ``size`` the mask is the whole picture. The large picture is never made.
    """
    height, width = size if size is not None else mask.shape
    x, y = offset
    if x < 0 or y < 0 or y + mask.shape[0] > height or x + mask.shape[1] > width:
        raise ValueError(f"a mask of {mask.shape} at {offset} must lie inside a picture of {(height, width)}")
    columns = np.zeros((mask.shape[1], mask.shape[0] + 2), dtype=np.int8)
    columns[:, 1:-1] = mask.T
    steps = np.diff(columns, axis=1)
    column, row = np.nonzero(steps == 1)
    starts = (column + x) * height + row + y
    column, row = np.nonzero(steps == -1)
    ends = (column + x) * height + row + y
    fresh = np.ones(starts.size, dtype=bool)
    fresh[1:] = starts[1:] != ends[:-1]  # a run that fills a column to its foot goes on in the next one
    last = np.ones(ends.size, dtype=bool)
    last[:-1] = fresh[1:]
    bounds = np.stack([starts[fresh], ends[last]], axis=1).ravel()
    counts = np.diff(bounds, prepend=0, append=height * width)
    if counts.size > 1 and counts[-1] == 0:
        counts = counts[:-1]
    return {"size": [int(height), int(width)], "counts": [int(count) for count in counts]}


def decode_rle(rle: RunLengths) -> Mask:
    """The bool (h, w) mask of ``rle``; counts that do not fill the picture are a ValueError."""
    height, width = rle["size"]
    counts = np.asarray(rle["counts"], dtype=np.int64)
    if (counts < 0).any() or int(counts.sum()) != height * width:
        raise ValueError(
            f"run lengths must add up to {height} x {width} pixels; they add up to {int(counts.sum())}"
        )
    values = np.arange(counts.size) % 2 == 1
    mask: Mask = np.repeat(values, counts).reshape(width, height).T
    return mask


def ring_area(ring: Ring) -> float:
    """Area inside a closed ring (n, 2) of (x, y) points: the shoelace formula, never negative."""
    x, y = ring[:, 0], ring[:, 1]
    return float(abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2)


def trace_outlines(mask: Mask, *, holes: bool = False) -> list[Ring]:
    """Closed rings (n, 2) of (x, y) around each 8-connected part of ``mask``, largest first.

    A ring runs through the middles of the pixel edges, which costs half a pixel of area in all, and is then
    simplified by at most ``TOLERANCE``; where that would change the area by more than ``AREA_DRIFT`` (specks,
    lines one pixel wide) the exact corners are kept. With ``holes`` the rings around holes follow those of
    the parts.
    """
    rings = [ring for part, x, y in _parts(mask, EIGHT) for ring in [_ring(part, x, y)]]
    rings.sort(key=ring_area, reverse=True)
    if holes:
        clear = np.pad(~mask, 1, constant_values=True)
        inside = [(part, x - 1, y - 1) for part, x, y in _parts(clear, None) if (x, y) != (0, 0)]
        rings += [_ring(part, x, y) for part, x, y in inside]
    return rings


def _parts(mask: Mask, structure: Mask | None) -> Iterator[tuple[Mask, int, int]]:
    """Each connected part as (cropped mask, x, y)."""
    labels, _ = ndimage.label(mask, structure=structure)
    for index, window in enumerate(ndimage.find_objects(labels), start=1):
        yield labels[window] == index, window[1].start, window[0].start


def _ring(part: Mask, x: int, y: int) -> Ring:
    corners = _walk(part)
    exact = corners[np.any(np.roll(corners, 1, axis=0) + np.roll(corners, -1, axis=0) != 2 * corners, axis=1)]
    middles = (corners + np.roll(corners, -1, axis=0)) / 2
    smooth = simplify(middles, TOLERANCE)
    area = ring_area(exact)
    ring = smooth if len(smooth) > 3 and abs(ring_area(smooth) - area) <= AREA_DRIFT * area else exact
    return ring + np.array([x, y], dtype=np.float64)


def _walk(part: Mask) -> Ring:
    """Every lattice corner along the outer edge of one 8-connected part, clockwise, one pixel edge at a time.

    The part stays on the right hand. At a corner the pixel ahead on the left is asked first, then the one
    ahead on the right: set on the left = turn left, set on the right = straight on, else turn right.
    """
    stride = part.shape[1] + 2
    pixels = np.pad(part, 1).tobytes()
    ahead = ((-stride, 0), (0, -1), (-1, -stride - 1), (-stride - 1, -stride))  # (left, right) for E, S, W, N
    step = (1, stride, -1, -stride)
    start = stride + 1 + int(np.argmax(part[0]))  # the corner above the leftmost pixel of the first row
    at, heading, path = start, 0, []
    while True:
        path.append(at)
        at += step[heading]
        if at == start:
            break
        left, right = ahead[heading]
        if pixels[at + left]:
            heading = (heading - 1) % 4
        elif not pixels[at + right]:
            heading = (heading + 1) % 4
    y, x = np.divmod(np.array(path), stride)
    return np.stack([x - 1, y - 1], axis=1).astype(np.float64)


def simplify(ring: Ring, tolerance: float) -> Ring:
    """Fewer points, no dropped one further than ``tolerance`` from the new ring (Douglas-Peucker)."""
    far = int(np.argmax(np.abs(ring - ring[0]).sum(axis=1)))
    closed = np.concatenate([ring, ring[:1]])
    keep = np.zeros(len(closed), dtype=bool)
    keep[[0, far, len(ring)]] = True
    todo = [(0, far), (far, len(ring))]
    while todo:
        first, last = todo.pop()
        if last - first < 2:
            continue
        along = closed[last] - closed[first]
        span = closed[first + 1 : last] - closed[first]
        distance = np.abs(span[:, 0] * along[1] - span[:, 1] * along[0]) / max(float(np.hypot(*along)), 1e-9)
        worst = int(np.argmax(distance))
        if distance[worst] > tolerance:
            middle = first + 1 + worst
            keep[middle] = True
            todo += [(first, middle), (middle, last)]
    return closed[:-1][keep[:-1]]
