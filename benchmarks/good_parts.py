"""What good parts are worth on real images: the promised false-alarm rate beside the measured, and k-shot.

SET is a folder in the MVTec layout with train/good (DATA/magnetic_tile). Prints

- promise: `--splits` random samples of 20 good parts calibrate zero-shot thresholds; how many of the other
  good parts are then called defective, on average and spread; the same for other sizes and rates,
- with references: the same for a few samples, where the same 20 parts are also remembered,
- k-shot: figures with k = 0, 1, 4, 20 references, mean and spread over 3 draws.

Pictures of one physical part (--group) are drawn together.

    python benchmarks/good_parts.py DATA/magnetic_tile --group tile --words words.yaml
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import yaml

from dapo.calibration import percent, promise_of, smallest_rate
from dapo.data import Sample, read_folder
from dapo.evaluation.shots import draw_parts, evaluate_shots
from dapo.goodparts import calibrate
from dapo.inspection import Inspection
from dapo.inspector import Inspector
from dapo.vocabulary import Defect, Vocabulary

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
@click.argument("folder", metavar="SET", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--group", default=None, help="Key of the physical part in manifest.jsonl.")
@click.option(
    "--words", type=click.Path(path_type=Path, exists=True), default=None, help="{type: [phrases]}."
)
@click.option("--splits", type=click.IntRange(2), default=200, show_default=True)
@click.option(
    "--referred", type=click.IntRange(0), default=5, show_default=True, help="Samples with references."
)
@click.option("--shots", default="0,1,4,20", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("out/benchmarks"), show_default=True)
def main(
    folder: Path, group: str | None, words: Path | None, splits: int, referred: int, shots: str, out: Path
) -> None:
    inspector = Inspector.from_pretrained(calibration=False)
    everything = read_folder(folder, group_key=group)
    test = [sample for sample in everything if sample.split == "test"]
    good = [sample for sample in everything if not sample.defective]
    phrases = {} if words is None else yaml.safe_load(words.read_text(encoding="utf-8"))
    types = sorted({name for sample in test for name in sample.types})
    vocabulary = Vocabulary(tuple(Defect(name, tuple(phrases.get(name, (name,)))) for name in types))
    record: dict[str, Any] = {"promise": [], "with references": [], "shots": {}}

    parts = np.array([sample.group or str(sample.image) for sample in good])
    record["promise"] = promise_rows(raw_scores(inspector, good, vocabulary), parts, splits)
    for row in record["promise"]:
        low, high = row["middle 95 %"]
        click.echo(
            f"{row['good parts']} good parts, promised {percent(row['promised'])}: measured "
            f"{percent(row['measured'])} ({percent(low)} to {percent(high)} in {splits} splits)"
        )
    for draw in range(referred):
        own = draw_parts(good, 20, draw)
        calibrated = calibrate(
            inspector, [sample.image for sample in own], false_alarm=0.05, defects=vocabulary
        )
        names = {sample.group or str(sample.image) for sample in own}
        rest = [sample for sample in good if (sample.group or str(sample.image)) not in names]
        assert calibrated.calibration is not None
        limit = calibrated.calibration.promise().threshold
        alarms = float((raw_scores(calibrated, rest, vocabulary) >= limit).mean())
        record["with references"].append(alarms)
        click.echo(
            f"20 good parts also remembered, draw {draw + 1}: promised 5 %, measured {percent(alarms)}"
        )
    found = evaluate_shots(
        inspector,
        test,
        [sample for sample in good if sample.split == "train"],
        shots=[int(k) for k in shots.split(",") if k],
        phrases=phrases,
        draws=0,
    )
    for k, evaluation in found.items():
        spread = evaluation.spread or {}
        cells = []
        for part, name in (("image", "auroc"), ("pixel", "auroc"), ("pixel", "aupro"), ("types", "top1")):
            deviation = spread.get(part, {}).get(name)
            cells.append(
                f"{part} {name} {evaluation.mean[part][name]:.3f}"
                + (f" ± {deviation:.3f}" if deviation else "")
            )
        click.echo(f"k = {k}: " + ", ".join(cells))
        record["shots"][k] = {
            "mean": evaluation.to_dict()["mean"],
            "spread": evaluation.to_dict().get("spread"),
        }
    out.mkdir(parents=True, exist_ok=True)
    (out / f"good_parts_{folder.name}.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
