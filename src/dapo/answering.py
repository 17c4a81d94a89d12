"""Answering: scores on a grid to an `Inspection` at the picture's own size, calibrated where it can be.

In: `Raw`, what a detector said of one picture or of its blended tiles; the picture; a `Rule`, how to judge.
Out: the `Inspection`: score and verdict, maps at the original size, named regions.

With a calibration, scores and anomaly maps are moved in log-odds so that 0.5 is the threshold: of the score
for the verdict, of the map for a region. A good part's map is then blank on the fixed scale of the heat maps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from dapo.calibration import Calibration, log_odds, shifted
from dapo.config import ModelConfig
from dapo.images import restore_map
from dapo.inspection import Inspection, Region
from dapo.regions import find_regions
from dapo.roi import resize_mask

CANVAS_VALUES = 24_000_000  # map values among which regions are looked for, 100 MB: 25 types of a megapixel
GROWS = 1.5  # log-odds below the limit; maps fused with references fall steeply
BRIDGED = 0.5  # log-odds below what a region grows down to: how weak the map may be between its fragments
STANDS_OUT = 0.98  # of the map's peak, where nothing reaches the limit: restoring lowers a peak a little

Map = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Window:
    """The part of a picture that is looked at: its corner and size, and the region of interest in it."""

    top: int
    left: int
    height: int
    width: int
    mask: Mask | None = None  # (height, width); None = all of it

    @classmethod
    def whole(cls, picture: Pixels) -> Window:
        return cls(0, 0, *picture.shape[:2])

    @property
    def box(self) -> tuple[slice, slice]:
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)

    def placed(self, grid: Map, height: int, width: int) -> Map:
        """A map of the window, on any grid, as a map (height, width) of the picture, 0 outside."""
        values = restore_map(grid, self.height, self.width)
        if self.mask is not None:
            values = np.where(self.mask, values, np.float32(0))
        if (self.height, self.width) == (height, width):
            return values
        full = np.zeros((height, width), dtype=np.float32)
        full[self.box] = values
        return full


@dataclass(frozen=True)
class Raw:
    """Scores of one window; maps on a grid (gh, gw) that covers it."""

    image: float
    binary: Map  # (gh, gw)
    types: Map  # (k, gh, gw)
    type_image: npt.NDArray[np.float32]  # (k,)
    seconds: float
    unknown: Map | None = None  # (gh, gw): how far no name fits
    looked: int | None = None  # pixels of the picture in one look: those of a tile; None = of the window


@dataclass(frozen=True)
class Rule:
    """How raw scores become a verdict.

    threshold: of the score; None = the calibration's (0.5), else the model's. false_alarm: the rate to hold
    instead of the one that the calibration was asked for.
    """

    config: ModelConfig
    calibration: Calibration | None = None
    threshold: float | None = None
    false_alarm: float | None = None

    def score(self, raw: float) -> float:
        return raw if self._image is None else float(shifted(raw, self._image))

    @property
    def limit(self) -> float:
        """Score from which a part is defective."""
        if self.threshold is not None:
            return self.threshold
        return self.config.threshold if self._image is None else 0.5

    def maps(self, values: Map) -> Map:
        """Anomaly values on the fixed scale."""
        return values if self._map is None else np.asarray(shifted(values, self._map))

    @cached_property
    def region_limits(self) -> tuple[float, float | None]:
        """Anomaly values that begin a region, and down to which it grows."""
        if self._map is None:
            return self.config.map_threshold, self.config.map_low
        return 0.5, grown(0.5)

    def min_area(self, looked: int) -> int:
        """Smallest region in pixels, of `looked` pixels; where good parts are blank, specks count too."""
        share = self.config.min_area if self._map is None else self.config.min_area / 4
        return max(1, round(share * looked))

    @cached_property
    def record(self) -> Mapping[str, Any] | None:
        """What the result says of the calibration."""
        if self.calibration is None:
            return None
        found = self.calibration.record(self.false_alarm)
        if self.threshold is not None:
            found["statement"] += f"; threshold set to {self.threshold:g} by hand"
        limits = self.calibration.type_thresholds(self.false_alarm)
        return found | {"type_thresholds": {name: round(value, 5) for name, value in limits.items()}}

    @cached_property
    def _image(self) -> float | None:
        return None if self.calibration is None else self.calibration.promise(self.false_alarm).threshold

    @cached_property
    def _map(self) -> float | None:
        return None if self.calibration is None else self.calibration.map_threshold(self.false_alarm)


def answer(
    name: str,
    picture: Pixels,
    window: Window,
    raw: Raw,
    names: Sequence[str],
    rule: Rule,
    model: dict[str, str],
) -> Inspection:
    """The inspection of one picture, uint8 (h, w, 3)."""
    started = time.perf_counter()
    height, width = picture.shape[:2]
    score = rule.score(raw.image)
    defective = score >= rule.limit
    anomaly = rule.maps(raw.binary)
    result = Inspection(
        image=name,
        width=width,
        height=height,
        score=score,
        raw_score=raw.image,
        threshold=rule.limit,
        verdict="defective" if defective else "ok",
        types=dict(zip(names, raw.type_image.tolist(), strict=True)),
        regions=regions_of(anomaly, raw, window, names, height, width, rule, defective),
        anomaly_map=window.placed(anomaly, height, width),
        calibration=rule.record,
        model=model,
        timing_ms=1000 * (raw.seconds + time.perf_counter() - started),
        pixels=picture,
    )
    # After the constructor, which looks at every map and so would restore all of them.
    object.__setattr__(result, "type_maps", TypeMaps(names, raw.types, window, height, width))
    return result


class TypeMaps(Mapping[str, Map]):
    """Maps of all types at the picture's size, each restored when it is asked for.

    A hundred full maps of a 12-megapixel photograph would take 5 GB; what is kept is the grid.
    """

    def __init__(self, names: Sequence[str], grids: Map, window: Window, height: int, width: int) -> None:
        self._grids = dict(zip(names, grids, strict=True))
        self._window, self._size = window, (height, width)

    def __getitem__(self, name: str) -> Map:
        return self._window.placed(self._grids[name], *self._size)

    def __iter__(self) -> Iterator[str]:
        return iter(self._grids)

    def __len__(self) -> int:
        return len(self._grids)


def regions_of(
    anomaly: Map,
    raw: Raw,
    window: Window,
    names: Sequence[str],
    height: int,
    width: int,
    rule: Rule,
    defective: bool,
) -> tuple[Region, ...]:
    """Typed regions, found at the window's size, or for a large one on a smaller canvas.

    A calibrated limit lies above the peaks of good parts, and a part may be defective without reaching it:
    then the place that stands out most is given, with the score it has.
    """
    high, low = rule.region_limits
    smallest = rule.min_area(raw.looked or window.height * window.width)
    peak = float(anomaly.max())
    if peak <= high:  # restoring never exceeds the grid
        if not defective or rule.calibration is None:
            return ()
        high = peak * STANDS_OUT
        low, smallest = grown(high), 1
    scale = min(1.0, math.sqrt(CANVAS_VALUES / ((len(names) + 2) * window.height * window.width)))
    rows, columns = max(1, round(scale * window.height)), max(1, round(scale * window.width))
    map_ = restore_map(anomaly, rows, columns)
    if window.mask is not None:
        map_ = np.where(resize_mask(window.mask, rows, columns), map_, np.float32(0))
    found = find_regions(
        map_,
        dict(zip(names, restore_map(raw.types, rows, columns), strict=True)),
        threshold=high,
        low=low,
        bridge=lowered(high if low is None else low, BRIDGED),
        min_area_px=smallest,
        size=(window.height, window.width),
        **unknown_of(raw, rows, columns, rule),
    )
    if (window.height, window.width) == (height, width):
        return found
    return tuple(moved(region, window, height, width) for region in found)


def grown(high: float) -> float:
    """Anomaly value down to which a region grows that began at `high`, on a calibrated map."""
    return lowered(high, GROWS)


def lowered(value: float, step: float) -> float:
    """An anomaly value `step` log-odds lower."""
    return float(1 / (1 + np.exp(step - log_odds(value))))


def unknown_of(raw: Raw, rows: int, columns: int, rule: Rule) -> dict[str, Any]:
    """What `find_regions` needs to call a region unknown; nothing where the model has no limit for it."""
    if raw.unknown is None or rule.config.unknown_above is None:
        return {}
    found = restore_map(raw.unknown, rows, columns)
    return {"unknown": found, "unknown_above": rule.config.unknown_above}


def moved(region: Region, window: Window, height: int, width: int) -> Region:
    """A region of the window as one of the picture."""
    x, y, w, h = region.bbox
    centroid = region.centroid[0] + window.left, region.centroid[1] + window.top
    box = (x + window.left, y + window.top, w, h)
    return replace(region, bbox=box, centroid=centroid, size=(height, width))
