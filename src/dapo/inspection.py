"""The result of inspecting one image: ``Inspection`` with its ``Region``s, or a ``Failure``.

In: what the model, the calibration and ``regions`` found, numpy only. Out: one versioned record,
``to_dict()``, whose JSON Schema ships as ``schema/inspection-1.json``. Coordinates are pixels of the original
image, counted from its top left corner; the pixel in column x, row y covers [x, x + 1] x [y, y + 1].
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from dapo.errors import DataError, InputError
from dapo.masks import RunLengths, decode_rle, encode_rle, fill_ring, trace_outlines

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "SCHEMA",
    "UNCALIBRATED",
    "UNKNOWN",
    "Failure",
    "Inspection",
    "Region",
    "Shape",
    "json_schema",
    "read_record",
]

SCHEMA = 1
UNKNOWN = "unknown"  # the type of a region that none of the names fits
UNCALIBRATED = "uncalibrated: threshold from generated good parts"
DECIMALS = 6  # of scores in the record

Calibration: TypeAlias = "str | Mapping[str, Any] | None"
Shape: TypeAlias = 'Literal["polygon", "rle", "both"]'  # how a record outlines its regions


@dataclass(frozen=True, eq=False)
class Region:
    """One flaw: pixels with a type and a score, connected or in fragments with small gaps between them.

    ``crop`` is the mask inside ``bbox`` and ``size`` the image's (h, w): a region of a large image stays
    small. ``score`` and ``margin`` are in [0, 1]; the margin is the lead of the type over the runner-up.
    ``centroid`` is the mean of the pixels' centres.
    """

    id: int
    type: str
    score: float
    margin: float
    bbox: tuple[int, int, int, int]  # x, y, width, height
    area_px: int
    centroid: tuple[float, float]  # x, y
    crop: npt.NDArray[np.bool_] = field(repr=False)
    size: tuple[int, int] = field(repr=False)

    def __post_init__(self) -> None:
        x, y, width, height = self.bbox
        if self.crop.shape != (height, width):
            raise ValueError(f"crop must be as large as bbox, {(height, width)}; got {self.crop.shape}")
        if x < 0 or y < 0 or x + width > self.size[1] or y + height > self.size[0]:
            raise ValueError(
                f"bbox {self.bbox} must lie inside the image of {self.size[0]} x {self.size[1]} (h x w)"
            )
        _check_probability("score", self.score)
        _check_probability("margin", self.margin)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """bool (h, w), the size of the image."""
        x, y, width, height = self.bbox
        full = np.zeros(self.size, dtype=bool)
        full[y : y + height, x : x + width] = self.crop
        return full

    @cached_property
    def polygon(self) -> list[list[float]]:
        """Outer outlines, largest first, flat [x0, y0, x1, y1, ...]; without holes, ``rle`` is exact."""
        corner = np.array(self.bbox[:2])
        return [(ring + corner).ravel().tolist() for ring in trace_outlines(self.crop)]

    @property
    def rle(self) -> RunLengths:
        """COCO's uncompressed run-length encoding of the full-size mask."""
        return encode_rle(self.crop, self.size, self.bbox[:2])

    def to_dict(self, shape: Shape = "polygon") -> dict[str, Any]:
        outline: dict[str, Any] = {"polygon": self.polygon} if shape != "rle" else {}
        if shape != "polygon":
            outline["rle"] = self.rle
        return {
            "id": self.id,
            "type": self.type,
            "score": round(self.score, DECIMALS),
            "margin": round(self.margin, DECIMALS),
            "bbox": list(self.bbox),
            "area_px": self.area_px,
            "centroid": [round(value, 2) for value in self.centroid],
            **outline,
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any], size: tuple[int, int]) -> Region:
        """The region of a record, in an image of ``size`` (h, w).

        Exact with ``rle``. From polygons alone the mask lacks its holes and may differ along the outline.
        """
        x, y, width, height = (int(value) for value in record["bbox"])
        if "rle" in record:
            crop = decode_rle(record["rle"])[y : y + height, x : x + width].copy()
        else:
            rings = [np.array(part, dtype=np.float64).reshape(-1, 2) for part in record["polygon"]]
            crop = np.any([fill_ring(ring - (x, y), height, width) for ring in rings], axis=0)
        return cls(
            id=int(record["id"]),
            type=str(record["type"]),
            score=float(record["score"]),
            margin=float(record["margin"]),
            bbox=(x, y, width, height),
            area_px=int(record["area_px"]),
            centroid=(float(record["centroid"][0]), float(record["centroid"][1])),
            crop=crop,
            size=size,
        )


