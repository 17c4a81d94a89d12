"""Inspection: one record, one schema, no contradictions."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError, replace
from typing import Any

import jsonschema
import numpy as np
import pytest

from dapo.errors import InputError
from dapo.inspection import UNCALIBRATED, Failure, Inspection, Region, json_schema
from dapo.masks import decode_rle
from dapo.regions import find_regions

SIZE = (30, 40)  # h, w


def example(**changes: Any) -> Inspection:
    """A defective part with a dent and a stain, which has a hole."""
    dent, stain = np.zeros(SIZE, np.float32), np.zeros(SIZE, np.float32)
    dent[4:10, 5:16] = 0.9
    stain[15:27, 20:36] = 0.7
    stain[19:22, 26:30] = 0.0
    anomaly = np.maximum(dent, stain)
    regions = find_regions(anomaly, {"dent": dent, "stain": stain}, threshold=0.5)
    given: dict[str, Any] = {
        "image": "parts/07.png",
        "width": SIZE[1],
        "height": SIZE[0],
        "score": 0.87654321,
        "raw_score": 0.4,
        "threshold": 0.5,
        "verdict": "defective",
        "types": {"stain": 0.7, "dent": 0.9, "crack": 0.01},
        "regions": regions,
        "anomaly_map": anomaly,
        "type_maps": {"dent": dent, "stain": stain},
        "model": {"name": "dapo", "version": "0.1.0", "sha256": "ab" * 32, "licence": "Apache-2.0"},
        "timing_ms": 12.34,
        "pixels": np.full((*SIZE, 3), 127, np.uint8),
    }
    return Inspection(**{**given, **changes})


def check(record: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(json_schema()).validate(record)


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("shape", ["polygon", "rle"])
@pytest.mark.parametrize(
    "calibration", [None, "uncalibrated: guess", {"false_alarm": 0.005, "good_parts": 20}]
)
def test_a_record_follows_the_schema_through_json(shape: Any, calibration: Any) -> None:
    record = example(calibration=calibration).to_dict(shape)
    check(json.loads(json.dumps(record, allow_nan=False)))
    assert record["calibration"] == calibration
    assert [kind["name"] for kind in record["types"]] == ["stain", "dent", "crack"]
    assert [region["type"] for region in record["regions"]] == ["dent", "stain"]
    assert record["model"] == {"name": "dapo", "version": "0.1.0", "sha256": "ab" * 32}
    assert record["score"] == 0.876543
    assert ("rle" in record["regions"][0]) == (shape == "rle")


def test_a_good_part_and_a_failure_follow_the_schema() -> None:
    check(example(score=0.1, verdict="ok", regions=(), types={}).to_dict())
    record = Failure("broken.png", "truncated", "the file ends before the picture does").to_dict()
    check(record)
    assert record == {
        "schema": 1,
        "image": "broken.png",
        "error": {"kind": "truncated", "message": "the file ends before the picture does"},
    }


@pytest.mark.parametrize(
    ("key", "value"), [("verdict", "bad"), ("score", 1.2), ("schema", 2), ("image", None), ("regions", None)]
)
def test_the_schema_refuses_what_is_not_a_record(key: str, value: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check({**example().to_dict(), key: value})


def test_the_schema_refuses_a_record_without_a_promised_key() -> None:
    record = example().to_dict()
    for key in record:
        with pytest.raises(jsonschema.ValidationError):
            check({name: value for name, value in record.items() if name != key})


def test_a_region_gives_its_mask_in_three_forms() -> None:
    stain = example().regions[1]
    assert stain.mask.shape == SIZE
    assert stain.mask.sum() == stain.area_px == 12 * 16 - 3 * 4
    assert np.array_equal(decode_rle(stain.rle), stain.mask)
    (ring,) = stain.polygon
    assert len(ring) % 2 == 0
    assert (min(ring[::2]), max(ring[::2]), min(ring[1::2]), max(ring[1::2])) == (20, 36, 15, 27)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": float("nan")}, "score must be a number in"),
        ({"threshold": 1.5}, "threshold must be a number in"),
        ({"types": {"dent": -0.1}}, "dent must be a number in"),
        ({"verdict": "maybe"}, "verdict must be"),
        ({"anomaly_map": np.zeros((3, 3), np.float32)}, "anomaly_map must have the image's size"),
        ({"type_maps": {"dent": np.zeros((3, 3), np.float32)}}, "dent must have the image's size"),
        ({"pixels": np.zeros((3, 3, 3), np.uint8)}, "pixels must be"),
        (
            {"width": 41, "anomaly_map": None, "type_maps": {}, "pixels": None},
            "region 1 belongs to an image of",
        ),
    ],
)
def test_a_result_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        example(**changes)


def test_a_region_that_contradicts_itself_is_refused() -> None:
    region = example().regions[0]
    with pytest.raises(ValueError, match="crop must be as large as bbox"):
        replace(region, bbox=(0, 0, 3, 3))
    with pytest.raises(ValueError, match="must lie inside the image"):
        replace(region, bbox=(35, *region.bbox[1:]))
    with pytest.raises(FrozenInstanceError):
        region.score = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    ("calibration", "calibrated", "statement"),
    [
        (None, False, UNCALIBRATED),
        ("uncalibrated: a guess", False, "uncalibrated: a guess"),
        ("24 good parts of line 3", True, "24 good parts of line 3"),
        ({"statement": "20 good parts", "n": 20}, True, "20 good parts"),
        ({"good_parts": 20, "false_alarm": 0.05}, True, "calibrated: good parts 20, false alarm 0.05"),
    ],
)
def test_it_says_where_the_threshold_comes_from(calibration: Any, calibrated: bool, statement: str) -> None:
    result = example(calibration=calibration)
    assert result.calibrated is calibrated
    assert result.calibration_statement == statement


def test_drawing_without_pixels_says_what_to_do() -> None:
    with pytest.raises(InputError, match=r"parts/07\.png were not kept.*inspect it again") as caught:
        example(pixels=None).overlay()
    assert caught.value.kind == "missing"


def test_a_region_of_a_large_image_stays_small() -> None:
    region = Region(
        1, "dent", 0.9, 0.1, (5000, 4000, 3, 2), 6, (5001.5, 4001), np.ones((2, 3), bool), (6000, 8000)
    )
    assert len(region.rle["counts"]) == 7
    assert sum(region.rle["counts"]) == 6000 * 8000
    assert region.polygon == [[5000, 4000, 5003, 4000, 5003, 4002, 5000, 4002]]
