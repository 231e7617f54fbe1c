"""Means and differences over records and over seeds, with 95 % intervals: one place for every analysis and report.

A run is the outcomes of one seed. Where a part of a study has several, its estimate is the mean over seeds of each
seed's mean over records, and its interval has both sources of chance: which records were asked, and which seeds the
editors were trained with. Knows outcomes and numbers; nothing of plans, files or figures.

The interval (hierarchical bootstrap, Davison and Hinkley 1997, section 3.8): each draw takes records with replacement,
the same ones for all seeds, as all seeds are asked the same, and seeds with replacement. Three seeds drawn from three
show too little of how seeds differ: drawn means vary by (k - 1) / k of what they should, and k is far from where a
normal interval holds. So the part of a draw that is due to seeds is stretched by sqrt(k / (k - 1)) * t / z, with t the
0.975 quantile of Student's t with k - 1 degrees of freedom and z the normal's (as Hesterberg 2015, "What teachers
should know about the bootstrap", section 5.2, widens a percentile interval). The part due to records stays as it is.
Simulated in tests/analysis/test_seeds.py: of three seeds it covers 95 to 99 %, where plain percentiles cover under 85 %
as soon as seeds differ more than records do; of two it covers more than it says, and is very wide.

With one seed there is nothing to draw from: the interval is that of the records alone, and ``n_seeds`` is 1. It then
says nothing about what another seed would have given.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from instructedit.evaluation.intervals import estimate
from instructedit.evaluation.metrics import UNITS
from instructedit.records import Outcome

DRAWS = 2000

# 0.975 quantiles of Student's t with 1, 2, ... degrees of freedom; of the normal beyond.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
_Z = 1.960

Runs = Sequence[Sequence[Outcome]]
"""The outcomes of a part's runs, a seed each."""

