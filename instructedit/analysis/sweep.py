"""What the analyses of a study's runs share: parts of a sweep, their numbers, what is missing, and the numbers as CSV.

A part is one place on a figure's axis: a run, or several that differ in their seed. A part whose runs are all missing
keeps its place, with empty numbers. Knows plans and outcomes; nothing of figures.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from instructedit.analysis.seeds import Pooled, difference_over, pooled_over
from instructedit.errors import InputError
from instructedit.evaluation.metrics import METRICS
from instructedit.study.cells import Cells
from instructedit.study.plan import Study
from instructedit.study.results import Results
from instructedit.terminal import quoted

METRICS_SHOWN = METRICS[:4]
"""The metrics of the figures."""

METRICS_COUNTED = METRICS[:5]
"""The metrics of the tables: those, and the success that convsent has instead of generalization and portability."""

IN_DISTRIBUTION, HELD_OUT = "in distribution", "held out"


@dataclass(frozen=True)
class Part:
    """One place on an axis.

    Args:
        label: what the figure calls it.
        runs: its runs, a seed each, as planned.
        row: the row of their outcomes that is looked at.
        trained: the tasks they were trained on.
    """

    label: str
    runs: tuple[str, ...]
    row: str
    trained: tuple[str, ...]


@dataclass(frozen=True)
class Number:
    """One line of a table of numbers.

    Args:
        part: whose number it is.
        task: the task, or a name for the mean of several.
        metric: the metric.
        found: the number; None where it cannot be had.
        against: the part it is compared with; empty for a value.
        trained: whether the part was trained on the task; None where some of several.
        missing: runs it needs that are not there yet.
        paper: the paper's number in percent, or percentage points; None where it has none.
    """

    part: str
    task: str
    metric: str
    found: Pooled | None
    against: str = ""
    trained: bool | None = None
    missing: tuple[str, ...] = ()
    paper: float | None = None

    def beside(self, paper: float | None) -> "Number":
        """Return it with the paper's number beside it."""
        return replace(self, paper=paper)


@dataclass(frozen=True)
class Findings:
    """What an analysis found and wrote.

    Args:
        name: the analysis.
        numbers: every line of its table.
        missing: runs that are not there yet, in the plan's order.
        statements: what can be said, a sentence each.
        files: what was written: pictures, table, and a page of statements where there is one.
    """

    name: str
    numbers: tuple[Number, ...]
    missing: tuple[str, ...]
    statements: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()

    def saying(self, statements: Sequence[str]) -> "Findings":
        """Return it with what can be said."""
        return replace(self, statements=tuple(statements))

    def find(self, part: str, task: str, metric: str, against: str = "") -> Pooled | None:
        """Return a number of the table; None where it is not there, or could not be had."""
        for number in self.numbers:
            if (number.part, number.task, number.metric, number.against) == (part, task, metric, against):
                return number.found
        return None


class Sweep:
    """The runs that one analysis reads.

    Args:
        study: the plan.
        results: what came of it.
        analysis: the analysis: a section of the plan's ``analyses``.
        plan: the plan's path, as messages name it.

    Raises:
        InputError: the plan has no such section.
    """

    def __init__(self, study: Study, results: Results, analysis: str, plan: str = "PLAN") -> None:
        self.study, self.results, self.analysis, self.plan = study, results, analysis, plan
        self._cells = Cells(results)
        if not study.analyses.get(analysis):
            raise InputError(
                f"The study {study.name} has no section analyses.{analysis}, which says what runs it reads. Write one "
                "as configs/study/smollm2-135m.yaml does."
            )
        self.section: Mapping[str, Any] = study.analyses[analysis]

    def part(self, label: str, runs: str | Sequence[str], row: str = "") -> Part:
        """Make a part of runs.

        Args:
            label: what to call it.
            runs: one run, or several that differ in their seed.
            row: the row looked at; the first one of the runs when empty.

        Raises:
            InputError: there are no runs, or they have no such row.
        """
        names = (runs,) if isinstance(runs, str) else tuple(runs)
        if not names:
            raise InputError(f"analyses.{self.analysis} of {self.study.name} names no run for {label!r}. Name one.")
        first = self.study.run(names[0])
        row = row or self.study.rows(first)[0]
        for name in names:
            if row not in self.study.rows(self.study.run(name)):
                raise InputError(
                    f"Run {name!r} has no row {row!r}, which analyses.{self.analysis} of {self.study.name} looks at in "
                    f"{label!r}; it has {', '.join(self.study.rows(self.study.run(name)))}."
                )
        return Part(label, names, row, tuple(first.setting("data.tasks", ()) or ()))

    def value(self, part: Part, task: str, metric: str, tasks: Sequence[str] = ()) -> Number:
        """Return a part's number on a task, or its mean over ``tasks``, which ``task`` then is a name for."""
        over = tuple(tasks) or (task,)
        runs = [self._cells.of(run, part.row, over, metric) for run in self.done(part)]
        found = pooled_over(runs, over, metric, part.row)
        return Number(part.label, task, metric, found, "", _trained(part, over), self.missing([part]))

    def gain(self, part: Part, against: Part, task: str, metric: str, tasks: Sequence[str] = ()) -> Number:
        """Return what a part has more than another, over the records that both have; paired by seed where it can be."""
        over = tuple(tasks) or (task,)
        ours, theirs = self._cells.paired(part.runs, against.runs)
        first = [self._cells.of(run, part.row, over, metric) for run in ours]
        second = [self._cells.of(run, against.row, over, metric) for run in theirs]
        found = difference_over(first, second, over, metric, part.row, against.row)
        missing = self.missing([part, against])
        return Number(part.label, task, metric, found, against.label, _trained(part, over), missing)

    def done(self, part: Part) -> list[str]:
        """Return those of a part's runs that are there."""
        return self._cells.done(part.runs)

    def missing(self, parts: Iterable[Part]) -> tuple[str, ...]:
        """Return the runs of parts that are not there yet, in the plan's order."""
        wanted = {run for part in parts for run in part.runs}
        return tuple(run for run in self.results.missing if run in wanted)

    def check(self, parts: Sequence[Part]) -> None:
        """Refuse to go on with nothing.

        Raises:
            InputError: no run of any part is there yet.
        """
        if not any(self.done(part) for part in parts):
            made = advice(self.plan, self.results, self.missing(parts))[1].partition(" ")[2].strip()
            raise InputError(
                f"Nothing to draw: no run of analyses.{self.analysis} is in {quoted(self.results.folder)} yet. "
                f"Make them with `{made}`."
            )


