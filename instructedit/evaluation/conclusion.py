"""The end of an evaluation: the tables of what its ledger holds, and where everything lies; or why there is no table.

Knows what may enter a table; nothing about how the rows are made or what a table looks like.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from instructedit.errors import InputError
from instructedit.evaluation import paired
from instructedit.evaluation.formats import to_rich
from instructedit.evaluation.ledger import ROWS, RUN, TEXTS, Ledger
from instructedit.evaluation.report import write_tables, write_whole
from instructedit.evaluation.work import Work

_HEADINGS = {"": "Teacher-forced", "greedy": "By greedy generation"}
"""The variants that are printed and compared; GRACE is published by the second."""


def conclude(
    work: Work,
    ledger: Ledger,
    *,
    title: str,
    paper: str | None = None,
    against: str | None = None,
    must: bool = False,
    allow_dirty: bool = False,
    allow_partial: bool = False,
) -> None:
    """Write and print the tables, or say why there are none.

    Args:
        work: the evaluation.
        ledger: what is there.
        title: what stands above the tables.
        paper: whose published numbers stand beside ours.
        against: the row that every other is compared with.
        must: whether rows that are missing are an error, where a part of them was not what was asked for.
        allow_dirty: let rows of changed code in, with a mark.
        allow_partial: let missing rows pass, with a mark.

    Raises:
        InputError: rows are missing or dirty, and that was not allowed.
    """
    everything = work.all_portions()
    there = [portion for portion in everything if portion in ledger.rows]
    lacking = len(everything) - len(there)
    counted = f"{work.edits(there)} of {work.edits(everything)} edits"
    if lacking and (not allow_partial or not there):
        names = ", ".join(dict.fromkeys(f"{p.row} on {p.task}" for p in everything if p not in ledger.rows))
        advice = "Run without --only, --only_tasks and --only_table" + (", or with --allow_partial true." * bool(there))
        told = f"No table: {counted} are made; missing: {names}. {advice}"
        if must or allow_partial:
            raise InputError(told)
        print(told)
        _tell({"rows": ledger.folder / ROWS})
        return
    lines = [line for portion in there for line in ledger.rows[portion]]
    dirty = any(line["dirty"] for line in lines)
    if dirty and not allow_dirty:
        raise InputError(
            f"Rows in {ledger.folder} were made by changed code. Mark the table with --allow_dirty true, or make them "
            "again in another --out."
        )
    stamp = _stamp(work, ledger.run, lines) | ({"partial": counted} if lacking else {})
    outcomes = ledger.outcomes(there)
    tables = write_tables(
        ledger.folder, outcomes, title=title, stamp=stamp, paper=paper, held_out=work.settings.held_out
    )
    console = _console()
    for table in tables:
        # The exact ones and the subsets are in the files: five tables fill no screen.
        if table.variant in _HEADINGS and not table.records:
            console.print(to_rich(table))
    compared = ledger.folder / "against.md"
    if against is None:
        compared.unlink(missing_ok=True)  # an earlier one is not of these rows
    else:
        there_are = {table.variant for table in tables}
        comparisons = {
            heading: paired.compare_rows(outcomes, against, variant=variant)
            for variant, heading in _HEADINGS.items()
            if variant in there_are
        }
        parts = [f"# {title}", ", ".join(f"{key} {value}" for key, value in stamp.items()), *tables[0].warnings]
        for heading, comparison in comparisons.items():
            console.print(f"[bold]{heading}[/bold]")
            console.print(paired.to_rich(comparison))
            parts += [f"## {heading}", paired.to_markdown(comparison).strip()]
        write_whole(compared, "\n\n".join(parts) + "\n")
    _tell(
        {
            "tables (also exact match)": ledger.folder / "table.md",
            "tables as CSV, LaTeX": f"{ledger.folder / 'table.csv'}, {ledger.folder / 'table.tex'}",
            "numbers per record": ledger.folder / ROWS,
            "texts (never commit them)": ledger.folder / TEXTS,
            "settings and seconds": ledger.folder / RUN,
        }
        | ({"comparison": compared} if against is not None else {})
    )


def _stamp(work: Work, run: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Tell what the rows were made with, and the time it took."""
    commits = list(dict.fromkeys(line["commit"][:12] or "unknown" for line in lines))
    starts = run.get("starts", [])
    machines = dict.fromkeys(f"{s['device']}, {s['threads']} threads, torch {s['versions']['torch']}" for s in starts)
    seconds = sum(sum(tasks.values()) for tasks in run.get("seconds", {}).values())
    stamp = {
        "base": work.settings.base,
        "dtype": work.settings.dtype,
        "commit": ", ".join(commits),
        "made on": "; ".join(machines) or "unknown",
        "minutes": f"{seconds / 60:.1f}",
    }
    return stamp | ({"dirty": "yes"} if any(line["dirty"] for line in lines) else {})


def _tell(lies: Mapping[str, object]) -> None:
    width = max(map(len, lies))
    print("\n".join(f"{what:<{width}}  {path}" for what, path in lies.items()))


def _console() -> Console:
    """A console wide enough for a table where it is written to a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=130)
