"""Maps to typed regions: where the flaws are, and which type each one is.

In: an anomaly map (h, w) and one map (h, w) for each defect type, all in [0, 1]. Out: ``Region``s, highest
score first. Parts are 8-connected, as in the evaluation of AUPRO. The order in which types are given changes
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from dapo.inspection import UNKNOWN, Region
from dapo.masks import EIGHT

__all__ = ["find_regions"]

Map = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.int64]

TOP_SHARE = 0.1  # of a region's pixels: the most anomalous ones, whose mean is the region's score
PIECE_SHARE = 0.15  # of a part's pixels: a piece of another type smaller than this joins its neighbour
PIECE_LEAD = 0.1  # mean probability by which a piece's own type must lead the other pieces' types


def find_regions(
    anomaly_map: Map,
    type_maps: Mapping[str, Map],
    *,
    threshold: float,
    low: float | None = None,
    min_area_px: int = 1,
    unknown_below: float = 0.0,
) -> tuple[Region, ...]:
    """Typed regions of the pixels above ``threshold``, grown to the connected pixels above ``low``.

    A region's type has the largest mean in its type map, weighted by the anomaly map; ``unknown`` when no
    type map is given, all are zero there, or that mean is less than ``unknown_below`` of the region's mean
    anomaly. A part whose pixels belong to clearly different types is split between them; small pieces join
    their neighbours. Regions of fewer than ``min_area_px`` pixels are left out.
    """
    low = threshold if low is None else low
    if low > threshold:
        raise ValueError(f"low must not be above threshold, {threshold}; got {low}")
    names = sorted(type_maps)
    for name in names:
        if type_maps[name].shape != anomaly_map.shape:
            raise ValueError(
                f"the map of type {name!r} must have the anomaly map's size {anomaly_map.shape} (h, w); "
                f"got {type_maps[name].shape}"
            )
    anomaly = np.ascontiguousarray(anomaly_map).ravel()
    flat_maps = [np.ascontiguousarray(type_maps[name]).ravel() for name in names]
    found = []
    for part, x, y in _parts(anomaly_map, threshold, low, min_area_px):
        rows, columns = np.nonzero(part)
        pixels = (rows + y) * anomaly_map.shape[1] + columns + x
        values = anomaly[pixels]
        types = np.stack([flat[pixels] for flat in (*flat_maps, anomaly)])[:-1]  # (k, n); k may be 0
        for piece in _split(part, types, min_area_px):
            inside = slice(None) if piece is part else piece[part]
            name, margin = _name(values[inside], types[:, inside], names, unknown_below)
            at = (columns[inside] + x, rows[inside] + y)
            found.append(_region(at, values[inside], name, margin, anomaly_map.shape))
    found.sort(key=lambda region: (-region.score, -region.area_px, region.bbox))
    return tuple(replace(region, id=index) for index, region in enumerate(found, start=1))


def _parts(
    anomaly_map: Map, threshold: float, low: float, min_area_px: int
) -> Iterator[tuple[Mask, int, int]]:
    """Connected parts above ``low`` that reach above ``threshold``: (cropped mask, x, y)."""
    labels, count = ndimage.label(anomaly_map > low, structure=EIGHT)
    if not count:
        return
    area = np.bincount(labels.ravel(), minlength=count + 1)
    peaks = np.bincount(labels[anomaly_map > threshold], minlength=count + 1)
    wanted = (area >= min_area_px) & (peaks > 0)
    for index, window in enumerate(ndimage.find_objects(labels), start=1):
        if wanted[index]:
            yield labels[window] == index, window[1].start, window[0].start


def _split(part: Mask, types: Map, min_area_px: int) -> list[Mask]:
    """``part`` (h, w), or its pieces if its pixels, with type values (k, n), clearly are of several types."""
    if len(types) < 2:
        return [part]
    smallest = max(min_area_px, PIECE_SHARE * types.shape[1], 2)
    best = types.argmax(axis=0)
    candidates = np.flatnonzero(np.bincount(best, minlength=len(types)) >= smallest)
    if candidates.size < 2:
        return [part]
    best = types[candidates].argmax(axis=0)
    lead = types[candidates]
    winner = np.zeros(part.shape, dtype=np.int32)  # 0 outside, candidate's number + 1 inside
    winner[part] = best + 1
    pieces = np.zeros(part.shape, dtype=np.int32)
    owner = [0]  # candidate's number + 1, by piece
    for number in range(candidates.size):
        labels, count = ndimage.label(winner == number + 1, structure=EIGHT)
        area = np.bincount(labels.ravel(), minlength=count + 1)
        for index in np.flatnonzero(area[1:] >= smallest) + 1:
            piece = labels == index
            means = lead[:, piece[part]].mean(axis=1)
            if means[number] - np.delete(means, number).max() >= PIECE_LEAD:
                pieces[piece] = len(owner)
                owner.append(number + 1)
    if len(set(owner)) < 3:
        return [part]
    typed = np.array(owner)[_join(part, pieces)]
    return [
        labels == index
        for number in sorted(set(owner[1:]))
        for labels, count in [ndimage.label(typed == number, structure=EIGHT)]
        for index in range(1, count + 1)
    ]


def _join(part: Mask, pieces: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """``pieces`` (0 = none) with each connected rest of ``part`` given to the piece it touches most."""
    rest, count = ndimage.label(part & (pieces == 0), structure=EIGHT)
    if not count:
        return pieces
    wide_rest, wide_pieces = np.pad(rest, 1), np.pad(pieces, 1)
    columns = int(pieces.max()) + 1
    contact = np.zeros((count + 1) * columns, dtype=np.int64)
    for down, right in ((0, 1), (1, -1), (1, 0), (1, 1), (0, -1), (-1, 1), (-1, 0), (-1, -1)):
        neighbour = np.roll(wide_pieces, (down, right), axis=(0, 1))
        touching = (wide_rest > 0) & (neighbour > 0)
        contact += np.bincount(wide_rest[touching] * columns + neighbour[touching], minlength=contact.size)
    heir = contact.reshape(count + 1, columns).argmax(axis=1)
    return np.where(pieces > 0, pieces, heir[rest]).astype(np.int32)


def _name(values: Map, types: Map, names: Sequence[str], unknown_below: float) -> tuple[str, float]:
    """Type and margin of the pixels with anomaly ``values`` (n,) and type values ``types`` (k, n)."""
    if not names:
        return UNKNOWN, 0.0
    weights = values / max(float(values.sum()), 1e-12)
    means = types @ weights
    order = np.argsort(-means, kind="stable")  # names are sorted: equal means fall to the first name
    best = float(means[order[0]])
    if best <= 0 or best < unknown_below * float(values @ weights):
        return UNKNOWN, 0.0
    runner_up = float(means[order[1]]) if len(names) > 1 else 0.0
    return names[order[0]], min(best - runner_up, 1.0)


def _region(
    at: tuple[Pixels, Pixels], values: Map, name: str, margin: float, size: tuple[int, ...]
) -> Region:
    """The region of the pixels ``at`` (columns, rows), with anomaly ``values`` (n,), in an image (h, w)."""
    columns, rows = at
    left, top = int(columns.min()), int(rows.min())
    width, height = int(columns.max()) - left + 1, int(rows.max()) - top + 1
    crop = np.zeros((height, width), dtype=bool)
    crop[rows - top, columns - left] = True
    strongest = max(1, round(TOP_SHARE * values.size))
    score = float(np.partition(values, values.size - strongest)[-strongest:].mean())
    return Region(
        id=0,
        type=name,
        score=min(max(score, 0.0), 1.0),
        margin=margin,
        bbox=(left, top, width, height),
        area_px=int(values.size),
        centroid=(float(columns.mean()) + 0.5, float(rows.mean()) + 0.5),
        crop=crop,
        size=(size[0], size[1]),
    )
