"""More and more training tasks: what one, two and three of them give on every task, held-out ones too (Figure 4b, c).

Reads the section ``tasks`` of a study: runs by the number of tasks they were trained on.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructedit.analysis.panels import absent, legend, note, upright
from instructedit.analysis.plot import dress, looks
from instructedit.analysis.sweep import METRICS_COUNTED, Findings, Number, Part, Sweep, points
from instructedit.analysis.written import write
from instructedit.evaluation.paper import MORE_TASKS
from instructedit.study.plan import Study
from instructedit.study.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = ("reliability", "generalization")


def tasks(study: Study, results: Results, out: Path, plan: str = "PLAN") -> Findings:
    """Measure it, and draw the curves; parameters and errors as for `transfer.transfer`."""
    sweep = Sweep(study, results, "tasks", plan)
    parts = [sweep.part(str(count), runs) for count, runs in sweep.section.items()]
    sweep.check(parts)
    numbers = _numbers(sweep, parts)
    found = Findings("tasks", tuple(numbers), sweep.missing(parts))
    found = found.saying(_statements(found, study, parts))
    return write(found, out, {"tasks": lambda: _curves(found, study, parts)})


def _numbers(sweep: Sweep, parts: Sequence[Part]) -> list[Number]:
    """Every part's values, each followed by its difference to the first part's."""
    numbers = []
    for place, part in enumerate(parts):
        for task in sweep.study.tasks:
            published: Sequence[float] = MORE_TASKS.get(task, ())
            for metric in METRICS_COUNTED:
                told = published[place] if metric == "reliability" and place < len(published) else None
                numbers.append(sweep.value(part, task, metric).beside(told))
                if place > 0:
                    gain = None if told is None else told - published[0]
                    numbers.append(sweep.gain(part, parts[0], task, metric).beside(gain))
    return numbers


def _statements(found: Findings, study: Study, parts: Sequence[Part]) -> list[str]:
    said = []
    for task in study.held_out:
        for part in parts[1:]:
            gain = found.find(part.label, task, "reliability", parts[0].label)
            said.append(
                f"Held-out {task}, reliability: {part.label} training tasks minus {parts[0].label}: {points(gain)}."
            )
    return said


def _curves(found: Findings, study: Study, parts: Sequence[Part]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.4), layout="constrained")
    axes = figure.subplots(1, len(SHOWN), sharey=True)
    series = looks(study.tasks)
    for axis, metric in zip(axes, SHOWN, strict=True):
        dress(axis, metric, "training tasks", "% of target tokens" if metric == SHOWN[0] else "")
        for place, task in enumerate(study.tasks):
            shift = 0.07 * (place - (len(study.tasks) - 1) / 2)
            _curve(axis, found, parts, task, metric, shift, series[task])
            if metric == "reliability" and task in MORE_TASKS:
                published = MORE_TASKS[task][: len(parts)]
                style: dict[str, Any] = {"color": series[task]["color"], "linestyle": "--", "alpha": 0.45}
                axis.plot(range(len(published)), published, linewidth=1.3, zorder=0, **style)
        for place, part in enumerate(parts):
            if not any(found.find(part.label, task, metric) for task in study.tasks):
                absent(axis, place, 0.5)
        axis.set_xticks(range(len(parts)), [f"{part.label}\n{_wrapped(part.trained)}" for part in parts])
        axis.set_xlim(-0.35, len(parts) - 0.65)
        axis.set_ylim(-3, 103)
    names = {f"{task} (held out)" if task in study.held_out else task: series[task] for task in study.tasks}
    black = {"color": "black", "marker": "o"}
    more: dict[str, dict[str, Any]] = {
        "trained on the task": black,
        "not trained on it": {**black, "markerfacecolor": "white"},
    }
    if any(task in MORE_TASKS for task in study.tasks):
        more["paper, GPT2-XL"] = {"color": "0.4", "linestyle": "--", "marker": ""}
    legend(figure, {**names, **more}, columns=4)
    told = ["The paper's values are read off its plot, within 3."] if "paper, GPT2-XL" in more else []
    for metric in SHOWN:
        without = [t for t in study.tasks if not any(found.find(part.label, t, metric) for part in parts)]
        told += [f"No probe of {metric}: {', '.join(without)}."] if without else []
    note(figure, found, *told)
    return figure


def _curve(
    axis: "Axes", found: Findings, parts: Sequence[Part], task: str, metric: str, shift: float, look: dict[str, Any]
) -> None:
    there = [(place, part, found.find(part.label, task, metric)) for place, part in enumerate(parts)]
    drawn = [(place + shift, part, value) for place, part, value in there if value is not None]
    # Drawn from point to point: where one is missing in between, there is no line across.
    for (x, _, value), (after, _, following) in zip(drawn, drawn[1:], strict=False):
        if after - x < 1.5:
            axis.plot([x, after], [100 * value.mean, 100 * following.mean], color=look["color"], linewidth=1.6)
    for x, part, value in drawn:
        upright(axis, x, value, look, filled=task in part.trained)


def _wrapped(names: Sequence[str]) -> str:
    return ",\n".join(names)