@dataclass(frozen=True, eq=False)
class Inspection:
    """What was found on one image.

    ``score`` in [0, 1] is compared with ``threshold``; ``raw_score`` is the model's own, before any
    calibration. ``types`` are the image-level scores of the defect types, in the order of the vocabulary.
    ``anomaly_map`` and each of ``type_maps`` are float32 (h, w) in [0, 1] at the original size.
    ``calibration`` says where score and threshold come from; None means they were not calibrated on good
    parts of this product. ``pixels`` is the image itself, uint8 (h, w, 3) RGB, kept so that pictures can be
    drawn; it may be left out.
    """

    image: str
    width: int
    height: int
    score: float
    raw_score: float
    threshold: float
    verdict: Literal["ok", "defective"]
    types: dict[str, float]
    regions: tuple[Region, ...] = ()
    anomaly_map: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    type_maps: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict, repr=False)
    calibration: Calibration = None
    model: dict[str, Any] = field(default_factory=dict)
    timing_ms: float = 0.0
    pixels: npt.NDArray[np.uint8] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.verdict not in ("ok", "defective"):
            raise ValueError(f"verdict must be 'ok' or 'defective'; got {self.verdict!r}")
        for name, value in (("score", self.score), ("threshold", self.threshold), *self.types.items()):
            _check_probability(name, value)
        size = (self.height, self.width)
        maps = {"anomaly_map": self.anomaly_map, **self.type_maps}
        for name, values in maps.items():
            if values is not None and values.shape != size:
                raise ValueError(f"{name} must have the image's size {size} (h, w); got {values.shape}")
        if self.pixels is not None and self.pixels.shape != (*size, 3):
            raise ValueError(f"pixels must be {(*size, 3)} (h, w, 3); got {self.pixels.shape}")
        for region in self.regions:
            if region.size != size:
                raise ValueError(
                    f"region {region.id} belongs to an image of {region.size} (h, w), not {size}"
                )

    @property
    def calibrated(self) -> bool:
        """True when score and threshold were set on good parts of this product."""
        return self.calibration is not None and not str(self.calibration).startswith("uncalibrated")

    @property
    def calibration_statement(self) -> str:
        """One line for people: where the threshold comes from."""
        if self.calibration is None:
            return UNCALIBRATED
        if isinstance(self.calibration, str):
            return self.calibration
        if "statement" in self.calibration:
            return str(self.calibration["statement"])
        facts = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in self.calibration.items())
        return f"calibrated: {facts}"

    def overlay(self) -> Image.Image:
        """The photo with outlined, named regions under a header with the verdict, over a legend."""
        from dapo.writers.overlay import draw_overlay

        return draw_overlay(self)

    def photo(self) -> npt.NDArray[np.uint8]:
        """``pixels``, or an InputError when they were not kept."""
        if self.pixels is None:
            raise InputError(
                f"the pixels of {self.image} were not kept with its result, so nothing can be drawn on them; "
                "inspect it again or pass pixels= when building the Inspection",
                kind="missing",
            )
        return self.pixels

    def to_dict(self, shape: Shape = "polygon") -> dict[str, Any]:
        """The record, schema version 1; ``shape`` says how regions are outlined; ``rle`` is exact."""
        return {
            "schema": SCHEMA,
            "image": self.image,
            "width": self.width,
            "height": self.height,
            "score": round(self.score, DECIMALS),
            "raw_score": round(self.raw_score, DECIMALS),
            "threshold": round(self.threshold, DECIMALS),
            "verdict": self.verdict,
            "calibration": dict(self.calibration)
            if isinstance(self.calibration, Mapping)
            else self.calibration,
            "types": [{"name": name, "score": round(score, DECIMALS)} for name, score in self.types.items()],
            "regions": [region.to_dict(shape) for region in self.regions],
            "model": {key: self.model.get(key) for key in ("name", "version", "sha256")},
            "timing_ms": round(self.timing_ms, 1),
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Inspection:
        """The inspection of a record, without maps and pixels, which a record does not hold."""
        size = (int(record["height"]), int(record["width"]))
        return cls(
            image=str(record["image"]),
            width=size[1],
            height=size[0],
            score=float(record["score"]),
            raw_score=float(record["raw_score"]),
            threshold=float(record["threshold"]),
            verdict=record["verdict"],
            types={str(kind["name"]): float(kind["score"]) for kind in record["types"]},
            regions=tuple(Region.from_dict(region, size) for region in record["regions"]),
            calibration=record["calibration"],
            model=dict(record["model"]),
            timing_ms=float(record["timing_ms"]),
        )


@dataclass(frozen=True)
class Failure:
    """One image that could not be inspected; ``kind`` is that of ``errors.InputError``."""

    image: str
    kind: str
    message: str

    def to_dict(self) -> dict[str, Any]:
        return {"schema": SCHEMA, "image": self.image, "error": {"kind": self.kind, "message": self.message}}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Failure:
        return cls(str(record["image"]), str(record["error"]["kind"]), str(record["error"]["message"]))


def read_record(record: Mapping[str, Any]) -> Inspection | Failure:
    """What ``to_dict`` wrote; DataError for anything else."""
    if record.get("schema") != SCHEMA:
        raise DataError(
            f"expected a record of schema version {SCHEMA}; got {record.get('schema')!r}. "
            "Read it with the version of dapo that wrote it."
        )
    try:
        return Failure.from_dict(record) if "error" in record else Inspection.from_dict(record)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise DataError(
            f"expected a whole record of schema version {SCHEMA} for {record.get('image')!r}; "
            f"{type(error).__name__}: {error}. Inspect the image again."
        ) from error


def json_schema() -> dict[str, Any]:
    """The JSON Schema of one record: an inspection or a failure."""
    text = (resources.files("dapo") / "schema" / f"inspection-{SCHEMA}.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def _check_probability(name: str, value: float) -> None:
    if not 0.0 <= value <= 1.0:  # also catches NaN
        raise ValueError(f"{name} must be a number in [0, 1]; got {value}")
