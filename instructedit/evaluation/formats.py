"""What a table looks like in the terminal, in Markdown and as CSV; ``latex`` has LaTeX.

Below each of our rows stands the paper's, where it has one. Knows nothing about what is best or comparable.
"""

import csv
import io
from collections.abc import Iterable
from typing import Any

import rich.table
from rich import box
from rich.text import Text

from instructedit.evaluation.layout import Table, printed, scale
from instructedit.evaluation.metrics import UNITS
from instructedit.evaluation.tables import Line

CSV_COLUMNS = (
    *("task", "method", "metric", "variant", "mean", "low", "high", "n", "paper"),
    *("paper_note", "unit", "records", "mark", "held_out", "commit", "warnings"),
)


def to_rich(table: Table) -> rich.table.Table:
    """Make a table for the terminal, about 95 characters wide without success and fluency."""
    title = Text("\n".join(each for each in (table.title, *table.warnings) if each))
    below = Text(" ".join(table.notes("bold", "underlined")))
    # As narrow as can be; what is still too wide is folded, never cut.
    narrow: dict[str, Any] = {"collapse_padding": True, "pad_edge": False, "box": box.SIMPLE_HEAD}
    made = rich.table.Table(title=title or None, caption=below, caption_justify="left", **narrow)
    made.add_column("task, method", overflow="fold")
    for name in ("n", *table.columns):
        made.add_column(name, justify="right", overflow="fold")
    for index, line in enumerate(table.lines):
        if index == 0 or table.lines[index - 1].task != line.task:
            made.add_row(Text(task_name(table, line.task), "bold"))
        last = index + 1 == len(table.lines) or table.lines[index + 1].task != line.task
        beside = table.beside(line)
        cells = (_terminal(table, line, metric) for metric in table.columns)
        # Text: brackets are no markup here.
        made.add_row(Text(" " + line.method), str(line.n), *cells, end_section=last and not beside)
        if beside:
            row = (f"   {table.source}", "", *(beside.get(metric, "") for metric in table.columns))
            made.add_row(*(Text(text, "dim") for text in row), end_section=last)
    return made


def to_markdown(table: Table) -> str:
    """Make a Markdown section: title, warnings, table, and the sentences below it."""
    head = ["task", "method", "n", *table.columns]
    rows = [head, ["---", "---", *["---:"] * (len(head) - 2)]]
    for line in table.lines:
        task = _escaped(task_name(table, line.task))
        rows.append([task, _escaped(line.method), str(line.n), *(_cell(table, line, name) for name in table.columns)])
        if beside := table.beside(line):
            rows.append([task, table.source, "", *(beside.get(metric, "") for metric in table.columns)])
    parts = [
        f"## {table.title}" if table.title else "",
        *(f"**{warning}.**" for warning in table.warnings),
        "\n".join("| " + " | ".join(row) + " |" for row in rows),
        " ".join(table.notes("bold", "in italics")),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def to_csv(tables: Iterable[Table]) -> str:
    """Make CSV, one row per cell of all tables; values, like the paper's, in the unit that the column ``unit`` says."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for table in tables:
        around = (table.stamp.get("commit", ""), ", ".join(warning.split(":")[0] for warning in table.warnings))
        for line in table.lines:
            for metric, cell in line.cells.items():
                numbers = (round(value * scale(metric), 6) for value in (cell.mean, cell.low, cell.high))
                published = table.published(line, metric)
                note = "greedy generation" if published and published.greedy else ""
                note = "not comparable" if published and not published.comparable else note
                unit = "%" if scale(metric) == 100 else UNITS[metric]
                row = (line.task, line.method, metric, table.variant, *numbers, cell.n)
                row = (*row, "" if published is None else published.value, note, unit, table.records or "all")
                mark = table.marks.get((line.task, line.method, metric), "")
                writer.writerow((*row, mark, str(line.task in table.held_out).lower(), *around))
    return text.getvalue()


def task_name(table: Table, task: str) -> str:
    """A task's name as a table shows it."""
    return f"{task} (held out)" if task in table.held_out else task


def interval(line: Line, metric: str) -> str:
    """A cell's interval, and its number of examples where the line has more."""
    cell = line.cells[metric]
    count = f" ({cell.n})" if cell.n != line.n else ""
    return f"[{printed(metric, cell.low)}, {printed(metric, cell.high)}]{count}"


def _terminal(table: Table, line: Line, metric: str) -> Text:
    if metric not in line.cells:
        return Text("-")
    styles = {"best": "bold", "second": "underline"}
    style = styles.get(table.marks.get((line.task, line.method, metric), ""), "")
    # The interval goes below its value, so that the table fits a terminal.
    return Text.assemble((printed(metric, line.cells[metric].mean), style), "\n", interval(line, metric))


def _cell(table: Table, line: Line, metric: str) -> str:
    if metric not in line.cells:
        return "-"
    around = {"best": "**", "second": "_"}.get(table.marks.get((line.task, line.method, metric), ""), "")
    return f"{around}{printed(metric, line.cells[metric].mean)}{around} {interval(line, metric)}"


def _escaped(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
