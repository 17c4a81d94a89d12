"""Results: what a campaign found, and its files.

OUT/tables/*.md, *.csv    mean and spread over the seeds, or the draws of good parts
OUT/results.json          everything, with protocols, and the names of the tables; written last
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dapo.evaluation.experiment import Experiment, slug
from dapo.evaluation.record import make_folder, write_text
from dapo.evaluation.run import Evaluation, without_nan
from dapo.evaluation.shift import Shift
from dapo.evaluation.shots import Shots
from dapo.evaluation.summary import summary_tables
from dapo.evaluation.tables import Table

RESULTS = "results.json"


@dataclass(frozen=True)
class Results:
    """evaluations, shifts, shots: {(test set, method): result}. adapted: {method: what was changed to fit}.
    skipped: {training image that could not be used: why}.
    """

    experiment: Experiment
    evaluations: dict[tuple[str, str], Evaluation] = field(default_factory=dict)
    shifts: dict[tuple[str, str], Shift] = field(default_factory=dict)
    shots: dict[tuple[str, str], Shots] = field(default_factory=dict)
    adapted: dict[str, tuple[str, ...]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def complaints(self) -> tuple[str, ...]:
        """A sentence for each image that was left out of a training or a test."""
        changed = (found for shift in self.shifts.values() for found in shift.changed.values())
        referred = (found for shots in self.shots.values() for found in shots.evaluations.values())
        tested = (f for e in (*self.evaluations.values(), *changed, *referred) for f in e.failures)
        trained = (
            f"not trained on: {why if path in why else f'{path}: {why}'}"
            for path, why in self.skipped.items()
        )
        return tuple(dict.fromkeys([*trained, *(failure.message for failure in tested)]))

    def tables(self) -> dict[str, Table]:
        """{name: table}: figures by method, types by method, novel types, shots, shift."""
        return summary_tables(self.evaluations, self.shifts, self.shots)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; NaN becomes null."""
        found: dict[str, Any] = {
            "experiment": self.experiment.model_dump(mode="json"),
            "adapted": {name: list(said) for name, said in self.adapted.items() if said},
            "skipped": self.skipped,
        }
        for part, rows in (("results", self.evaluations), ("shift", self.shifts), ("shots", self.shots)):
            found[part] = [
                {"test": test, "method": method, **row.to_dict()} for (test, method), row in rows.items()
            ]
        plain: dict[str, Any] = without_nan(found)
        return plain

    def write(self, out: Path) -> None:
        """The files. Tables that the results before had and these have not are removed."""
        folder = out / "tables"
        make_folder(folder)
        written = []
        for name, table in self.tables().items():
            for suffix, text in ((".md", table.to_markdown()), (".csv", table.to_csv())):
                written.append(slug(name) + suffix)
                write_text(folder / written[-1], text)
        for name in set(tables_before(out)) - set(written):
            (folder / Path(name).name).unlink(missing_ok=True)
        record = self.to_dict() | {"tables": written}
        write_text(out / RESULTS, json.dumps(record, indent=2, allow_nan=False) + "\n")


def tables_before(out: Path) -> list[str]:
    """Files of the tables that OUT/results.json speaks of; none without one."""
    try:
        record = json.loads((out / RESULTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    found = record.get("tables", []) if isinstance(record, dict) else []
    return [str(name) for name in found]
