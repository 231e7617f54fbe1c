"""The section of a report with every analysis: its key numbers, and its figures where they lie.

Knows which runs the plan gives an analysis, and file names; not how a figure is drawn.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from instructedit.study.evidence import Evidence
from instructedit.study.gradients import FOLDER as GRADIENTS
from instructedit.study.gradients import gradients_there
from instructedit.study.markdown import interval, table
from instructedit.study.numbers import Rows
from instructedit.study.separation_claim import OWN, read_separation, separation_table

_TITLES: Mapping[str, str] = {
    "gradients": "Gradients (Figure 4(a))",
    "transfer": "Transfer of single-task editors",
    "tasks": "More and more tasks (Figure 4(b, c))",
    "balance": "Share of ConvSent (Figure 4(d))",
    "instructions": "Instructions and controls",
    "sensitivity": "Sensitivity to settings",
}


def analyses(e: Evidence, figures: Path, beside: Path, said: Mapping[str, Sequence[str]]) -> str:
    """Return a part for each analysis of the plan.

    Args:
        e: the study's numbers.
        figures: the folder of the figures; need not exist.
        beside: the folder the report lies in, which links are relative to.
        said: what an analysis says in words, by its name; that of the instructions stands with the controls.
    """
    pictures = sorted(figures.rglob("*.png")) if figures.is_dir() else []
    if not gradients_there(e.numbers.study, e.numbers.results, figures):
        pictures = [each for each in pictures if figures / GRADIENTS not in each.parents]
    parts = []
    for name in e.numbers.study.analyses:
        own = [each for each in pictures if each.relative_to(figures).as_posix().startswith(name)]
        told = "\n".join(f"- {sentence}" for sentence in said.get(name, ())) if name != "instructions" else ""
        parts += [f"### {_TITLES.get(name, name)}", told, _numbers(e, name, figures)]
        parts += [_picture(each, beside) for each in own] or ["No figure is there yet."]
        pictures = [each for each in pictures if each not in own]
    if pictures:
        parts += ["### Other figures", *(_picture(each, beside) for each in pictures)]
    return "\n\n".join(part for part in parts if part)


def _picture(path: Path, beside: Path) -> str:
    target = Path(os.path.relpath(path, beside)).as_posix()
    return f"![{path.stem.replace('-', ' ').replace('_', ' ')}]({target})"


def _numbers(e: Evidence, name: str, figures: Path) -> str:
    content = e.numbers.study.analyses[name]
    if name == GRADIENTS:
        ours = gradients_there(e.numbers.study, e.numbers.results, figures)
        return separation_table(read_separation(figures, OWN) if ours else [])
    shown = list(_labelled(e, name, content))
    there = [(label, rows) for label, rows in shown if e.numbers.done(rows)]
    lacking = [label for label, rows in shown if not e.numbers.done(rows)]
    told = [f"Missing: {', '.join(lacking)}."] if lacking else []
    if not there:
        return "None of its runs is there yet."
    few = [label for label, rows in there if len(e.numbers.done(rows)) < len(rows.runs)]
    told += [f"Not all seeds: {', '.join(few)}."] if few else []
    head = [
        *("editor", "seeds"),
        *(f"reliability, {e.names((task,))}" for task in e.tasks),
        *(f"generalization, {e.names((task,))}" for task in e.measured(e.held_out, "generalization")),
        f"locality, {e.names(e.tasks)}",
    ]
    return "\n\n".join([table(head, [_line(e, label, rows) for label, rows in there]), *told])


def _line(e: Evidence, label: str, rows: Rows) -> list[str]:
    asked = [
        *(((task,), "reliability") for task in e.tasks),
        *(((task,), "generalization") for task in e.measured(e.held_out, "generalization")),
        (e.tasks, "locality"),
    ]
    cells = [interval(metric, e.numbers.value(rows, tasks, metric)) for tasks, metric in asked]
    return [label, str(len(e.numbers.done(rows))), *cells]


def _labelled(e: Evidence, name: str, content: Mapping[str, Any]) -> Iterator[tuple[str, Rows]]:
    """The rows of an analysis by what a reader calls them."""
    if name == "instructions":
        runs = tuple(content.get("runs", ()))
        for row in e.numbers.study.rows(e.numbers.study.run(runs[0])) if runs else ():
            yield row, Rows(row, runs)
        return
    for label, runs in content.items():
        if isinstance(runs, Mapping):
            for inner, one in runs.items():
                rows = e.numbers.rows(one)
                yield f"{rows.row}, {inner} alone" if name == "transfer" else f"{label}: {inner}", rows
        else:
            rows = e.numbers.rows(runs)
            tasks = f"{label} task{'s' * (str(label) != '1')}"
            yield rows.row if name == "transfer" else tasks if name == "tasks" else str(label), rows
