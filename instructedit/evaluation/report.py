"""Writes all tables of an evaluation, in every format. Knows outcomes and a folder; not how they were measured."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from instructedit.evaluation.formats import to_csv, to_markdown
from instructedit.evaluation.latex import PREAMBLE, to_latex
from instructedit.evaluation.layout import Table, make_table
from instructedit.evaluation.metrics import named
from instructedit.evaluation.tables import missed_by
from instructedit.records import Outcome

TITLES: Mapping[str, str] = {
    "": "Token accuracy",
    "exact": "Exact match",
    "greedy": "Greedy generation: token accuracy",
    "greedy_exact": "Greedy generation: exact match",
}
"""The section of each variant."""

MISSED = "Only records that Base gets wrong"


def write_tables(
    folder: Path,
    outcomes: Sequence[Outcome],
    *,
    title: str = "",
    stamp: Mapping[str, object] | None = None,
    paper: str | None = None,
    held_out: Sequence[str] = (),
) -> list[Table]:
    """Write ``table.md``, ``table.csv`` and ``table.tex``, each whole or not at all.

    Args:
        folder: where; made if it is not there.
        outcomes: one per example, method and metric.
        title: what stands above all tables.
        stamp: what the rows were made with; ``dirty``, ``partial`` and ``base`` are looked at (see ``Table``).
        paper: whose published numbers stand beside ours, one of ``PAPER_BASES``.
        held_out: tasks no editor was trained on.

    Returns:
        One table per variant that was measured, token accuracy first, then the records that Base gets wrong.

    Raises:
        InputError: a record is counted twice, or the paper has no such base.
    """
    around: dict[str, Any] = {"stamp": stamp or {}, "paper": paper or "", "held_out": tuple(held_out)}
    tables = [make_table(outcomes, section, variant=variant, **around) for variant, section in TITLES.items()]
    if any(outcome.method == "Base" and outcome.metric == named("reliability", "exact") for outcome in outcomes):
        tables.append(make_table(missed_by(outcomes), MISSED, records="missed by Base", **around))
    tables = [table for table in tables if table.lines]
    told = ", ".join(f"{key} {value}" for key, value in (stamp or {}).items())
    markdown = [f"# {title}\n" if title else "", f"{told}\n" if told else "", *map(to_markdown, tables)]
    latex = [f"% {_line(title)}\n% {_line(told)}\n% Needs {PREAMBLE}\n", *map(to_latex, tables)]
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / "table.md", "\n".join(part for part in markdown if part))
    write_whole(folder / "table.csv", to_csv(tables))
    write_whole(folder / "table.tex", "\n".join(latex))
    return tables


def numbers(tables: Sequence[Table]) -> dict[str, Any]:
    """Return every table's estimates, in the metrics' own units, as plain dicts for JSON: title, row, metric."""
    return {
        table.title: {
            f"{line.task} / {line.method}": {
                metric: {"mean": cell.mean, "low": cell.low, "high": cell.high, "n": cell.n}
                for metric, cell in line.cells.items()
            }
            for line in table.lines
        }
        for table in tables
    }


def _line(text: str) -> str:
    """A comment must not go on in the next line."""
    return " ".join(text.split())


def write_whole(path: Path, text: str) -> None:
    """Write a text whole or not at all."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
