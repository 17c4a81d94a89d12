"""Calibration: what n good parts can promise, the promise kept in simulation, and files that say so."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dapo.calibration import (
    Calibration,
    promise_of,
    rank_of,
    shifted,
    smallest_rate,
    wilson,
    with_defects,
)
from dapo.errors import ConfigError, InputError


def calibration(count: int = 20, **changes: Any) -> Calibration:
    scores = tuple(sorted(np.random.default_rng(0).random(count) / 2))
    facts: dict[str, Any] = {
        "scores": scores,
        "peaks": scores,
        "types": {"scratch": scores, "hole": tuple(s / 2 for s in scores)},
        "false_alarm": 0.05,
        "words": {"scratch": ("scratch", "line"), "hole": ("hole",)},
        "model": {"name": "tiny", "version": "1", "sha256": "0" * 64},
        "setup": {"tile": "off"},
        "created": "2026-01-01T00:00:00+00:00",
    }
    return Calibration(**{**facts, **changes})


@pytest.mark.parametrize(
    ("images", "rate", "rank"), [(19, 0.05, 19), (20, 0.05, 20), (99, 0.01, 99), (199, 0.05, 190)]
)
def test_the_rank_is_that_of_split_conformal_prediction(images: int, rate: float, rank: int) -> None:
    assert rank_of(images, rate) == rank == math.ceil(round((images + 1) * (1 - rate), 9))


@pytest.mark.parametrize("images", [20, 37, 100])
@pytest.mark.parametrize("rate", [0.05, 0.1, 0.2])
def test_true_rates_in_simulation(images: int, rate: float) -> None:
    rng = np.random.default_rng(images)
    true, inside = [], []
    for _ in range(2000):
        promise = promise_of(rng.random(images).tolist(), rate)  # uniform: the true rate is 1 - threshold
        true.append(1 - promise.threshold)
        inside.append(promise.interval[0] <= true[-1] <= promise.interval[1])
    assert np.mean(true) <= rate + 3 * np.std(true) / math.sqrt(2000)
    assert np.mean(true) == pytest.approx((images + 1 - rank_of(images, rate)) / (images + 1), abs=0.01)
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


@given(st.integers(5, 400), st.floats(0.001, 0.5))
def test_no_rate_is_promised_that_the_sample_cannot_carry(images: int, rate: float) -> None:
    scores = list(np.linspace(0.1, 0.9, images))
    if rate < smallest_rate(images) - 1e-9:
        with pytest.raises(ConfigError, match=r"cannot promise.*smallest rate.*at least"):
            promise_of(scores, rate)
    elif rate > smallest_rate(images) + 1e-9:
        promise = promise_of(scores, rate)
        above = sum(score >= promise.threshold for score in scores)
        assert above <= rate * (images + 1)
        assert promise.interval[0] < promise.interval[1]


def test_twenty_parts_cannot_promise_half_a_percent() -> None:
    with pytest.raises(ConfigError, match=r"20 good parts cannot promise 0.5 %.*4.76 %.*at least 199"):
        calibration().promise(0.005)
    assert calibration(199).promise(0.005).images == 199


@pytest.mark.parametrize("rate", [0, 1, -0.1, 2, math.nan])
def test_rates_are_shares(rate: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 100 %"):
        promise_of([0.5] * 20, rate)


def test_few_parts_are_refused() -> None:
    with pytest.raises(InputError, match=r"at least 5 good parts.*got 4"):
        calibration(4, false_alarm=0.4)


def test_equal_scores_do_not_alarm() -> None:
    promise = promise_of([0.3] * 20, 0.05)
    assert promise.threshold > 0.3  # the verdict is score >= threshold


@given(st.floats(0.001, 0.999), st.floats(0.001, 0.999), st.floats(0.001, 0.999))
def test_shifted_scores_keep_their_order_and_meet_at_one_half(a: float, b: float, threshold: float) -> None:
    assert shifted(threshold, threshold) == pytest.approx(0.5)
    assert (shifted(a, threshold) <= shifted(b, threshold)) or a > b
    assert 0 <= shifted(a, threshold) <= 1
    grid = np.array([[a, b]], dtype=np.float32)
    moved = shifted(grid, threshold)
    assert moved.shape == grid.shape
    assert moved.dtype == np.float32


def test_a_file_says_and_gives_back_everything(tmp_path: Path) -> None:
    made = calibration(
        references={"file": "references.safetensors", "images": 20, "megabytes": 3.8},
        escapes=with_defects([0.1, 0.9, 0.9], 0.5),
    )
    path = made.save(tmp_path / "deep" / "calibration.json")
    assert Calibration.load(path) == made
    assert Calibration.load(path.parent) == made
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["threshold"] == made.promise().threshold
    assert record["smallest_rate"] == pytest.approx(1 / 21)
    assert "20 good parts" in record["statement"]
    assert "references" in record["statement"]
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda r: r.pop("good"), "'good'"),
        (lambda r: r.update(format=7), "format 7"),
        (lambda r: r["good"].update(scores="none"), "calibration"),
        (lambda r: r.update(words=3), "calibration"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, change: Any, words: str) -> None:
    path = calibration().save(tmp_path / "calibration.json")
    record = json.loads(path.read_text(encoding="utf-8"))
    change(record)
    path.write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(ConfigError, match=words):
        Calibration.load(path)


def test_no_file_and_half_a_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="dapo calibrate --good"):
        Calibration.load(tmp_path)
    (tmp_path / "calibration.json").write_text('{"format": 1, "good"', encoding="utf-8")
    with pytest.raises(ConfigError, match="Calibrate again"):
        Calibration.load(tmp_path)


def test_escapes_and_wilson() -> None:
    found = with_defects([0.1, 0.6, 0.7, 0.8], 0.5)
    assert (found["defective"], found["missed"]) == (4, 1)
    assert found["interval"] == pytest.approx([0.0456, 0.6994], abs=1e-3)  # Wilson, by hand
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(0, 20)[0] == 0
    assert wilson(0, 20)[1] == pytest.approx(0.1611, abs=1e-3)
    assert wilson(20, 20)[1] == 1


def test_each_type_has_its_threshold() -> None:
    made = calibration()
    limits = made.type_thresholds()
    assert limits["hole"] == pytest.approx(limits["scratch"] / 2)
    assert made.type_thresholds(0.5)["hole"] < limits["hole"]
    assert made.record()["false_alarm"] == 0.05
