"""Sections in the terminal and in Markdown, and everything numeric as CSV."""

import csv
import io
from collections.abc import Iterable, Sequence

import rich.table
from rich import box
from rich.console import Group, RenderableType
from rich.text import Text as Styled

from instructedit.comparison.ranking import names_in, value_of
from instructedit.comparison.runs import ComparedRun
from instructedit.comparison.sections import WIDE, Section, Text
from instructedit.comparison.settings import differing
from instructedit.terminal import shown

COLUMNS = ("run", "source", "kind", "name", "value", "low", "high", "n")


def to_rich(section: Section, numbers: Sequence[str]) -> RenderableType:
    """Make a section for the terminal.

    Args:
        section: the table.
        numbers: the runs in the order of their numbers, which stand for them where there are many columns.
    """
    notes = [Styled(shown(note), style="dim") for note in section.notes]
    title = Styled(shown(section.title), style="bold")
    if not section.rows:
        return Group(title, *notes, "")
    many = len([run for run in section.runs if run]) > WIDE
    table = rich.table.Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for place, name in enumerate(section.head):
        run = section.runs[place] if section.runs else ""
        head = f"({numbers.index(run) + 1})" if many and run else name
        left, unbroken = place < section.left, place == 0
        table.add_column(Styled(shown(head)), justify="left" if left else "right", overflow="fold", no_wrap=unbroken)
    grouped = section.head[0] in ("task", "runs")
    before = None
    for row in section.rows:
        if grouped and before not in (None, row[0].value):
            table.add_section()
        first = Styled("" if grouped and row[0].value == before else shown(row[0].value))
        table.add_row(first, *(_styled(text, numbers, section) for text in row[1:]))
        before = row[0].value
    if many:
        notes.insert(0, Styled("  ".join(f"({n}) {name}" for n, name in enumerate(numbers, 1)), style="dim"))
    return Group(title, table, *notes, "")


def _styled(text: Text, numbers: Sequence[str], section: Section) -> Styled:
    style = "bold" if text.strong else "dim" if text.faint else ""
    break_ = "\n" if section.head[0] == "task" and section.head[2] == "n" else " "
    return Styled.assemble((shown(text.value), style), break_ + shown(text.under) if text.under else "")


def to_markdown(sections: Iterable[Section]) -> str:
    """Make a Markdown page."""
    parts = ["# Comparison of runs"]
    for section in sections:
        parts.append(f"## {_escaped(section.title)}")
        if section.rows:
            rules = ["---"] * section.left + ["---:"] * (len(section.head) - section.left)
            rows = [[_escaped(name) for name in section.head], rules]
            rows += [[_marked(text) for text in row] for row in section.rows]
            parts.append("\n".join("| " + " | ".join(row) + " |" for row in rows))
        parts += map(_escaped, section.notes)
    return "\n\n".join(parts) + "\n"


def _marked(text: Text) -> str:
    value = _escaped(text.value)
    return (f"**{value}**" if text.strong else value) + (f" {_escaped(text.under)}" if text.under else "")


def _escaped(text: str) -> str:
    """Plain text as Markdown: no table, link, emphasis or tag can begin in it."""
    for sign in "\\`*_|[]<>":
        text = text.replace(sign, "&lt;" if sign == "<" else f"\\{sign}")
    return " ".join(text.split())


def to_csv(runs: Sequence[ComparedRun]) -> str:
    """Make CSV, one number a line: final values of every metric, the test table's cells, and differing settings.

    Shares of the test table are in percent, as everywhere.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    changed = differing(runs) if len(runs) > 1 else {}
    for place, run in enumerate(runs):
        for name, values in changed.items():
            writer.writerow((run.name, run.source, "setting", name, values[place], "", "", ""))
        for name in names_in([run]):
            if not name.startswith("test/") and (found := value_of(run, name)):
                writer.writerow((run.name, run.source, "metric", name, f"{found[0]:.6g}", "", "", ""))
        for (task, row, metric), cell in run.cells.items():
            name = f"test/{row}/{task}/{metric}"
            ends = value_of(run, name)
            if ends:
                numbers = ["" if end is None else f"{end:.6g}" for end in ends]
                writer.writerow((run.name, run.source, "test", name, *numbers, cell.n or ""))
    return text.getvalue()