_Numbers = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Pooled:
    """A mean over seeds and records, or such a mean's difference to another.

    Args:
        mean: in the metric's own unit: shares between 0 and 1, their differences between -1 and 1.
        low: lower end of its 95 % interval.
        high: upper end.
        n_records: records behind it; where it averages over tasks, of all these together.
        n_seeds: seeds behind it; of a difference those of the side that has fewer. With 1 the interval is of records.
        tasks: the tasks behind it: those asked for that have the metric, each with the same weight.
    """

    mean: float
    low: float
    high: float
    n_records: int
    n_seeds: int
    tasks: tuple[str, ...] = ()

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval; one look among many, not corrected for the others."""
        return self.low > 0 or self.high < 0


def pooled(runs: Runs, task: str, metric: str, row: str, *, draws: int = DRAWS, seed: int = 0) -> Pooled | None:
    """Average a row's metric on one task.

    Args:
        runs: a seed's outcomes each; other rows, tasks and metrics among them do not matter.
        task: the task.
        metric: the name an outcome has, variant included, such as ``"locality_greedy"``.
        row: the row, as the outcomes have it, such as ``"InstructEdit (seen)"``.
        draws: bootstrap samples.
        seed: of the drawing.

    Returns:
        None where no record has the metric in every run, such as generalization of convsent.
    """
    return pooled_over(runs, (task,), metric, row, draws=draws, seed=seed)


def pooled_over(
    runs: Runs, tasks: Sequence[str], metric: str, row: str, *, draws: int = DRAWS, seed: int = 0
) -> Pooled | None:
    """Average ``pooled`` over tasks, each with the same weight however many records it has.

    A draw takes records of each task, and the same seeds for all of them.

    Args:
        runs: as for ``pooled``.
        tasks: the tasks; one in which no record has the metric is left out, see the result's ``tasks``.
        metric: as for ``pooled``.
        row: as for ``pooled``.
        draws: bootstrap samples.
        seed: of the drawing.

    Returns:
        None where no task is left.
    """
    tables = _tables([(runs, row)], tasks, metric)
    if not tables:
        return None
    side = {task: table for task, (table,) in tables.items()}
    return _estimate([side], metric, draws, seed, (0.0, 1.0))


def difference(
    a_runs: Runs,
    b_runs: Runs,
    task: str,
    metric: str,
    row_a: str,
    row_b: str,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Pooled | None:
    """Average a minus b over the records of one task that all runs of both have.

    The records are drawn, so a and b always share them. With as many seeds on both sides they are paired by their
    places (seed 0 with seed 0, trained on the same data in the same order); else each side's are drawn on their own.

    Args:
        a_runs: the side whose gain is asked for.
        b_runs: the side compared with; may be the same runs with another row.
        task: the task.
        metric: the name an outcome has, variant included.
        row_a: the row of a.
        row_b: the row of b.
        draws: bootstrap samples.
        seed: of the drawing.

    Returns:
        None where no record has the metric in all runs of both.
    """
    return difference_over(a_runs, b_runs, (task,), metric, row_a, row_b, draws=draws, seed=seed)


def difference_over(
    a_runs: Runs,
    b_runs: Runs,
    tasks: Sequence[str],
    metric: str,
    row_a: str,
    row_b: str,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Pooled | None:
    """Average ``difference`` over tasks, each with the same weight; parameters as there and for ``pooled_over``.

    Returns:
        None where no task is left.
    """
    tables = _tables([(a_runs, row_a), (b_runs, row_b)], tasks, metric)
    if not tables:
        return None
    if len(a_runs) == len(b_runs):
        paired = {task: a - b for task, (a, b) in tables.items()}
        return _estimate([paired], metric, draws, seed, (-1.0, 1.0))
    first, second = ({task: pair[which] for task, pair in tables.items()} for which in (0, 1))
    return _estimate([first, second], metric, draws, seed, (-1.0, 1.0))


def _tables(sides: Sequence[tuple[Runs, str]], tasks: Sequence[str], metric: str) -> dict[str, list[_Numbers]]:
    """Values by task, for each side an array (seeds, records), over the records that all runs of all sides have."""
    if not all(runs for runs, _ in sides):
        return {}
    # By side, run and task: the value of each record.
    wanted = set(tasks)
    read: list[list[dict[str, dict[str, float]]]] = []
    for runs, row in sides:
        read.append([])
        for run in runs:
            values: dict[str, dict[str, float]] = {}
            for outcome in run:
                if outcome.metric == metric and outcome.method == row and outcome.task in wanted:
                    values.setdefault(outcome.task, {})[outcome.id] = outcome.value
            read[-1].append(values)
    found = {}
    for task in dict.fromkeys(tasks):
        own = [run.get(task, {}) for side in read for run in side]
        # Sorted, so that the interval does not depend on the order the records came in.
        ids = sorted(set.intersection(*map(set, own)))
        if ids:
            found[task] = [np.array([[run[task][each] for each in ids] for run in side]) for side in read]
    return found


def _estimate(
    sides: Sequence[Mapping[str, _Numbers]], metric: str, draws: int, seed: int, bounds: tuple[float, float]
) -> Pooled:
    """Estimate the first side, or the first minus the second; by task an array (seeds, records)."""
    tasks = tuple(sides[0])
    n_records = sum(sides[0][task].shape[1] for task in tasks)
    n_seeds = min(side[tasks[0]].shape[0] for side in sides)
    if len(sides) == 1 and n_seeds == 1 and len(tasks) == 1:
        # The interval that a table of the same rows has.
        found = estimate(sides[0][tasks[0]][0].tolist(), draws=draws, seed=seed)
        return Pooled(found.mean, found.low, found.high, n_records, 1, tasks)
    mean, drawn = 0.0, np.zeros(draws)
    # What each side's seeds average over the records drawn, (seeds, draws): the same records for both sides.
    averages = [np.zeros((side[tasks[0]].shape[0], draws)) for side in sides]
    for place, task in enumerate(tasks):
        weights = _weights(sides[0][task].shape[1], draws, seed, place)
        for side, average in zip(sides, averages, strict=True):
            average += side[task] @ weights / len(tasks)
    for place, (side, average, sign) in enumerate(zip(sides, averages, (1.0, -1.0), strict=False)):
        k = len(average)
        mean += sign * sum(float(side[task].mean()) for task in tasks) / len(tasks)
        seeds = np.random.RandomState([seed, len(tasks), place]).randint(0, k, size=(draws, k))
        taken = np.take_along_axis(average.T, seeds, axis=1).mean(1)
        middle = average.mean(0)
        drawn += sign * (middle + _stretch(k) * (taken - middle))
    low, high = np.quantile(drawn, [0.025, 0.975]).tolist()
    if UNITS.get(metric.partition("_")[0], "share") == "share":
        # Stretched beyond what a share can be, an end says no more than the bound does.
        low, high = max(low, bounds[0]), min(high, bounds[1])
    # Rows that are the same differ by 0, not by what sums lose to rounding.
    return Pooled(round(mean, 12), round(low, 12), round(high, 12), n_records, n_seeds, tasks)


@lru_cache(maxsize=16)
def _weights(n: int, draws: int, seed: int, place: int) -> _Numbers:
    """What each of n records weighs in each draw, (n, draws): how often it is drawn, over n.

    An analysis asks for the same again and again, a number after the other.
    """
    picked = np.random.RandomState([seed, place]).randint(0, n, size=(draws, n))
    places = picked + n * np.arange(draws)[:, None]
    return np.ascontiguousarray(np.bincount(places.ravel(), minlength=n * draws).reshape(draws, n).T / n)


def _stretch(k: int) -> float:
    """By how much the part of a draw that is due to k seeds is stretched; see above."""
    if k == 1:
        return 1.0  # there is no such part
    t = _T[k - 2] if k - 2 < len(_T) else _Z
    return math.sqrt(k / (k - 1)) * t / _Z
