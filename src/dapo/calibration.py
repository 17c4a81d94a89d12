"""Calibration: from good parts alone, thresholds at a stated false-alarm rate, and what can be promised.

In: what a model said of n good parts. Out: a `Calibration`: the image score from which a part is defective,
the anomaly value from which a region is drawn and the score from which a type is reported, each at a rate of
false alarms; kept as `calibration.json`, in plain sight, beside the model and never inside it.

The promise (split conformal prediction: Vovk et al. 2005; Lei et al., JASA 2018). The threshold is the k-th
smallest of the n scores, k = ceil((n + 1)(1 - rate)). If a new good part is like these (exchangeable), the
chance that its score is above is at most `rate`, on average over the good parts that might have been taken.
For the parts that were taken the true rate is random: with continuous scores it follows Beta(n + 1 - k, k),
whose middle 95 % is the interval stated. k <= n needs rate >= 1 / (n + 1): twenty parts cannot promise less
than 4.8 %.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri

from dapo.errors import ConfigError, InputError
from dapo.whole import replacing

FORMAT = 1
FILE = "calibration.json"
LEVEL = 0.95
CERTAIN = 1e-6  # scores are kept this far from 0 and 1 before their log-odds are taken
FEWEST = 5  # good parts below which nothing is promised

Scores = tuple[float, ...]


@dataclass(frozen=True)
class Promise:
    """A threshold at a rate: what n parts carry. interval: of the true rate, LEVEL."""

    rate: float
    images: int
    threshold: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Calibration:
    """What a model said of good parts.

    scores: raw image scores, ascending. peaks: each part's largest anomaly value. types: {name: image-level
    scores}. false_alarm: the rate asked for. words: {name: phrases} they were inspected with. model: name,
    version, sha256. setup: how pictures were cut (tile, region of interest). references: how many good parts
    are remembered, and the file that holds them; None = none. escapes: see `with_defects`.
    """

    scores: Scores
    peaks: Scores
    types: Mapping[str, Scores]
    false_alarm: float
    words: Mapping[str, tuple[str, ...]]
    model: Mapping[str, str | None]
    setup: Mapping[str, Any] = field(default_factory=dict)
    references: Mapping[str, Any] | None = None
    escapes: Mapping[str, Any] | None = None
    created: str = ""

    def __post_init__(self) -> None:
        if len(self.scores) < FEWEST:
            raise InputError(
                f"expected at least {FEWEST} good parts to calibrate on; got {len(self.scores)}. About 20 "
                "are a start, 200 can promise 0.5 %.",
                kind="empty",
            )
        self.promise()

    def promise(self, false_alarm: float | None = None) -> Promise:
        """The image threshold at this rate (None: the one asked for) and what it is worth."""
        return promise_of(self.scores, self.false_alarm if false_alarm is None else false_alarm)

    def map_threshold(self, false_alarm: float | None = None) -> float:
        """Anomaly value that at most this share of good parts reaches anywhere."""
        rate = self.false_alarm if false_alarm is None else false_alarm
        return promise_of(self.peaks, rate).threshold

    def type_thresholds(self, false_alarm: float | None = None) -> dict[str, float]:
        """{type: image-level score that at most this share of good parts reaches}, each type for itself."""
        rate = self.false_alarm if false_alarm is None else false_alarm
        return {name: promise_of(scores, rate).threshold for name, scores in self.types.items()}

    def statement(self, false_alarm: float | None = None) -> str:
        """One line for people."""
        promise = self.promise(false_alarm)
        low, high = promise.interval
        line = (
            f"calibrated on {promise.images} good parts for {percent(promise.rate)} false alarms "
            f"(true rate {percent(low)} to {percent(high)} at 95 %)"
        )
        if self.references is not None:
            line += f", with {self.references['images']} of them as references"
        return line

    def record(self, false_alarm: float | None = None) -> dict[str, Any]:
        """What a result carries of it."""
        promise = self.promise(false_alarm)
        return {
            "statement": self.statement(false_alarm),
            "false_alarm": promise.rate,
            "good_parts": promise.images,
            "interval": [round(value, 5) for value in promise.interval],
            "threshold_raw": round(promise.threshold, 6),
            "references": self.references is not None,
            "created": self.created,
        }

    def save(self, path: str | Path) -> Path:
        """Write the file in one step."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        promise = self.promise()
        record = {
            "format": FORMAT,
            "statement": self.statement(),
            "threshold": promise.threshold,
            "false_alarm": self.false_alarm,
            "smallest_rate": smallest_rate(len(self.scores)),
            "interval": list(promise.interval),
            "type_thresholds": self.type_thresholds(),
            "map_threshold": self.map_threshold(),
            "model": dict(self.model),
            "words": {name: list(phrases) for name, phrases in self.words.items()},
            "setup": dict(self.setup),
            "references": None if self.references is None else dict(self.references),
            "escapes": None if self.escapes is None else dict(self.escapes),
            "created": self.created,
            "good": {
                "scores": list(self.scores),
                "peaks": list(self.peaks),
                "types": {name: list(scores) for name, scores in self.types.items()},
            },
        }
        with replacing(path) as stream:
            stream.write((json.dumps(record, indent=1, allow_nan=False) + "\n").encode())
        return path

    @classmethod
    def load(cls, path: str | Path) -> Calibration:
        """Of a file, or of the folder that holds it. Raises ConfigError for anything else.

        Thresholds in the file are for people; they are computed again from the good parts' scores.
        """
        path = Path(path)
        path = path / FILE if path.is_dir() else path
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record.get("format") != FORMAT:
                raise ConfigError(
                    f"{path} has format {record.get('format')!r}, expected {FORMAT}. Calibrate again."
                )
            good = record["good"]
            return cls(
                scores=tuple(map(float, good["scores"])),
                peaks=tuple(map(float, good["peaks"])),
                types={str(name): tuple(map(float, scores)) for name, scores in good["types"].items()},
                false_alarm=float(record["false_alarm"]),
                words={str(name): tuple(phrases) for name, phrases in record["words"].items()},
                model=record["model"],
                setup=record["setup"],
                references=record["references"],
                escapes=record["escapes"],
                created=str(record["created"]),
            )
        except FileNotFoundError as error:
            raise ConfigError(
                f"expected a calibration in {path}; there is none. Make one: dapo calibrate --good DIR"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path} is not a calibration ({error}). Calibrate again.") from error


