"""What good parts promise on real images: the stated false-alarm rate beside the measured.

DATA_ROOT holds `magnetic_tile`; its words are those of the experiment "embedded". Prints

- promise: `--splits` random samples of 20 good parts calibrate zero-shot thresholds; how many of the other
  good parts are then called defective, on average and spread; the same for other sizes and rates,
- with references: the same for a few samples, where the same 20 parts are also remembered.

Pictures of one physical part are drawn together. Figures with k references: `dapo reproduce references`.

    python benchmarks/good_parts.py DATA_ROOT
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from dapo.calibration import percent, promise_of, smallest_rate
from dapo.data import Sample, read_folder
from dapo.evaluation.experiment import load_experiment
from dapo.evaluation.shots import drawn, part_of
from dapo.goodparts import calibrate
from dapo.inspection import Inspection
from dapo.inspector import Inspector
from dapo.vocabulary import Defect, Vocabulary

TILE = "magnetic_tile"
SIZES = ((20, 0.05), (50, 0.05), (80, 0.05), (50, 0.02), (80, 0.02))  # good parts, promised rate


def raw_scores(inspector: Inspector, samples: Sequence[Sample], words: Vocabulary) -> np.ndarray:
    found = inspector.stream([sample.image for sample in samples], words, 8)
    return np.array([result.raw_score for result in found if isinstance(result, Inspection)])


def promise_rows(scores: np.ndarray, parts: np.ndarray, splits: int) -> list[dict[str, Any]]:
    """Measured rates for each size: calibrate on one picture of each of n parts, test on all other parts."""
    rows = []
    for size, rate in SIZES:
        if size >= len(np.unique(parts)) or rate < smallest_rate(size):
            continue
        measured = []
        for split in range(splits):
            rng = np.random.default_rng(split)
            chosen = rng.permutation(np.unique(parts))[:size]
            own = [rng.choice(np.flatnonzero(parts == part)) for part in chosen]
            threshold = promise_of(scores[own].tolist(), rate).threshold
            measured.append(float((scores[~np.isin(parts, chosen)] >= threshold).mean()))
        low, high = np.quantile(measured, [0.025, 0.975])
        rows.append(
            {
                "good parts": size,
                "promised": rate,
                "measured": float(np.mean(measured)),
                "middle 95 %": [float(low), float(high)],
                "stated interval": list(promise_of([0.0] * size, rate).interval),
            }
        )
    return rows


@click.command(help=__doc__)
@click.argument("data_root", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--splits", type=click.IntRange(2), default=200, show_default=True)
@click.option(
    "--referred", type=click.IntRange(0), default=5, show_default=True, help="Samples with references."
)
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/benchmarks"), show_default=True)
def main(data_root: Path, splits: int, referred: int, out: Path) -> None:
    (test,) = [test for test in load_experiment("embedded").test if test.root == TILE]
    inspector = Inspector.from_pretrained(calibration=False)
    everything = read_folder(data_root / TILE, group_key=test.group_key)
    good = [sample for sample in everything if not sample.defective]
    pictures: dict[Any, Sample] = {}
    for sample in good:
        pictures.setdefault(part_of(sample), sample)
    vocabulary = Vocabulary(tuple(Defect(name, words) for name, words in test.phrases.items()))
    record: dict[str, Any] = {"promise": [], "with references": []}

    parts = np.array([part_of(sample)[1] for sample in good])
    record["promise"] = promise_rows(raw_scores(inspector, good, vocabulary), parts, splits)
    for row in record["promise"]:
        low, high = row["middle 95 %"]
        click.echo(
            f"{row['good parts']} good parts, promised {percent(row['promised'])}: measured "
            f"{percent(row['measured'])} ({percent(low)} to {percent(high)} in {splits} splits)"
        )
    for draw in range(referred):
        own = drawn(list(pictures.values()), 20, draw)[:20]
        calibrated = calibrate(
            inspector, [sample.image for sample in own], false_alarm=0.05, defects=vocabulary
        )
        names = set(map(part_of, own))
        rest = [sample for sample in good if part_of(sample) not in names]
        assert calibrated.calibration is not None
        limit = calibrated.calibration.promise().threshold
        alarms = float((raw_scores(calibrated, rest, vocabulary) >= limit).mean())
        record["with references"].append(alarms)
        click.echo(
            f"20 good parts also remembered, draw {draw + 1}: promised 5 %, measured {percent(alarms)}"
        )
    out.mkdir(parents=True, exist_ok=True)
    (out / f"good_parts_{TILE}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
