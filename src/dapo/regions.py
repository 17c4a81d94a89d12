"""Maps to typed regions: where the flaws are, and which type each one is.

In: an anomaly map (h, w) and one map (h, w) for each defect type, all in [0, 1]; for a large image they may
be smaller than the image. Out: ``Region``s in pixels of the image, highest score first, no pixel in two.
Parts are 8-connected, as in the evaluation of AUPRO. The order in which types are given changes nothing.

A flaw may come out in fragments. Those of one type are one region where the gap is at most half as long as
the smaller of them and the map stays above ``bridge`` between them. ``python benchmarks/regions.py``,
embedded model, generated parts: of the flaws found 6.4 % come in several regions instead of 8.5 %, and a good
part has 0.54 false regions instead of 0.55; at 640 px in tiles of 256, with version 0.1: 30 %, not 32 %,
2.7, not 3.0. As many flaws are found; 12 regions, of some 170, cover two flaws either way. Joining across
longer gaps, growing all regions (``low``) or keeping smaller ones finds more flaws whole, and takes
more good surface for flaws.

A region is ``unknown`` where another name would fit better than every name that was given: the map
``unknown`` (``Detector``, ``Scores.unknown``) tells for each pixel how far a background of common types is
ahead. It is a weak hint. Measured on the embedded model (``python benchmarks/unknown.py``): of regions on
flaws without a name 53 % of the generated ones and 28 % of those on magnetic tiles come out unknown, of
regions on named flaws 7 % and 11 %; AUROC 0.85 and 0.64. A lead of the best name that is small, or a small
share in the anomaly, tell less (0.68, 0.58 and 0.65, 0.59).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

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
REACH = 0.5  # of a fragment's length: how long a gap it is joined across
PIECE_SHARE = 0.15  # of a part's pixels: a piece of another type smaller than this joins its neighbour
PIECE_LEAD = 0.15  # mean probability by which a piece's own type must lead the other pieces' types


def find_regions(
    anomaly_map: Map,
    type_maps: Mapping[str, Map],
    *,
    threshold: float,
    low: float | None = None,
    bridge: float | None = None,
    min_area_px: int = 1,
    size: tuple[int, int] | None = None,
    unknown: Map | None = None,
    unknown_above: float = 1.0,
) -> tuple[Region, ...]:
    """Typed regions of the pixels above ``threshold``, grown to the connected pixels above ``low``, those of
    one type joined across small gaps above ``bridge`` (None: never).

    A region's type has the largest mean in its type map, weighted by the anomaly map; ``unknown`` (margin 0)
    when no type map is given, all are zero there, or the mean of the map ``unknown``, weighted alike, reaches
    ``unknown_above``. A part whose pixels belong to clearly different types is split between them; small
    pieces join their neighbours.

    size: (h, w) of the image, if the maps are smaller: each pixel of the image is in the region of the map's
    pixel that it lies in. min_area_px: smallest region, in pixels of the image.
    """
    low = threshold if low is None else low
    if low > threshold:
        raise ValueError(f"low must not be above threshold, {threshold}; got {low}")
    if bridge is not None and bridge > low:
        raise ValueError(f"bridge must not be above low, {low}; got {bridge}")
    names = sorted(type_maps)
    _check_sizes(anomaly_map, {**type_maps, UNKNOWN: anomaly_map if unknown is None else unknown})
    grid = _Grid.of(anomaly_map.shape, anomaly_map.shape if size is None else size)
    anomaly = np.ascontiguousarray(anomaly_map).ravel()
    foreign = None if unknown is None else np.ascontiguousarray(unknown).ravel()
    flat_maps = [np.ascontiguousarray(type_maps[name]).ravel() for name in names]

    def judged(pixels: Pixels) -> tuple[str, float]:
        values = anomaly[pixels]
        weights = values / max(float(values.sum()), 1e-12)
        if foreign is not None and float(foreign[pixels] @ weights) >= unknown_above:
            return UNKNOWN, 0.0
        return _name(weights, _stacked(flat_maps, pixels), names)

    pieces = []
    for part, x, y in _parts(anomaly_map, threshold, low, min_area_px, grid):
        rows, columns = np.nonzero(part)
        pixels = (rows + y) * anomaly_map.shape[1] + columns + x
        types = _stacked(flat_maps, pixels)
        pieces += [pixels[piece[part]] for piece in _split(part, types, min_area_px, grid.area(part, x, y))]
    if bridge is not None and len(pieces) > 1:
        pieces = _joined(pieces, [judged(piece)[0] for piece in pieces], anomaly_map > bridge)
    width = anomaly_map.shape[1]
    found = [
        _region((piece % width, piece // width), anomaly[piece], *judged(piece), grid) for piece in pieces
    ]
    found.sort(key=lambda region: (-region.score, -region.area_px, region.bbox))
    return tuple(replace(region, id=index) for index, region in enumerate(found, start=1))


@dataclass(frozen=True)
class _Grid:
    """Where the image's rows and columns lie on the maps."""

    row: Pixels  # the map's row of each of the image's rows
    column: Pixels
    heights: Pixels  # how many of the image's rows lie in each row of the maps
    widths: Pixels

    @classmethod
    def of(cls, shape: tuple[int, ...], size: tuple[int, int] | tuple[int, ...]) -> _Grid:
        if size[0] < shape[0] or size[1] < shape[1]:
            raise ValueError(f"size must be at least that of the maps, {shape} (h, w); got {size}")
        row, column = (
            ((2 * np.arange(pixels) + 1) * cells // (2 * pixels)).astype(np.int64)
            for pixels, cells in zip(size, shape, strict=True)
        )
        return cls(row, column, np.bincount(row, minlength=shape[0]), np.bincount(column, minlength=shape[1]))

    def area(self, part: Mask, x: int, y: int) -> Pixels:
        """Pixels of the image in each pixel of ``part``, whose corner is (x, y) on the maps."""
        height, width = part.shape
        return np.outer(self.heights[y : y + height], self.widths[x : x + width])

    def enlarge(self, crop: Mask, x: int, y: int) -> tuple[Mask, int, int]:
        """``crop``, whose corner is (x, y) on the maps, in pixels of the image, and its corner there."""
        height, width = crop.shape
        rows = np.flatnonzero((self.row >= y) & (self.row < y + height))
        columns = np.flatnonzero((self.column >= x) & (self.column < x + width))
        inside = np.ix_(self.row[rows] - y, self.column[columns] - x)
        return crop[inside], int(columns[0]), int(rows[0])


def _check_sizes(anomaly_map: Map, maps: Mapping[str, Map]) -> None:
    for name, values in maps.items():
        if values.shape != anomaly_map.shape:
            raise ValueError(
                f"the map of type {name!r} must have the anomaly map's size {anomaly_map.shape} (h, w); "
                f"got {values.shape}"
            )


def _parts(
    anomaly_map: Map, threshold: float, low: float, min_area_px: int, grid: _Grid
) -> Iterator[tuple[Mask, int, int]]:
    """Connected parts above ``low`` that reach above ``threshold``: (cropped mask, x, y)."""
    labels, count = ndimage.label(anomaly_map > low, structure=EIGHT)
    if not count:
        return
    peaks = np.bincount(labels[anomaly_map > threshold], minlength=count + 1)
    for index, window in enumerate(ndimage.find_objects(labels), start=1):
        if peaks[index]:
            part, x, y = labels[window] == index, window[1].start, window[0].start
            if grid.area(part, x, y)[part].sum() >= min_area_px:
                yield part, x, y


def _split(part: Mask, types: Map, min_area_px: int, pixel_area: Pixels) -> list[Mask]:
    """``part`` (h, w), or its pieces if its pixels, with type values (k, n), clearly are of several types.

    Each pixel of the part is ``pixel_area`` (h, w) pixels of the image.
    """
    if len(types) < 2:
        return [part]
    weight = pixel_area[part]
    smallest = max(min_area_px, PIECE_SHARE * float(weight.sum()), 2)
    best = types.argmax(axis=0)
    candidates = np.flatnonzero(np.bincount(best, weight, len(types)) >= smallest)
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
        area = np.bincount(labels.ravel(), pixel_area.ravel(), count + 1)
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


def _joined(pieces: Sequence[Pixels], names: Sequence[str], bridged: Mask) -> list[Pixels]:
    """``pieces`` (flat places on the map), with those of one name that are fragments of one flaw in one.

    A flaw's own name is kept: each piece's leads in the weighted mean of the whole.
    """
    width = bridged.shape[1]
    labels = ndimage.label(bridged, structure=EIGHT)[0].ravel()
    kinds = [(name, labels[piece[0]]) for name, piece in zip(names, pieces, strict=True)]
    numbers = {kind: number for number, kind in enumerate(dict.fromkeys(kinds))}
    kind = np.array([numbers[one] for one in kinds])
    span = np.stack([_span(piece, width) for piece in pieces])
    length = (span[:, 1] - span[:, 0]).max(axis=1) + 1
    flaw = np.arange(len(pieces))
    for one in range(len(pieces)):
        gap = np.maximum(span[one, 0] - span[:, 1], span[:, 0] - span[one, 1]).max(axis=1)  # of the boxes
        reach = np.minimum(length[one], length) * REACH
        close = (gap <= reach) & (kind == kind[one])
        close[: one + 1] = False
        for two in np.flatnonzero(close).tolist():
            if flaw[one] != flaw[two]:
                start = np.minimum(span[one, 0], span[two, 0])
                shape = np.maximum(span[one, 1], span[two, 1]) - start + 1
                if _distance(pieces[one], pieces[two], start, shape, width) <= reach[two]:
                    flaw[flaw == flaw[two]] = flaw[one]
    flaws: dict[int, list[Pixels]] = {}
    for piece, first in zip(pieces, flaw.tolist(), strict=True):
        flaws.setdefault(first, []).append(piece)
    return [np.sort(np.concatenate(parts)) for parts in flaws.values()]


def _span(piece: Pixels, width: int) -> Pixels:
    """((top, left), (bottom, right)) of flat places, inclusive."""
    rows, columns = piece // width, piece % width
    return np.array([[rows[0], columns.min()], [rows[-1], columns.max()]])


def _distance(one: Pixels, two: Pixels, start: Pixels, shape: Pixels, width: int) -> float:
    """Pixels between the nearest of two pieces, in a window at ``start`` that holds both."""
    far = np.ones(shape, dtype=bool)
    here, there = ((piece // width - start[0], piece % width - start[1]) for piece in (one, two))
    far[here] = False
    return float(ndimage.distance_transform_edt(far)[there].min())


def _stacked(flat_maps: Sequence[Map], pixels: Pixels) -> Map:
    """Type values (k, n) at flat places; k may be 0."""
    return np.array([flat[pixels] for flat in flat_maps], dtype=np.float32).reshape(-1, pixels.size)


def _name(weights: Map, types: Map, names: Sequence[str]) -> tuple[str, float]:
    """Type and margin of pixels with ``weights`` (n,) that add to one and type values ``types`` (k, n)."""
    if not names:
        return UNKNOWN, 0.0
    means = types @ weights
    order = np.argsort(-means, kind="stable")  # names are sorted: equal means fall to the first name
    best = float(means[order[0]])
    if best <= 0:
        return UNKNOWN, 0.0
    runner_up = float(means[order[1]]) if len(names) > 1 else 0.0
    return names[order[0]], min(best - runner_up, 1.0)


def _region(at: tuple[Pixels, Pixels], values: Map, name: str, margin: float, grid: _Grid) -> Region:
    """The region of the maps' pixels ``at`` (columns, rows), with anomaly ``values`` (n,), in the image."""
    columns, rows = at
    left, top = int(columns.min()), int(rows.min())
    small = np.zeros((int(rows.max()) - top + 1, int(columns.max()) - left + 1), dtype=bool)
    small[rows - top, columns - left] = True
    crop, x, y = grid.enlarge(small, left, top)
    across, down = crop.sum(axis=0), crop.sum(axis=1)  # pixels in each column and row
    area = int(across.sum())
    strongest = max(1, round(TOP_SHARE * values.size))
    score = float(np.partition(values, values.size - strongest)[-strongest:].mean())
    return Region(
        id=0,
        type=name,
        score=min(max(score, 0.0), 1.0),
        margin=margin,
        bbox=(x, y, crop.shape[1], crop.shape[0]),
        area_px=area,
        centroid=(
            x + float(across @ (np.arange(across.size) + 0.5)) / area,
            y + float(down @ (np.arange(down.size) + 0.5)) / area,
        ),
        crop=crop,
        size=(grid.row.size, grid.column.size),
    )
