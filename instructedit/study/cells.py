"""Outcomes of a study's runs cell by cell, and which runs of two sides are compared in pairs."""

from collections.abc import Sequence

from instructedit.records import Outcome
from instructedit.study.results import Results


class Cells:
    """Looks outcomes up; each run is read once.

    Args:
        results: what came of the study.
    """

    def __init__(self, results: Results) -> None:
        self.results = results
        self._cells: dict[str, dict[tuple[str, str, str], list[Outcome]]] = {}
        self._seeds: dict[str, int] = {}

    def done(self, runs: Sequence[str]) -> list[str]:
        """Return those of the runs that are there."""
        return [run for run in runs if self.results.has(run)]

    def of(self, run: str, row: str, tasks: Sequence[str], metric: str) -> list[Outcome]:
        """Return the outcomes of one row of a run for a metric on some tasks."""
        if run not in self._cells:
            cells: dict[tuple[str, str, str], list[Outcome]] = {}
            for outcome in self.results.outcomes(run):
                cells.setdefault((outcome.task, outcome.metric, outcome.method), []).append(outcome)
            self._cells[run] = cells
        return [outcome for task in tasks for outcome in self._cells[run].get((task, metric, row), ())]

    def paired(self, a: Sequence[str], b: Sequence[str]) -> tuple[list[str], list[str]]:
        """Return the runs of two sides that are there.

        Where both sides are planned with the same seeds, each once, they are those of the seeds that both have, in one
        order; so the side that is further on is not compared with what the other lacks.
        """
        planned = [[self._seed(run) for run in side] for side in (a, b)]
        if sorted(planned[0]) != sorted(planned[1]) or len(set(planned[0])) < len(planned[0]):
            return self.done(a), self.done(b)
        ours, theirs = ({self._seed(run): run for run in self.done(side)} for side in (a, b))
        common = [seed for seed in planned[0] if seed in ours and seed in theirs]
        return [ours[seed] for seed in common], [theirs[seed] for seed in common]

    def _seed(self, run: str) -> int:
        if run not in self._seeds:  # reads the configurations of its training
            self._seeds[run] = int(self.results.study.run(run).setting("seed_everything", 0))
        return self._seeds[run]
