"""Two rows of a table compared record by record: what one method gains over another, and whether that could be chance.

Knows outcomes and what the comparison looks like; not how anything was measured.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import rich.table
from rich import box
from rich.text import Text

from instructedit.errors import InputError, unknown
from instructedit.evaluation.intervals import estimate, holm, sign_flip_p
from instructedit.evaluation.layout import printed
from instructedit.evaluation.metrics import METRICS, named
from instructedit.records import Outcome

LEVEL = 0.05
"""Below this a p-value counts."""

FLIPS = 9999
"""Patterns of signs drawn for a p-value, unless a comparison has so many cells that it needs more."""

CAPTION = (
    "Mean over the n records that both rows have of row minus {against}: percentage points, fluency in 0.01 bit. "
    "[ ]: 95 % interval, percentile bootstrap over records. p: two-sided sign-flip permutation test. "
    "Holm p: the same, corrected for the {cells} cells of this table. Significant: 'yes' where the interval excludes 0 "
    "and Holm p is below 0.05; 'alone' where the interval excludes 0, which among so many cells can be chance."
)


@dataclass(frozen=True)
class PairedEstimate:
    """The mean difference of two rows over the records that both have.

    Args:
        mean: of first minus second, in the metric's own unit, shares between -1 and 1.
        low: lower end of its 95 % interval.
        high: upper end.
        n: records in common.
        p: two-sided p-value of the sign-flip test, for this difference alone.
    """

    mean: float
    low: float
    high: float
    n: int
    p: float

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0; says nothing about other differences looked at besides."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Comparison:
    """One cell of a comparison.

    Args:
        task: the task.
        metric: the metric, one of ``METRICS``.
        method: the row compared.
        against: the row it is compared with.
        estimate: of method minus against.
        p_holm: the p-value corrected for all cells of the comparison.
    """

    task: str
    metric: str
    method: str
    against: str
    estimate: PairedEstimate
    p_holm: float

    @property
    def verdict(self) -> str:
        """``yes``, ``alone`` where only the uncorrected interval says so, or ``no``."""
        if not self.estimate.significant:
            return "no"
        return "yes" if self.p_holm < LEVEL else "alone"


def paired_difference(
    outcomes: Sequence[Outcome], a: str, b: str, metric: str, task: str, *, draws: int = 2000, seed: int = 0
) -> PairedEstimate:
    """Average a minus b over the records of a task that both have.

    The records are drawn, so a and b always share a draw. The interval is the percentile bootstrap's (``estimate``),
    the p-value the sign-flip test's (``sign_flip_p``).

    Args:
        outcomes: of both rows, perhaps among others.
        a: the row whose gain is asked for; its case does not matter.
        b: the row compared with.
        metric: the name an outcome has, variant included, such as ``"locality_greedy"``.
        task: the task.
        draws: bootstrap samples.
        seed: of the bootstrap and the test.

    Raises:
        InputError: there is no such row, or the two have no record in common.
    """
    first, second = (find_row(outcomes, name) for name in (a, b))
    values = _values(outcomes)
    ours, theirs = (values.get((task, metric, name), {}) for name in (first, second))
    if not ours.keys() & theirs.keys():
        raise InputError(
            f"{first} and {second} have no record of {task} in common with {metric} ({len(ours)} and {len(theirs)} "
            "records). Evaluate both on the same records."
        )
    return _difference(ours, theirs, draws, FLIPS, seed)


def compare_rows(
    outcomes: Sequence[Outcome],
    against: str,
    *,
    variant: str = "",
    metrics: Sequence[str] = METRICS,
    draws: int = 2000,
    seed: int = 0,
) -> list[Comparison]:
    """Compare every other row with one, in every task and metric that both have, by task, then row, then metric.

    Args:
        outcomes: one per example, method and metric.
        against: the row's name; its case does not matter.
        variant: how the metrics were measured, one of ``VARIANTS``.
        metrics: which of them.
        draws: bootstrap samples of each interval.
        seed: of the intervals and tests.

    Raises:
        InputError: there is no such row, or no other row has a record in common with it.
    """
    against = find_row(outcomes, against)
    rows = [name for name in dict.fromkeys(outcome.method for outcome in outcomes) if name != against]
    tasks = dict.fromkeys(outcome.task for outcome in outcomes)
    values = _values(outcomes)
    pairs: list[tuple[tuple[str, str, str], _Values, _Values]] = []
    for task in tasks:
        for row in rows:
            for metric in metrics:
                ours, theirs = (values.get((task, named(metric, variant), name), {}) for name in (row, against))
                if ours.keys() & theirs.keys():
                    pairs.append(((task, metric, row), ours, theirs))
    if not pairs:
        raise InputError(f"No other row has a record in common with {against}. Evaluate one on the same records.")
    # So many that the smallest p there can be stays significant among so many cells.
    flips = max(FLIPS, 2 * math.ceil(len(pairs) / LEVEL))
    found = [_difference(ours, theirs, draws, flips, seed) for _, ours, theirs in pairs]
    corrected = holm([cell.p for cell in found])
    return [
        Comparison(task, metric, row, against, cell, p)
        for ((task, metric, row), _, _), cell, p in zip(pairs, found, corrected, strict=True)
    ]


def find_row(outcomes: Sequence[Outcome], name: str) -> str:
    """Return the name of a row as the outcomes have it; case does not matter where only one row is meant.

    Raises:
        InputError: there is no such row.
    """
    rows = list(dict.fromkeys(outcome.method for outcome in outcomes))
    near = [row for row in rows if row == name] or [row for row in rows if row.casefold() == name.casefold()]
    if len(near) != 1:
        raise unknown("row", name, rows)
    return near[0]


def to_rich(comparisons: Sequence[Comparison]) -> rich.table.Table:
    """Make a table for the terminal, one line per cell, about 95 characters wide."""
    title, caption = Text(_title(comparisons)), Text(_caption(comparisons))
    narrow: dict[str, Any] = {"collapse_padding": True, "pad_edge": False, "box": box.SIMPLE_HEAD}
    made = rich.table.Table(title=title, caption=caption, caption_justify="left", **narrow)
    for index, name in enumerate(("task, row", *_HEAD[2:])):
        made.add_column(name, justify="left" if index < 2 else "right", overflow="fold")
    for index, cell in enumerate(comparisons):
        if index == 0 or comparisons[index - 1].task != cell.task:
            made.add_row(Text(cell.task, "bold"))
        last = index + 1 == len(comparisons) or comparisons[index + 1].task != cell.task
        texts = _texts(cell)[1:]
        made.add_row(*(Text(text) for text in (f" {texts[0]}", *texts[1:])), end_section=last)
    return made


def to_markdown(comparisons: Sequence[Comparison]) -> str:
    """Make a Markdown section, one line per cell."""
    rows = [_HEAD, (*["---"] * 3, *["---:"] * (len(_HEAD) - 3)), *map(_texts, comparisons)]
    body = "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in rows)
    return f"## {_title(comparisons)}\n\n{body}\n\n{_caption(comparisons)}\n"


_HEAD = ("task", "row", "metric", "difference", "n", "p", "Holm p", "significant")


def _texts(cell: Comparison) -> tuple[str, ...]:
    mean, low, high = (
        _signed(cell.metric, value) for value in (cell.estimate.mean, cell.estimate.low, cell.estimate.high)
    )
    p_values = (f"{p:.4f}" if p >= 0.0001 else "<0.0001" for p in (cell.estimate.p, cell.p_holm))
    return (
        cell.task,
        cell.method,
        cell.metric,
        f"{mean} [{low}, {high}]",
        str(cell.estimate.n),
        *p_values,
        cell.verdict,
    )


def _signed(metric: str, value: float) -> str:
    text = printed(metric, value)
    return text.removeprefix("-") if float(text) == 0 else text if value < 0 else f"+{text}"


def _title(comparisons: Sequence[Comparison]) -> str:
    return f"Against {comparisons[0].against}, record by record"


def _caption(comparisons: Sequence[Comparison]) -> str:
    return CAPTION.format(against=comparisons[0].against, cells=len(comparisons))


_Values = Mapping[str, float]
"""By record id."""


def _values(outcomes: Sequence[Outcome]) -> Mapping[tuple[str, str, str], _Values]:
    """Values by (task, metric, row)."""
    values: dict[tuple[str, str, str], dict[str, float]] = {}
    for outcome in outcomes:
        values.setdefault((outcome.task, outcome.metric, outcome.method), {})[outcome.id] = outcome.value
    return values


def _difference(ours: _Values, theirs: _Values, draws: int, flips: int, seed: int) -> PairedEstimate:
    differences = [value - theirs[key] for key, value in ours.items() if key in theirs]
    found = estimate(differences, draws=draws, seed=seed)
    return PairedEstimate(found.mean, found.low, found.high, found.n, sign_flip_p(differences, flips, seed))