def rank_of(images: int, rate: float) -> int:
    """k = ceil((n + 1)(1 - rate)), safe against rounding of the product."""
    return math.ceil((images + 1) * (1 - rate) - 1e-9)


def smallest_rate(images: int) -> float:
    """The smallest rate that n good parts can promise."""
    return 1 / (images + 1)


def promise_of(scores: Sequence[float], rate: float) -> Promise:
    """The threshold at a rate, and the interval of the true rate.

    Raises ConfigError for a rate outside (0, 1), or one that so few parts cannot promise.
    """
    if not 0 < rate < 1:
        raise ConfigError(f"a false-alarm rate is between 0 and 100 %; got {percent(rate)}")
    n = len(scores)
    k = rank_of(n, rate)
    if k > n:
        needed = math.ceil(1 / rate - 1e-9) - 1
        raise ConfigError(
            f"{n} good parts cannot promise {percent(rate)} false alarms; the smallest rate they can is "
            f"{percent(smallest_rate(n))}. Give at least {needed} good parts, or ask for that rate."
        )
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    threshold = float(np.nextafter(ordered[k - 1], np.inf))
    tail = (1 - LEVEL) / 2
    low, high = (float(betaincinv(n + 1 - k, k, q)) for q in (tail, 1 - tail))
    return Promise(rate, n, min(threshold, 1.0), (low, high))


def shifted(values: float | NDArray[np.float32], threshold: float) -> Any:
    """Values in [0, 1] moved, in log-odds, so that the threshold comes to 0.5; the order stays."""
    middle = log_odds(np.float64(threshold))
    moved = 1 / (1 + np.exp(-(log_odds(values) - middle)))
    return float(moved) if np.ndim(values) == 0 else moved.astype(np.float32)


def log_odds(values: Any) -> Any:
    kept = np.clip(values, CERTAIN, 1 - CERTAIN)
    return np.log(kept / (1 - kept))


def wilson(hits: int, count: int, level: float = LEVEL) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson, JASA 1927); (0, 1) of nothing."""
    if not count:
        return 0.0, 1.0
    z = float(ndtri((1 + level) / 2))
    share = hits / count
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def with_defects(scores: Sequence[float], threshold: float) -> dict[str, Any]:
    """Escapes: how many of these defective parts, by their raw scores, stay below the threshold."""
    missed = sum(score < threshold for score in scores)
    low, high = wilson(missed, len(scores))
    return {"defective": len(scores), "missed": missed, "interval": [low, high]}


def percent(rate: float) -> str:
    """5 %, 0.5 %, 4.76 %."""
    return f"{100 * rate:.3g} %"
