"""A report in the terminal: what was edited in, before and after, and what stayed.

Knows reports and rich's tables, nothing of bases or editors.
"""

import math
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from instructedit.editing.report import Line, Report
from instructedit.terminal import shown

MOST_LINES = 24
"""So many questions are shown one by one; of more, those that went wrong, and how many went well."""

MOST_WARNINGS = 5

_NAMES = {
    "request": "request",
    "instructed": "with its instruction",
    "rephrase": "rephrase",
    "portability": "consequence",
}


def show(report: Report, console: Console, request: int | None = None, title: str = "Edited") -> None:
    """Print a report.

    Args:
        report: the report.
        console: where to.
        request: the only request whose questions are shown one by one; None for all.
        title: what stands above the first table.
    """
    edited = [line for line in report.edited if request in (None, line.request)]
    earlier = [line for line in report.edited if line.kind == "request" and request not in (None, line.request)]
    if edited:
        lines = _few(edited, console)
        if lines:
            console.print(_edited(lines, title))
    if earlier:
        right = sum(line.right for line in earlier)
        console.print(f"Earlier edits still answered: {right} of {len(earlier)}", highlight=False)
    if report.kept:
        _show_kept(report, console)
    for warning in report.warnings[:MOST_WARNINGS]:
        console.print(Text.assemble(("warning: ", "bold yellow"), warning), soft_wrap=True)
    if len(report.warnings) > MOST_WARNINGS:
        console.print(f"and {len(report.warnings) - MOST_WARNINGS} more warnings", highlight=False)


def _few(lines: Sequence[Line], console: Console) -> list[Line]:
    """Sum up many lines and keep those that went wrong."""
    if len(lines) <= MOST_LINES:
        return list(lines)
    for kind, name in _NAMES.items():
        own = [line for line in lines if line.kind == kind]
        if own:
            right = sum(line.right for line in own)
            console.print(f"{name}: {right} of {len(own)} answered as wanted", highlight=False)
    wrong = [line for line in lines if not line.right]
    if wrong:
        console.print(f"The first {min(MOST_LINES, len(wrong))} of {len(wrong)} that are not:", highlight=False)
    return wrong[:MOST_LINES]


def _edited(lines: Sequence[Line], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name, width in (("question", None), ("wanted", None), ("before", None), ("p", 6), ("after", None), ("p", 6)):
        table.add_column(name, width=width, justify="right" if name == "p" else "left", overflow="fold")
    table.add_column("as wanted")
    for line in lines:
        name = _NAMES[line.kind]
        asked = Text(name, "dim") if line.kind == "instructed" else Text(shown(line.prompt))
        if line.kind in ("rephrase", "portability"):
            asked = Text.assemble((f"{name}: ", "dim"), shown(line.prompt))
        table.add_row(
            asked,
            Text(shown(line.target)),
            _answer(line.before),
            _probability(line.probability_before),
            _answer(line.after),
            _probability(line.probability_after),
            Text("yes", "green") if line.right else Text("no", "bold red"),
        )
    return table


def _show_kept(report: Report, console: Console) -> None:
    own = [line for line in report.kept if line.kind == "kept"]
    if own and len(own) <= MOST_LINES:
        table = Table(title="To be kept", title_justify="left")
        for name in ("question", "before", "after", "KL"):
            table.add_column(name, justify="right" if name == "KL" else "left", overflow="fold")
        table.add_column("")
        for line in own:
            same = Text("same", "green") if line.right else Text("changed", "bold red")
            table.add_row(
                Text(shown(line.prompt)), _answer(line.before), _answer(line.after), Text(f"{line.kl:.2g}"), same
            )
        console.print(table)
    what = "answers to be kept" if own else "built-in questions (name your own with --keep)"
    seen = report.limits
    most = f" (95 % of validation within {seen.locality_kl:.2g})" if seen and not math.isnan(seen.locality_kl) else ""
    console.print(
        f"Drift: {report.changed} of {len(report.kept)} {what} changed, mean KL {report.drift:.2g} nats{most}",
        highlight=False,
        soft_wrap=True,
    )
    most = f" (95 % of validation within {seen.update_norm:.3g})" if seen else ""
    console.print(f"Size:  norm {report.update_norm:.3g}{most}", highlight=False, soft_wrap=True)


def _answer(text: str) -> Text:
    """The first line of an answer; what follows is told by dots."""
    first, _, rest = text.strip().partition("\n")
    return Text(shown(first) + (" ..." if rest.strip() else ""))


def _probability(value: float) -> Text:
    if math.isnan(value):
        return Text("-")
    return Text(f"{value:.3f}" if value >= 0.0005 else "<.001")
