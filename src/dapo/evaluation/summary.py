"""Tables that compare methods: a row a method, a column a figure, mean ± spread over the seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping

from dapo.evaluation.run import Evaluation
from dapo.evaluation.shift import COLUMNS, Shift
from dapo.evaluation.shots import Shots
from dapo.evaluation.tables import FIGURES, TYPE_FIGURES, Table, at, figure_table, shown, warnings_of

Results = Mapping[tuple[str, str], Evaluation]
Rows = dict[tuple[str, ...], Evaluation]
NOVEL = {path: TYPE_FIGURES[path] for path in (("localisation_auroc",), ("pixel", "auroc"), ("pixel", "f1"))}


def summary_tables(
    evaluations: Results,
    shifts: Mapping[tuple[str, str], Shift],
    shots: Mapping[tuple[str, str], Shots],
) -> dict[str, Table]:
    """{name: table}: for each test set figures and types by method; novel types, shots, shift where asked."""
    found: dict[str, Table] = {}
    for test in dict.fromkeys(test for test, _ in evaluations):
        own = {method: evaluation for (name, method), evaluation in evaluations.items() if name == test}
        found[test] = method_table(test, own)
        if any(evaluation.types for evaluation in own.values()):
            found[f"{test} by type"] = type_method_table(test, own)
        if any(evaluation.novel for evaluation in own.values()):
            found[f"{test} novel types"] = novel_method_table(test, own)
        referred = {method: found for (name, method), found in shots.items() if name == test}
        if referred:
            found[f"{test} by shots"] = shots_method_table(test, referred)
        moved = {method: shift for (name, method), shift in shifts.items() if name == test}
        if moved:
            found[f"{test} under shift"] = shift_method_table(test, moved)
            for method, shift in moved.items():
                found[f"{test} under shift, {method}"] = shift.table()
    return found


def method_table(test: str, evaluations: Mapping[str, Evaluation]) -> Table:
    """A row a method."""
    rows: Rows = {(method, seeds_of(evaluation)): evaluation for method, evaluation in evaluations.items()}
    return figure_table(test, ("method", "seeds"), rows, protocol_note(evaluations))


def seeds_of(evaluation: Evaluation) -> str:
    """How many trainings stand behind a row."""
    if evaluation.spread is not None:
        return str(len(evaluation.protocol["seeds"]))
    return "-" if evaluation.protocol.get("training_seed") is None else "1"


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
        over = {e.protocol["spread_over"]: None for e in evaluations.values() if e.spread is not None}
        parts.append(f"± = standard deviation over {' and '.join(over)}")
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


def shots_method_table(test: str, shots: Mapping[str, Shots]) -> Table:
    """A row for each method and k: mean and spread over the draws of the good parts."""
    rows: Rows = {
        (method, str(k), str(len(evaluation.protocol.get("seeds", [0]))) if k else "-"): evaluation
        for method, own in shots.items()
        for k, evaluation in own.evaluations.items()
    }
    shared = protocol_note({" ".join(names): evaluation for names, evaluation in rows.items()})
    note = " ".join([shared, *dict.fromkeys(own.note for own in shots.values() if own.note)])
    title = f"{test}, beside k good parts of the train split"
    return figure_table(title, ("method", "k", "draws"), rows, note)


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
