"""Tables that compare methods: a row a method, a column a figure, mean ± spread over the seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dapo.evaluation.run import Evaluation
from dapo.evaluation.shift import COLUMNS, Shift
from dapo.evaluation.tables import FIGURES, INTERVALS, TYPE_FIGURES, Table, at, shown, warnings_of

Results = Mapping[tuple[str, str], Evaluation]
NOVEL = {path: TYPE_FIGURES[path] for path in (("localisation_auroc",), ("pixel", "auroc"), ("pixel", "f1"))}


def summary_tables(evaluations: Results, shifts: Mapping[tuple[str, str], Shift]) -> dict[str, Table]:
    """{name: table}: for each test set figures and types by method; novel types and shift where asked."""
    found: dict[str, Table] = {}
    for test in dict.fromkeys(test for test, _ in evaluations):
        own = {method: evaluation for (name, method), evaluation in evaluations.items() if name == test}
        found[test] = method_table(test, own)
        if any(evaluation.types for evaluation in own.values()):
            found[f"{test} by type"] = type_method_table(test, own)
        if any(evaluation.novel for evaluation in own.values()):
            found[f"{test} novel types"] = novel_method_table(test, own)
        moved = {method: shift for (name, method), shift in shifts.items() if name == test}
        if moved:
            found[f"{test} under shift"] = shift_method_table(test, moved)
            for method, shift in moved.items():
                found[f"{test} under shift, {method}"] = shift.table()
    return found


def method_table(test: str, evaluations: Mapping[str, Evaluation]) -> Table:
    """A row a method; "0.718 ± 0.012" over seeds, "0.718 (0.65-0.79)" with the interval of a single run."""
    kept = [
        path
        for path in FIGURES
        if any(not math.isnan(at(evaluation.mean, path)) for evaluation in evaluations.values())
    ]
    rows = tuple(
        (method, seeds_of(evaluation), *(cell(evaluation, path) for path in kept))
        for method, evaluation in evaluations.items()
    )
    return Table(
        test, ("method", "seeds", *(FIGURES[path] for path in kept)), rows, protocol_note(evaluations)
    )


def seeds_of(evaluation: Evaluation) -> str:
    """How many trainings stand behind a row."""
    if evaluation.spread is not None:
        return str(len(evaluation.protocol["seeds"]))
    return "-" if evaluation.protocol.get("training_seed") is None else "1"


def cell(evaluation: Evaluation, path: tuple[str, str]) -> str:
    value = shown(at(evaluation.mean, path))
    if evaluation.spread is not None:
        deviation = at(evaluation.spread, path)
        return value if math.isnan(deviation) else f"{value} ± {deviation:.3f}"
    low, high = evaluation.mean.get("intervals", {}).get(INTERVALS.get(path, ""), (math.nan, math.nan))
    return value if math.isnan(low) else f"{value} ({low:.2f}-{high:.2f})"


def protocol_note(evaluations: Mapping[str, Evaluation]) -> str:
    """What all rows share."""
    protocol = next(iter(evaluations.values())).protocol
    measured = sorted({evaluation.protocol["images"] for evaluation in evaluations.values()})
    parts = [f"{' to '.join(map(str, measured[:: max(1, len(measured) - 1)]))} images measured"]
    if failed := max(evaluation.protocol.get("failed", 0) for evaluation in evaluations.values()):
        parts.append(f"{failed} failed")
    parts.append(f"split {', '.join(protocol['splits'])}")
    if protocol.get("instead"):
        parts.append(f"on {protocol['instead']} in place of the experiment's model")
    parts += sorted({f"WARNING: {said}" for e in evaluations.values() for said in warnings_of(e)})
    if any(evaluation.spread is not None for evaluation in evaluations.values()):
        parts.append("± = standard deviation over seeds")
    if any(evaluation.mean.get("intervals") for evaluation in evaluations.values()):
        unit = next(e.protocol["intervals"] for e in evaluations.values() if e.protocol.get("intervals"))
        parts.append(f"in brackets {unit}")
    if any(evaluation.protocol.get("note") for evaluation in evaluations.values()):
        notes = {
            f"{method}: {evaluation.protocol['note']}"
            for method, evaluation in evaluations.items()
            if evaluation.protocol.get("note")
        }
        parts += sorted(notes)
    return "; ".join(parts) + "."


def type_method_table(test: str, evaluations: Mapping[str, Evaluation]) -> Table:
    """A row a type; for each method its recall and the AUROC of the type's own map."""
    named = {method: e for method, e in evaluations.items() if e.types}
    types = sorted({name for evaluation in named.values() for name in evaluation.types})
    paths = [("recall",), ("pixel", "auroc")]
    kept = [
        path
        for path in paths
        if any(not math.isnan(at(row, path)) for e in named.values() for row in e.types.values())
    ]
    head = ["type", "images"] + [f"{method} {TYPE_FIGURES[path]}" for method in named for path in kept]
    rows = tuple(
        (
            name,
            str(max(e.types.get(name, {}).get("images", 0) for e in named.values())),
            *(shown(at(e.types.get(name, {}), path)) for e in named.values() for path in kept),
        )
        for name in types
    )
    return Table(f"{test}, by type", tuple(head), rows)


def novel_method_table(test: str, evaluations: Mapping[str, Evaluation]) -> Table:
    """A row a method: localisation and naming of known and of novel types."""
    named = {method: e for method, e in evaluations.items() if e.novel}
    head = ["method"] + [f"{part} {title}" for part in ("known", "novel") for title in NOVEL.values()]
    rows = tuple(
        (
            method,
            *(
                shown(at((e.novel or {}).get(part, {}), path))
                for part in ("known", "novel")
                for path in NOVEL
            ),
        )
        for method, e in named.items()
    )
    novel = (next(iter(named.values())).novel or {})["novel"]["types"]
    note = f"Novel types, absent from training: {', '.join(novel) or 'none'}."
    return Table(f"{test}, known and novel types", tuple(head), rows, note)


def shift_method_table(test: str, shifts: Mapping[str, Shift]) -> Table:
    """A row a method: clean figure, and the mean change over all corruptions in points."""
    kept = [path for path in COLUMNS if any(not math.isnan(at(s.clean.mean, path)) for s in shifts.values())]
    rows = tuple(
        (
            method,
            *(
                f"{shown(at(shift.clean.mean, path))} ({100 * shift.drops()['mean'][FIGURES[path]]:+.1f})"
                for path in kept
            ),
        )
        for method, shift in shifts.items()
    )
    note = "Clean, and in brackets the mean change in points over all corruptions and severities."
    note = " ".join([note, *dict.fromkeys(shift.note for shift in shifts.values() if shift.note)])
    return Table(
        f"{test}, under distribution shift", ("method", *(FIGURES[path] for path in kept)), rows, note
    )
