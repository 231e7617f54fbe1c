"""A table as LaTeX: one ``table`` environment that needs the package booktabs and a LaTeX of 2020 or later.

Below a value stands its interval, below that the paper's number. Best is bold, second best underlined. Letters outside
ASCII stay as they are, which pdflatex takes for the European ones alone.
"""

import re
from collections.abc import Mapping

from instructedit.evaluation.formats import interval, task_name
from instructedit.evaluation.layout import Table, printed
from instructedit.evaluation.tables import Line

PREAMBLE = "\\usepackage{booktabs}"
"""What a document needs for ``to_latex``."""

_COMMANDS: Mapping[str, str] = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    # In TeX's old font encoding these would print as other characters.
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedblright{}",
    "`": r"\textasciigrave{}",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
}

_MARKS = {"best": r"\textbf", "second": r"\underline"}


def escape(text: str) -> str:
    """Write plain text so that LaTeX prints it: special characters escaped, white space folded."""
    plain = "".join(character for character in " ".join(text.split()) if character.isprintable())
    escaped = "".join(_COMMANDS.get(character, character) for character in plain)
    # Two hyphens or quotes in a row would join to a dash or a quotation mark.
    return re.sub(r"([-'])(?=\1)", r"\1{}", escaped)


def to_latex(table: Table, label: str = "") -> str:
    """Make a ``table`` environment with its caption, to be put into any document that has ``PREAMBLE``.

    Args:
        table: what to show.
        label: what follows ``tab:`` in the label; made of the title where it is empty.
    """
    width = 2 + len(table.columns)
    body = []
    for index, line in enumerate(table.lines):
        if index == 0 or table.lines[index - 1].task != line.task:
            rule = [] if index == 0 else [r"\midrule"]
            body += [*rule, rf"\multicolumn{{{width}}}{{l}}{{\textbf{{{escape(task_name(table, line.task))}}}}} \\"]
        body += _rows(table, line)
    warned = " ".join(rf"\textbf{{{escape(warning)}.}}" for warning in table.warnings)
    title = escape(table.title) + ("." if table.title else "")
    notes = escape(" ".join(table.notes("bold", "underlined")))
    name = label or re.sub(r"[^a-z0-9]+", "-", table.title.lower()).strip("-") or "results"
    head = " & ".join(["method", r"$n$", *(escape(metric) for metric in table.columns)])
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            r"\small",
            rf"\caption{{{' '.join(part for part in (title, warned, notes) if part)}}}",
            rf"\label{{tab:{name}}}",
            rf"\begin{{tabular}}{{l{'r' * (width - 1)}}}",
            r"\toprule",
            rf"{head} \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _rows(table: Table, line: Line) -> list[str]:
    """One of our lines: its values, their intervals, the paper's numbers."""
    values, intervals = [], []
    for metric in table.columns:
        if metric not in line.cells:
            values.append("--")
            intervals.append("")
            continue
        value = printed(metric, line.cells[metric].mean)
        mark = table.marks.get((line.task, line.method, metric))
        values.append(f"{_MARKS[mark]}{{{value}}}" if mark else value)
        intervals.append(_small(interval(line, metric)))
    rows = [[rf"\quad {escape(line.method)}", str(line.n), *values], ["", "", *intervals]]
    if beside := table.beside(line):
        cells = [_small(beside[metric]) if metric in beside else "" for metric in table.columns]
        rows.append([rf"\quad {_small(table.source)}", "", *cells])
    # No row begins with a bracket, which the line end before it would take for its own.
    return [rf"{' & '.join(row)} \\" for row in rows]


def _small(text: str) -> str:
    return rf"{{\scriptsize {escape(text)}}}"
