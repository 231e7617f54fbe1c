"""From outcomes to a table: a row per task and method, a column per metric, with n and intervals.

Also writes outcomes to JSON lines and reads them back, so that a table can be made again at any
time. Knows nothing about models or how an outcome was measured.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rich import box
from rich.table import Table
from rich.text import Text

from instructedit.errors import InputError
from instructedit.evaluation.intervals import Estimate, estimate
from instructedit.evaluation.metrics import METRICS
from instructedit.records import Outcome

ALWAYS = METRICS[:4]
"""The columns of every table; ConvSent's success appears where a row has it."""


@dataclass(frozen=True)
class Line:
    """One row of a table.

    Args:
        task: the task.
        method: the row's name.
        n: examples behind the row.
        cells: per metric the estimate, between 0 and 1; a metric without any probe is missing.
    """

    task: str
    method: str
    n: int
    cells: Mapping[str, Estimate]


def summarise(
    outcomes: Sequence[Outcome],
    *,
    exact: bool = False,
    metrics: Sequence[str] = METRICS,
    draws: int = 2000,
    seed: int = 0,
) -> list[Line]:
    """Average outcomes over examples: one line per task and method, both in the order they first appear.

    Args:
        outcomes: one per example, method and metric.
        exact: take each metric's exact match in place of its share of tokens.
        metrics: the columns.
        draws: bootstrap samples of each interval.
        seed: of the intervals.

    Raises:
        InputError: a method has two values of one metric for one example, which would count twice.
    """
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
    suffix = "_exact" if exact else ""
    lines = []
    for task, method in sorted(values, key=lambda key: tasks.index(key[0])):
        own = values[task, method]
        cells = {
            metric: estimate(list(own[metric + suffix].values()), draws=draws, seed=seed)
            for metric in metrics
            if metric + suffix in own
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


def to_rich(lines: Sequence[Line], title: str = "") -> Table:
    """Make a table for the terminal, about 95 characters wide; values and intervals in percent."""
    columns = _columns(lines)
    table = Table(title=title or None, caption=_caption(columns), caption_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("task, method")
    for name in ("n", *columns):
        table.add_column(name, justify="right")
    for index, line in enumerate(lines):
        if index == 0 or lines[index - 1].task != line.task:
            table.add_row(Text(line.task, "bold"))
        # Intervals go below their values, so that the table fits a terminal. Text: brackets are no markup here.
        _, method, n, *cells = _texts(line, columns)
        last = index + 1 == len(lines) or lines[index + 1].task != line.task
        below = [Text(cell.replace(" [", "\n[", 1)) for cell in cells]
        table.add_row(Text("  " + method), n, *below, end_section=last)
    return table


def to_markdown(lines: Sequence[Line], title: str = "") -> str:
    """Make a Markdown table; values and intervals in percent."""
    columns = _columns(lines)
    head = ["task", "method", "n", *columns]
    rows = [head, ["---", "---", *["---:"] * (len(head) - 2)], *(_texts(line, columns) for line in lines)]
    body = "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in row) + " |" for row in rows)
    return (f"## {title}\n\n" if title else "") + f"{body}\n\n{_caption(columns)}\n"


CAPTION = (
    "Percent, with 95 % bootstrap intervals over examples; (n) where a column has fewer examples; - for no probe. "
    "Generalization is measured on rephrases and, where a record has none, on its Subject_Aliasing questions. "
    "Locality is agreement with the unedited base, not correctness. "
    "A record keeps at most so many probes of a kind as prepare --max-probes says (4 by default)."
)
SUCCESS_CAPTION = (
    "Success, of convsent alone: sigmoid(wanted - unwanted) * min(1, exp(wanted - wanted before the edit)), of mean "
    "log-probabilities per token of completions that the request does not use."
)


def _caption(columns: Sequence[str]) -> str:
    return f"{CAPTION} {SUCCESS_CAPTION}" if "success" in columns else CAPTION


def _columns(lines: Sequence[Line]) -> list[str]:
    """Return the usual metrics, then any other one in the order of its first appearance."""
    return list(dict.fromkeys([*ALWAYS, *(name for line in lines for name in line.cells)]))


def _texts(line: Line, columns: Sequence[str]) -> list[str]:
    return [line.task, line.method, str(line.n), *(_text(line.cells.get(name), line.n) for name in columns)]


def _text(cell: Estimate | None, n: int) -> str:
    if cell is None:
        return "-"
    count = f" ({cell.n})" if cell.n != n else ""
    return f"{100 * cell.mean:.1f} [{100 * cell.low:.1f}, {100 * cell.high:.1f}]{count}"


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
