"""Runs held against one of them record by record, where both have rows of the same records.

Knows runs and their rows; how two rows are compared, `instructedit.evaluation.paired` knows.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from instructedit.comparison.ranking import Standing
from instructedit.comparison.runs import ComparedRun
from instructedit.errors import InputError
from instructedit.evaluation.metrics import METRICS, named
from instructedit.evaluation.paired import Comparison, compare_rows
from instructedit.records import Outcome


@dataclass(frozen=True)
class Pairs:
    """What the paired comparison found.

    Args:
        against: the run that all others are held against; empty where nothing could be compared.
        cells: every task and metric that a run has in common with it.
        notes: why something is not there.
    """

    against: str = ""
    cells: tuple[Comparison, ...] = ()
    notes: tuple[str, ...] = ()


def compare_pairs(standings: Sequence[Standing], against: ComparedRun | None, variant: str = "") -> Pairs:
    """Hold every run that has rows against one, by default the best of those that have rows.

    Records count as the same where task and id are, unless both runs know what their test data hashed to and it
    differs.

    Args:
        standings: the runs, best first.
        against: the run to hold them against.
        variant: how the metrics were measured, one of ``VARIANTS``.
    """
    wanted = {named(metric, variant) for metric in METRICS}
    rows: dict[str, list[Outcome]] = {}
    broken: list[str] = []
    for run in (standing.run for standing in standings):
        try:
            rows |= {run.name: _rows(run, wanted)} if run.outcomes else {}
        except InputError as error:
            broken.append(str(error))
    with_rows = [standing.run for standing in standings if standing.run.name in rows]
    without = [standing.run.name for standing in standings if standing.run.name not in rows]
    if len(with_rows) < 2:
        few = "No paired test: fewer than two runs have rows per record (results/test.jsonl)."
        return Pairs(notes=(*broken, few))
    if against and against.name not in rows:
        return Pairs(notes=(*broken, f"No paired test: {against.name} has no rows per record (results/test.jsonl)."))
    first = against or with_rows[0]
    notes = [*broken, f"No rows per record, so not in the paired test: {', '.join(without)}."] if without else []
    if against is None and standings[0].run is not first:
        notes.append(f"{standings[0].run.name} ranks first and has no rows per record: held against {first.name}.")
    ours = rows[first.name]
    outcomes = list(ours)
    for run in with_rows:
        if run is first:
            continue
        other = {task for task, _, _ in run.cells if _other_data(first, run, task)}
        if other:
            notes.append(f"{run.name} was tested on other records of {', '.join(sorted(other))}: not paired there.")
        outcomes += [outcome for outcome in rows[run.name] if outcome.task not in other]
    tested = {(outcome.task, outcome.metric, outcome.id) for outcome in ours}
    if not any(
        outcome.method != first.name and (outcome.task, outcome.metric, outcome.id) in tested for outcome in outcomes
    ):
        return Pairs(notes=(*notes, f"No paired test: no run has a record in common with {first.name}."))
    try:
        return Pairs(first.name, tuple(compare_rows(outcomes, first.name, variant=variant)), tuple(notes))
    except InputError as error:
        return Pairs(notes=(*notes, f"No paired test: {error}"))


def _rows(run: ComparedRun, metrics: set[str]) -> list[Outcome]:
    """The rows of the editor itself, under the run's name."""
    found = run.outcomes(run.row, metrics) if run.outcomes and run.row else ()
    return [replace(each, method=run.name) for each in found]


def _other_data(one: ComparedRun, other: ComparedRun, task: str) -> bool:
    hashes = [run.facts.get(f"data {task}/test") for run in (one, other)]
    return None not in hashes and hashes[0] != hashes[1]