def split(study: Study) -> dict[str, tuple[str, ...]]:
    """Return the study's tasks in two groups by their names: in distribution and held out; none that is empty."""
    groups = {
        IN_DISTRIBUTION: tuple(task for task in study.tasks if task not in study.held_out),
        HELD_OUT: study.held_out,
    }
    return {name: tasks for name, tasks in groups.items() if tasks}


def advice(plan: str, results: Results, missing: Sequence[str]) -> list[str]:
    """Say how missing runs are made, a line each; none where nothing is missing.

    Args:
        plan: the plan's path.
        results: where they belong.
        missing: the runs.
    """
    if not missing:
        return []
    names = ",".join(missing)
    return [
        f"missing {', '.join(missing)}",
        f"make    instructedit {reproducing(plan, results)} --only {names}",
        f"or      instructedit submit --array only={names} -- {reproducing(plan, results)}    (on SLURM)",
    ]


def reproducing(plan: str, results: Results) -> str:
    """Return the words of the command that makes runs where these results lie."""
    usual = Path(f"results/study/{results.study.name}")
    out = "" if results.folder.resolve() == usual.resolve() else f" --out {quoted(results.folder)}"
    return f"reproduce --study {quoted(plan)}{out}"


_HEAD = ("part", "against", "task", "metric", "unit", "value", "low", "high", "records", "seeds", "trained", "missing")


def table(numbers: Sequence[Number]) -> str:
    """Return numbers as CSV: percent, and percentage points for differences; with the paper's where it has any.

    A number that cannot be had has empty cells; ``missing`` then names the runs it needs. ``low`` and ``high`` are the
    ends of a 95 % interval: with ``seeds`` 1, of records alone.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    with_paper = any(number.paper is not None for number in numbers)
    writer.writerow([*_HEAD, *(["paper"] if with_paper else [])])
    for number in numbers:
        found = number.found
        cells = [""] * 5
        if found is not None:
            cells = [_cell(found.mean), _cell(found.low), _cell(found.high), str(found.n_records), str(found.n_seeds)]
        trained = "" if number.trained is None else "yes" if number.trained else "no"
        line = [number.part, number.against, number.task, number.metric, "points" if number.against else "%"]
        paper = [] if not with_paper else ["" if number.paper is None else f"{number.paper:g}"]
        writer.writerow([*line, *cells, trained, " ".join(number.missing), *paper])
    return text.getvalue()


def signed(share: float) -> str:
    """Write a difference of shares in percentage points, with its sign where it has one.

    >>> signed(0.123), signed(-0.5), signed(-0.0001)
    ('+12.3', '-50.0', '0.0')
    """
    text = f"{100 * share:+.1f}"
    return "0.0" if float(text) == 0 else text


def points(found: Pooled | None) -> str:
    """Write a difference: percentage points with their interval."""
    if found is None:
        return "not there yet"
    return f"{signed(found.mean)} points [{signed(found.low)}, {signed(found.high)}]"


def _cell(share: float) -> str:
    return f"{round(100 * share, 4) + 0.0:.4f}"  # no -0


def _trained(part: Part, tasks: Sequence[str]) -> bool | None:
    own = [task in part.trained for task in tasks]
    return own[0] if len(set(own)) == 1 else None
