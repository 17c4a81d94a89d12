"""Masks: boolean pictures as run lengths and as outlines.

In: bool (h, w). Out: COCO's run-length encoding, as numbers or as its compressed string, or closed rings of
points; and all ways back. Coordinates are pixel corners: the pixel in column x, row y covers [x, x + 1] x
[y, y + 1], so a ring may touch x = w and y = h.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

import numpy as np
import numpy.typing as npt
from scipy import ndimage

__all__ = [
    "RunLengths",
    "decode_compressed_rle",
    "decode_rle",
    "encode_compressed_rle",
    "encode_rle",
    "fill_ring",
    "ring_area",
    "simplify",
    "trace_outlines",
]

Mask = npt.NDArray[np.bool_]
Ring = npt.NDArray[np.float64]

EIGHT = np.ones((3, 3), dtype=bool)  # diagonal neighbours belong together
TOLERANCE = 0.5  # pixels: how far a simplified ring may lie from the traced one
MAX_GROUPS = 7  # of 5 bits: more than any picture has pixels
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


def decode_compressed_rle(text: str | bytes, height: int, width: int) -> Mask:
    """The bool (height, width) mask of COCO's compressed run lengths; ValueError for any other string.

    Each number is written in groups of 5 bits, lowest first, as characters from "0" on; 32 marks that more
    follow, 16 in the last group the sign. From the fourth number on it is the difference to the one two
    places before (the string format of the COCO API).
    """
    raw = text.encode("ascii", "replace") if isinstance(text, str) else text
    groups = np.frombuffer(raw, dtype=np.uint8).astype(np.int64) - ord("0")
    last = groups & 32 == 0
    if groups.size == 0 or not last[-1] or (groups < 0).any() or (groups > 63).any():
        raise ValueError(
            f"compressed run lengths must be characters from 0 to o and end a number; got {text!r:.60}"
        )
    starts = np.flatnonzero(np.concatenate([[True], last[:-1]]))
    lengths = np.diff(starts, append=groups.size)
    if lengths.max() > MAX_GROUPS:
        raise ValueError(f"a compressed run length is longer than any picture; got {text!r:.60}")
    place = np.arange(groups.size) - np.repeat(starts, lengths)
    counts = np.add.reduceat((groups & 31) << 5 * place, starts)
    counts -= np.where(groups[last] & 16, 1 << 5 * lengths, 0)
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    return decode_rle({"size": [height, width], "counts": counts.tolist()})


def encode_compressed_rle(rle: RunLengths) -> str:
    """COCO's compressed string of run lengths; ``decode_compressed_rle`` tells its form."""
    counts, text = rle["counts"], []
    for place, count in enumerate(counts):
        number, more = count - counts[place - 2] if place > 2 else count, True
        while more:
            group, number = number & 31, number >> 5
            more = number != (-1 if group & 16 else 0)
            text.append(chr(ord("0") + group + 32 * more))
    return "".join(text)


def fill_ring(ring: Ring, height: int, width: int) -> Mask:
    """The pixels (height, width) whose middle lies inside the closed ring (n, 2) of (x, y), even-odd.

    A ring too thin to hold any middle marks the pixels its line runs through instead, so no flaw gets lost.
    """
    x, y = ring[:, 0] - 0.5, ring[:, 1] - 0.5  # so that middles are whole numbers
    x_next, y_next = np.roll(x, -1), np.roll(y, -1)
    first = np.ceil(np.minimum(y, y_next)).clip(0, height).astype(np.int64)
    count = np.ceil(np.maximum(y, y_next)).clip(0, height).astype(np.int64) - first  # rows each edge crosses
    edge = np.repeat(np.arange(len(ring)), count)
    row = np.arange(edge.size) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    crossing = x[edge] + (row - y[edge]) * (x_next - x)[edge] / (y_next - y)[edge]
    column = np.ceil(crossing).clip(0, width).astype(np.int64)
    filled: Mask = np.zeros((height, width + 1), dtype=np.bool_)  # one byte a pixel: pictures are large
    np.logical_xor.at(filled, (row, column), True)
    np.logical_xor.accumulate(filled, axis=1, out=filled)
    filled = filled[:, :-1]
    return filled if filled.any() else _traced(ring, height, width)


def _traced(ring: Ring, height: int, width: int) -> Mask:
    """The pixels the closed line runs through, sampled twice a pixel."""
    ring = ring.clip(-1, (width + 1, height + 1))  # what lies far outside costs nothing
    after = np.roll(ring, -1, axis=0)
    steps = np.ceil(np.abs(after - ring).max(axis=1) * 2).astype(np.int64) + 1
    edge = np.repeat(np.arange(len(ring)), steps)
    share = (np.arange(edge.size) - np.repeat(np.cumsum(steps) - steps, steps)) / steps[edge]
    points = np.floor(ring[edge] + share[:, None] * (after - ring)[edge]).astype(np.int64)
    inside = ((points >= 0) & (points < (width, height))).all(axis=1)
    mask = np.zeros((height, width), dtype=np.bool_)
    mask[points[inside, 1], points[inside, 0]] = True
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
