"""How the numbers of a claim are looked up: names of rows and tasks, the paper's differences, and parts made of both.

Knows the paper's Table 3 on GPT2-XL and a study's numbers; nothing about any one claim.
"""

from collections.abc import Sequence
from typing import Literal

from instructedit.analysis.seeds import Pooled
from instructedit.evaluation.metrics import METRICS, named
from instructedit.evaluation.paper import TABLE_3, paper_number
from instructedit.study.numbers import Numbers, Rows
from instructedit.study.verdict import Part

SEEN, UNSEEN, MEND = "InstructEdit (seen)", "InstructEdit (unseen)", "MEND"
PAPER_BASE = "gpt2-xl"
"""The paper's base whose numbers stand beside ours: the only one with all four tasks."""

GENERATED = "greedy"
"""The variant of metrics that is measured by generation."""


class Evidence:
    """Makes the parts of claims.

    Args:
        numbers: the study's.
    """

    def __init__(self, numbers: Numbers) -> None:
        self.numbers = numbers
        study = numbers.study
        self.within = tuple(task for task in study.tasks if task not in study.held_out)
        self.held_out = study.held_out
        self.tasks = study.tasks
        self.seen, self.unseen, self.mend = (numbers.row(name) for name in (SEEN, UNSEEN, MEND))

    def lacking(self, *rows: Rows) -> tuple[str, ...]:
        """Return the planned runs of rows that are not there, each once."""
        return tuple(dict.fromkeys(run for each in rows for run in each.runs if run not in self.numbers.results.done))

    def part(
        self,
        a: Rows,
        b: Rows,
        tasks: Sequence[str],
        metric: str,
        *,
        about: str = "",
        variant: str = "",
        paper: float | None = None,
        side: Literal["above", "below"] = "above",
        bound: float = 0.0,
        counts: bool = True,
    ) -> Part:
        """Make the part that a minus b is on one side of a bound, in the mean over tasks.

        Args:
            a: a row.
            b: the row it is compared with.
            tasks: the tasks.
            metric: one of ``METRICS``.
            about: what it is for a reader; metric and tasks where it is empty.
            variant: how the metric was measured.
            paper: the paper's difference, in points.
            side: where the claim has it.
            bound: in the metric's own unit.
            counts: whether it decides.
        """
        how = ", by generation" if variant else ""
        text = about or f"{metric}, {self.names(tasks)}{how}"
        ours = self.numbers.gain(a, b, tasks, named(metric, variant))
        return Part(text, ours, paper, side, bound, counts, metric)

    def beside(self, a: Rows, b: Rows, tasks: Sequence[str], metric: str, **around: str) -> list[Part]:
        """Make a part that is only shown; none where nothing was measured."""
        found = self.part(a, b, tasks, metric, counts=False, **around)  # type: ignore[arg-type]
        return [found] if found.ours is not None else []

    def names(self, tasks: Sequence[str]) -> str:
        """Name one task, or the mean over several."""
        if len(tasks) == 1:
            return f"{tasks[0]} (held out)" if tasks[0] in self.held_out else tasks[0]
        if tuple(tasks) == self.within:
            return f"mean of the {len(tasks)} tasks trained on"
        return f"mean of {len(tasks)} tasks"

    def measured(self, tasks: Sequence[str], metric: str) -> tuple[str, ...]:
        """Return those of tasks that have a metric at all, by the paper's table or by our own rows."""
        return tuple(
            task
            for task in tasks
            if (PAPER_BASE, family(task), metric) in TABLE_3
            or any(self.numbers.value(row, (task,), metric) for row in (self.seen, self.mend))
        )


def family(task: str) -> str:
    """Return the paper's task behind a demo task, or the task itself."""
    return task.removeprefix("demo-")


def paper_value(task: str, row: str, metric: str) -> float | None:
    """Return the paper's number for a row, in points, where it says something about the method."""
    cell = paper_number(PAPER_BASE, family(task), row, metric)
    return cell.value if cell is not None and cell.comparable else None


def paper_gain(tasks: Sequence[str], a: str, b: str, metric: str) -> float | None:
    """Return the paper's a minus b in the mean over tasks, in points; None where it lacks one of them."""
    pairs = [(paper_value(task, a, metric), paper_value(task, b, metric)) for task in tasks]
    gains = [ours - theirs for ours, theirs in pairs if ours is not None and theirs is not None]
    return sum(gains) / len(gains) if gains and len(gains) == len(pairs) else None


def excludes(pooled: Pooled | None, sign: int) -> bool:
    """Whether an interval lies wholly above 0 (sign 1) or below it (sign -1)."""
    return pooled is not None and (pooled.low > 0 if sign > 0 else pooled.high < 0)


PROBED = METRICS[1:4]
"""Generalization, locality and portability."""
