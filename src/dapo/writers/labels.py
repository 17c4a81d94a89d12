"""Label placement: a place for each label beside its outline, none over another label.

In: label sizes and the outlines they belong to, in pixels of the picture, most important first. Out: one
corner for each label, or None where the picture is full. Greedy: each label takes its cheapest free place,
near its own outline and off the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["Box", "box_of", "nearest", "place_labels"]

Box = tuple[float, float, float, float]  # left, top, right, bottom
Points = npt.NDArray[np.float64]

STEP = 6.0  # pixels between the points of an outline that a label should not cover
COVER, CROSS, DISTANCE, RANK = (
    0.5,
    0.1,
    0.5,
    0.02,
)  # prices: of a box covered, a point covered, a label height, a rank


def place_labels(
    sizes: Sequence[tuple[int, int]], rings: Sequence[Points], picture: tuple[int, int], gap: int
) -> list[tuple[int, int] | None]:
    """Left top corners for labels of ``sizes`` (w, h) near ``rings`` (n, 2) inside a ``picture`` (w, h).

    Labels keep ``gap`` pixels apart.
    """
    if not rings:
        return []
    dense = [_dense(ring) for ring in rings]
    points = np.concatenate(dense)
    boxes = [box_of(ring) for ring in rings]
    placed: list[Box] = []
    corners: list[tuple[int, int] | None] = []
    for size, own, box in zip(sizes, dense, boxes, strict=True):
        corner = _place(size, own, box, boxes, points, placed, picture, gap)
        corners.append(corner)
        if corner is not None:
            x, y = corner
            placed.append((x - gap, y - gap, x + size[0] + gap, y + size[1] + gap))
    return corners


def box_of(ring: Points) -> Box:
    """The smallest box around a ring."""
    left, top = ring.min(axis=0)
    right, bottom = ring.max(axis=0)
    return float(left), float(top), float(right), float(bottom)


def nearest(label: Box, ring: Points) -> tuple[float, tuple[float, float], tuple[float, float]]:
    """Distance from a label to the nearest point of a ring, the label's end of that line and the ring's."""
    x = np.clip(ring[:, 0], label[0], label[2])
    y = np.clip(ring[:, 1], label[1], label[3])
    distance = np.hypot(ring[:, 0] - x, ring[:, 1] - y)
    index = int(distance.argmin())
    start, end = (float(x[index]), float(y[index])), (float(ring[index, 0]), float(ring[index, 1]))
    return float(distance[index]), start, end


def _place(
    size: tuple[int, int],
    own: Points,
    box: Box,
    boxes: Sequence[Box],
    points: Points,
    placed: Sequence[Box],
    picture: tuple[int, int],
    gap: int,
) -> tuple[int, int] | None:
    width, height = size
    if width > picture[0] or height > picture[1]:
        return None
    best: tuple[float, tuple[int, int]] | None = None
    for rank, (x, y) in enumerate(_beside(width, height, box, own, gap)):
        corner = _inside(x, y, width, height, picture)
        label = (corner[0], corner[1], corner[0] + width, corner[1] + height)
        if any(_overlap(label, other) for other in placed):
            continue
        within = (points[:, 0] > label[0]) & (points[:, 0] < label[2])
        crossed = int((within & (points[:, 1] > label[1]) & (points[:, 1] < label[3])).sum())
        covered = sum(_overlap(label, other) for other in boxes) / (width * height)
        distance = max(nearest(label, own)[0] - 2 * gap, 0) / height
        cost = COVER * covered + CROSS * crossed + DISTANCE * distance + RANK * rank
        if best is None or cost < best[0]:
            best = (cost, corner)
    if best is not None:
        return best[1]
    for x, y in _around(width, height, box, picture):
        label = (x, y, x + width, y + height)
        if not any(_overlap(label, other) for other in placed):
            return x, y
    return None


def _beside(width: int, height: int, box: Box, ring: Points, gap: int) -> Iterator[tuple[float, float]]:
    """Corners next to a shape, the best first: above, below, beside, at its tips, and inside at its top."""
    left, top, right, bottom = box
    above, below = top - height - gap, bottom + gap
    yield from ((left, above), (left, below), (right - width, above), (right - width, below))
    yield from ((right + gap, top), (left - width - gap, top))
    yield from ((right + gap, bottom - height), (left - width - gap, bottom - height))
    highest, lowest = ring[ring[:, 1].argmin()], ring[ring[:, 1].argmax()]
    leftmost, rightmost = ring[ring[:, 0].argmin()], ring[ring[:, 0].argmax()]
    yield float(highest[0]) - width / 2, above
    yield float(lowest[0]) - width / 2, below
    yield right + gap, float(rightmost[1]) - height / 2
    yield left - width - gap, float(leftmost[1]) - height / 2
    yield left + gap, top + gap


def _around(width: int, height: int, box: Box, picture: tuple[int, int]) -> list[tuple[int, int]]:
    """Corners on a grid over the whole picture, nearest to the box first."""
    centre_x, centre_y = (box[0] + box[2] - width) / 2, (box[1] + box[3] - height) / 2
    columns = range(0, picture[0] - width + 1, max(1, width // 2))
    rows = range(0, picture[1] - height + 1, max(1, height // 2))
    return sorted(
        ((x, y) for y in rows for x in columns),
        key=lambda corner: (corner[0] - centre_x) ** 2 + (corner[1] - centre_y) ** 2,
    )


def _dense(ring: Points) -> Points:
    """Points along a closed ring, about ``STEP`` pixels apart."""
    closed = np.concatenate([ring, ring[:1]])
    length = np.concatenate([[0.0], np.hypot(*np.diff(closed, axis=0).T).cumsum()])
    at = np.linspace(0, length[-1], max(int(length[-1] / STEP), 4), endpoint=False)
    return np.stack([np.interp(at, length, closed[:, axis]) for axis in (0, 1)], axis=1)


def _inside(x: float, y: float, width: int, height: int, picture: tuple[int, int]) -> tuple[int, int]:
    return round(min(max(x, 0), picture[0] - width)), round(min(max(y, 0), picture[1] - height))


def _overlap(one: Box, other: Box) -> float:
    """Pixels that two boxes share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return width * height if width > 0 and height > 0 else 0.0
