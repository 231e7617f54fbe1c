"""Is it the instruction, or the longer prompt? An instruction against controls that each take something away from it.

Reads the section ``instructions`` of a study: ``runs``, editors asked with several instructions, a row each. Rows that
there are not are left out. Every difference is seen minus the other, paired by record and seed.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from instructedit.analysis.panels import METRIC_LOOKS, forest, legend, note
from instructedit.analysis.plot import dress
from instructedit.analysis.seeds import Pooled
from instructedit.analysis.sweep import (
    METRICS_COUNTED,
    METRICS_SHOWN,
    Findings,
    Number,
    Part,
    Sweep,
    points,
    split,
)
from instructedit.analysis.written import write
from instructedit.errors import InputError
from instructedit.study.plan import Study
from instructedit.study.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OTHERS: Mapping[str, str] = {
    "unseen": "other words",
    "wrong": "another task's",
    "shuffled": "words in another order",
    "filler": "as long, says nothing",
    "empty": "bare prompt",
}
"""The instructions compared with the seen one, and what stands in front of the prompt with each."""

Gains = Mapping[str, Pooled | None]
"""Seen minus each other instruction, by its name."""


def instructions(study: Study, results: Results, out: Path, plan: str = "PLAN") -> Findings:
    """Measure it, draw it, and say in plain words what the controls show; as `transfer.transfer` otherwise.

    Raises:
        InputError: also where the runs have no row of the seen instruction.
    """
    sweep = Sweep(study, results, "instructions", plan)
    runs = tuple(sweep.section.get("runs", ()))
    rows = study.rows(study.run(runs[0])) if runs else ()
    parts = {name: sweep.part(name, runs, row) for row in rows for name in ("seen", *OTHERS) if f"({name})" in row}
    if "seen" not in parts:
        raise InputError(f"The runs of analyses.instructions of {study.name} are not asked with seen. Add it there.")
    parts = {name: parts[name] for name in ("seen", *OTHERS) if name in parts}
    sweep.check(list(parts.values()))
    found = Findings("instructions", tuple(_numbers(sweep, parts)), sweep.missing(parts.values()))
    found = found.saying(statements(found, study))
    figures = {
        "instructions": lambda: _values(found, study, parts),
        "instructions-gains": lambda: _gains(found, study, parts),
    }
    return write(found, out, figures, {"instructions": page(found, study)})


def _numbers(sweep: Sweep, parts: Mapping[str, Part]) -> list[Number]:
    numbers = []
    places = {**{task: (task,) for task in sweep.study.tasks}, **split(sweep.study)}
    for place, tasks in places.items():
        for metric in METRICS_COUNTED:
            numbers += [sweep.value(part, place, metric, tasks) for part in parts.values()]
            others = [part for name, part in parts.items() if name != "seen"]
            numbers += [sweep.gain(parts["seen"], part, place, metric, tasks) for part in others]
    return numbers


def statements(found: Findings, study: Study) -> list[str]:
    """Say for each group of tasks and for reliability and generalization whether it is the instruction."""
    return [
        f"{place[0].upper()}{place[1:]}, {metric}: {verdict(gains(found, place, metric))}"
        for place in split(study)
        for metric in ("reliability", "generalization")
    ]


def gains(found: Findings, place: str, metric: str) -> dict[str, Pooled | None]:
    """Return seen minus each other instruction, on a task or a group of tasks."""
    return {name: found.find("seen", place, metric, name) for name in OTHERS}


def verdict(gains: Gains) -> str:
    """Say what the controls show of one metric: is it the instruction, the longer prompt, or neither?

    An interval that includes 0 shows no difference; it does not show that there is none.
    """
    filler, empty = gains.get("filler"), gains.get("empty")
    if filler is None or empty is None:
        return "cannot be said before the rows filler and empty are there."
    told = f"seen minus filler {points(filler)}, seen minus empty {points(empty)}"
    if filler.high < 0:
        said = "the instruction hurts against a text as long that says nothing"
    elif filler.low <= 0 and empty.low > 0:
        said = "this shows a longer prompt, not the instruction: a text as long that says nothing is not told apart"
    elif filler.low <= 0 and empty.high < 0:
        said = "the bare prompt does better than the instruction, which is not told apart from a text that says nothing"
    elif filler.low <= 0:
        said = "no effect shown, neither of the instruction nor of a longer prompt"
    else:
        said = "the instruction does more than a text as long that says nothing"
        said += "" if empty.low > 0 else ", but is not shown to do more than the bare prompt"
    return f"{said} ({told}).{_content(gains)}"


def _content(gains: Gains) -> str:
    """What the controls that keep a text about some task say besides."""
    same: list[str] = []
    less: list[str] = []
    more: list[str] = []
    for name, what in (("wrong", "another task's instruction"), ("shuffled", "its words in another order")):
        gain = gains.get(name)
        if gain is not None:
            told = f"{what} ({points(gain)})"
            (less if gain.low > 0 else more if gain.high < 0 else same).append(told)
    texts = (
        (less, "Seen does better than"),
        (more, "Seen does WORSE than"),
        (same, "Seen is not told apart from"),
    )
    return "".join(f" {start} {' and '.join(told)}." for told, start in texts if told)


def page(found: Findings, study: Study) -> str:
    """Return the Markdown page: the statements, and seen minus each control with intervals."""
    lines = ["# Is it the instruction, or the longer prompt?", "", *(f"- {said}" for said in found.statements), ""]
    lines += [
        "Percentage points, seen minus the row's instruction, on the same records and seeds, with 95 % intervals, not "
        "corrected for how many there are. The editor was trained with instructions, so a loss without them shows what "
        "this editor needs, not what one trained without would lose: that comparison is InstructEdit with MEND.",
        "",
    ]
    if found.missing:
        lines += [f"Not made yet: {', '.join(found.missing)}.", ""]
    for place, tasks in split(study).items():
        lines += [f"## {place[0].upper()}{place[1:]} ({', '.join(tasks)})", ""]
        lines += ["| seen minus | in front of the prompt | " + " | ".join(METRICS_SHOWN) + " |"]
        lines += ["|---|---|" + "---:|" * len(METRICS_SHOWN)]
        for name, what in OTHERS.items():
            cells = [_cell(found.find("seen", place, metric, name)) for metric in METRICS_SHOWN]
            lines.append(f"| {name} | {what} | " + " | ".join(cells) + " |")
        lines.append("")
    counts = {number.found.n_seeds for number in found.numbers if number.found is not None}
    lines.append(f"Seeds: {max(counts, default=0)}. Numbers by task: instructions.csv.")
    return "\n".join(lines) + "\n"


def _cell(gain: Pooled | None) -> str:
    return "-" if gain is None else points(gain).replace(" points", "")


def _values(found: Findings, study: Study, parts: Mapping[str, Part]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 1.7 + 0.62 * len(parts)), layout="constrained")
    axes = figure.subplots(1, len(study.tasks), sharex=True, sharey=True, squeeze=False)[0]
    series = {metric: METRIC_LOOKS[metric] for metric in METRICS_SHOWN}
    for axis, task in zip(axes, study.tasks, strict=True):
        dress(axis, f"{task} (held out)" if task in study.held_out else task, "%")
        values = {(name, metric): found.find(name, task, metric) for name in parts for metric in series}
        forest(axis, list(parts), series, values, ())
    legend(figure, series)
    note(figure, found, "Locality is asked without an instruction: the rows differ in the edit alone.")
    return figure


def _gains(found: Findings, study: Study, parts: Mapping[str, Part]) -> "Figure":
    from matplotlib.figure import Figure

    groups = {f"{place}\n({', '.join(tasks)})": place for place, tasks in split(study).items()}
    names = [name for name in parts if name != "seen"]
    figure = Figure(figsize=(10.5, 1.7 + 0.68 * len(names)), layout="constrained")
    axes = figure.subplots(1, len(groups), sharex=True, sharey=True, squeeze=False)[0]
    series = {metric: METRIC_LOOKS[metric] for metric in METRICS_SHOWN}
    for axis, (title, place) in zip(axes, groups.items(), strict=True):
        dress(axis, title, "percentage points, seen minus the row")
        values = {(name, metric): found.find("seen", place, metric, name) for name in names for metric in series}
        forest(axis, names, series, values, (), [f"{name}\n({OTHERS[name]})" for name in names])
        axis.axvline(0, color="0.4", linewidth=1)
    legend(figure, series)
    note(
        figure,
        found,
        "Right of 0: the seen instruction does better than the row's text, on the same records and seeds.",
    )
    return figure
