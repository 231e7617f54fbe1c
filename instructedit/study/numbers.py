"""The numbers of a report: rows of several runs that differ in their seed, pooled, and what one gains over another.

Knows a study's plan and results; ``analysis.seeds`` has the intervals. Every number is in the metric's own unit.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from instructedit.analysis.seeds import Pooled, difference_over, pooled_over
from instructedit.study.cells import Cells
from instructedit.study.plan import Study
from instructedit.study.results import Results


@dataclass(frozen=True)
class Rows:
    """One row of runs that differ in their seed.

    Args:
        row: its name in their outcomes, such as ``"InstructEdit (seen)"``.
        runs: the runs, as planned.
    """

    row: str
    runs: tuple[str, ...]


class Numbers:
    """Looks numbers up in the runs that are done.

    Args:
        study: the plan.
        results: what came of it.
        draws: bootstrap samples of each interval.
    """

    def __init__(self, study: Study, results: Results, draws: int = 2000) -> None:
        self.study, self.results, self.draws = study, results, draws
        self._cells = Cells(results)
        self._found: dict[object, Pooled | None] = {}
        self._rows = {run.name: study.rows(run) for run in study.runs}

    def rows_of_table(self) -> list[Rows]:
        """Return the rows of the table of all methods, in the plan's order, those of missing runs too."""
        found: dict[str, list[str]] = {}
        for run in self.study.runs:
            for row in self._rows[run.name] if run.table else ():
                found.setdefault(row, []).append(run.name)
        return [Rows(row, tuple(runs)) for row, runs in found.items()]

    def row(self, name: str) -> Rows:
        """Return a row of the table by its name; without runs where the plan has none."""
        return next((rows for rows in self.rows_of_table() if rows.row == name), Rows(name, ()))

    def rows(self, runs: Sequence[str] | str) -> Rows:
        """Return the first row of runs, such as ``MEND`` or ``InstructEdit (seen)``."""
        names = (runs,) if isinstance(runs, str) else tuple(runs)
        return Rows(self._rows[names[0]][0], names) if names else Rows("", ())

    def done(self, rows: Rows) -> list[str]:
        """Return those of a row's runs that are there."""
        return self._cells.done(rows.runs)

    def value(self, rows: Rows, tasks: Sequence[str], metric: str) -> Pooled | None:
        """Return the mean over tasks, seeds and records; None where no run is there or no record has the metric."""
        key = (rows, tuple(tasks), metric)
        if key not in self._found:
            runs = [self._cells.of(run, rows.row, tasks, metric) for run in self.done(rows)]
            self._found[key] = pooled_over(runs, tasks, metric, rows.row, draws=self.draws) if runs else None
        return self._found[key]

    def gain(self, a: Rows, b: Rows, tasks: Sequence[str], metric: str) -> Pooled | None:
        """Return a minus b over the records that both have, each task with the same weight.

        Where both sides are planned with the same seeds, those that both have are compared in pairs.
        """
        key = (a, b, tuple(tasks), metric)
        if key not in self._found:
            ours, theirs = self._cells.paired(a.runs, b.runs)
            first = [self._cells.of(run, a.row, tasks, metric) for run in ours]
            second = [self._cells.of(run, b.row, tasks, metric) for run in theirs]
            both = first and second
            self._found[key] = (
                difference_over(first, second, tasks, metric, a.row, b.row, draws=self.draws) if both else None
            )
        return self._found[key]
