"""From outcomes to the lines of a table: a row per task and method, a column per metric, with n and intervals.

Also writes outcomes to JSON lines and reads them back, so that a table can be made again at any
time. Knows nothing about models, how an outcome was measured or what a table looks like.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from instructedit.errors import InputError
from instructedit.evaluation.intervals import Estimate, estimate
from instructedit.evaluation.metrics import METRICS, VARIANTS, named
from instructedit.records import Outcome


@dataclass(frozen=True)
class Line:
    """One row of a table.

    Args:
        task: the task.
        method: the row's name.
        n: examples behind the row.
        cells: per metric the estimate in the metric's own unit, shares between 0 and 1; a metric without any probe
            is missing.
    """

    task: str
    method: str
    n: int
    cells: Mapping[str, Estimate]


def summarise(
    outcomes: Sequence[Outcome],
    *,
    variant: str = "",
    metrics: Sequence[str] = METRICS,
    draws: int = 2000,
    seed: int = 0,
) -> list[Line]:
    """Average outcomes over examples: one line per task and method, both in the order they first appear.

    Args:
        outcomes: one per example, method and metric.
        variant: how the metrics were measured, one of ``VARIANTS``; a metric that does not have it is left out.
        metrics: the columns.
        draws: bootstrap samples of each interval.
        seed: of the intervals.

    Raises:
        InputError: a method has two values of one metric for one example, which would count twice.
        ValueError: there is no such variant.
    """
    if variant not in VARIANTS:
        raise ValueError(f"A variant is one of {VARIANTS}; found {variant!r}.")
    values: dict[tuple[str, str], dict[str, dict[str, float]]] = {}
    tasks = list(dict.fromkeys(outcome.task for outcome in outcomes))
    for outcome in outcomes:
        cell = values.setdefault((outcome.task, outcome.method), {}).setdefault(outcome.metric, {})
        if outcome.id in cell:
            raise InputError(
                f"{outcome.method} has two values of {outcome.metric} for record {outcome.id!r} of {outcome.task}. "
                "Give the rows different names, or evaluate each record once."
            )
        cell[outcome.id] = outcome.value
    lines = []
    for task, method in sorted(values, key=lambda key: tasks.index(key[0])):
        own = values[task, method]
        cells = {
            metric: estimate(list(own[named(metric, variant)].values()), draws=draws, seed=seed)
            for metric in metrics
            if named(metric, variant) in own
        }
        lines.append(Line(task, method, len({key for cell in own.values() for key in cell}), cells))
    return lines


def missed_by(outcomes: Sequence[Outcome], method: str = "Base", metric: str = "reliability_exact") -> list[Outcome]:
    """Keep the outcomes, of all methods, of the examples one method gets wrong.

    Args:
        outcomes: of several methods on the same examples.
        method: whose misses choose the examples.
        metric: an example counts as missed where this is 0.

    Raises:
        InputError: the method or metric is not among the outcomes.
    """
    missed = {(o.task, o.id): o.value == 0 for o in outcomes if o.method == method and o.metric == metric}
    if not missed:
        raise InputError(
            f"No outcome of {method!r} has {metric}: the examples it gets wrong are not known. Evaluate it."
        )
    return [outcome for outcome in outcomes if missed.get((outcome.task, outcome.id), False)]


def to_jsonl(path: Path, outcomes: Iterable[Outcome], stamp: Mapping[str, str | int | bool] | None = None) -> None:
    """Write outcomes as JSON lines, whole or not at all.

    Args:
        path: the file; its folder is made.
        outcomes: one per line.
        stamp: fields that every line gets besides, such as the commit and its dirty mark.
    """
    path = Path(path)
    clash = {field.name for field in fields(Outcome)} & set(stamp or {})
    if clash:
        raise ValueError(f"A stamp must not hide an outcome's own fields: {', '.join(sorted(clash))}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            for outcome in outcomes:
                file.write(json.dumps({**asdict(outcome), **(stamp or {})}, ensure_ascii=False) + "\n")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def from_jsonl(path: Path) -> list[Outcome]:
    """Read outcomes back; stamps are left out.

    Raises:
        InputError: the file is missing, or a line of it is malformed.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"No results at {path}. Evaluate first, or name another file.")
    names = [field.name for field in fields(Outcome)]
    outcomes = []
    # Split at line feeds alone: a text may hold other characters that count as line ends.
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), start=1):
        if not line:
            continue
        try:
            content = json.loads(line)
            outcomes.append(Outcome(**{name: content[name] for name in names}))
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path} line {number} is not an outcome: {error!r}. Evaluate again.") from error
    return outcomes
