"""One setting changed at a time: what reliability and locality make of it, in distribution and held out, apart.

Reads the section ``sensitivity`` of a study: by setting, runs by their value of it. The run that every setting has is
the study's usual one; the part it is in, with however many seeds beside it, is what a setting's other parts are
compared with.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructedit.analysis.panels import METRIC_LOOKS, absent, legend, note, upright
from instructedit.analysis.plot import dress
from instructedit.analysis.sweep import HELD_OUT, METRICS_COUNTED, Findings, Number, Part, Sweep, points, split
from instructedit.analysis.written import write
from instructedit.study.plan import Study
from instructedit.study.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SHOWN = ("reliability", "locality")

Settings = Mapping[str, Mapping[str, Part]]
"""Parts by setting and value."""


def sensitivity(study: Study, results: Results, out: Path, plan: str = "PLAN") -> Findings:
    """Measure it, and draw a panel for each setting; parameters and errors as for `transfer.transfer`."""
    sweep = Sweep(study, results, "sensitivity", plan)
    settings = {
        setting: {str(value): sweep.part(f"{setting}: {value}", runs) for value, runs in values.items()}
        for setting, values in sweep.section.items()
    }
    parts = [part for values in settings.values() for part in values.values()]
    sweep.check(parts)
    usual = _usual(settings)
    found = Findings("sensitivity", tuple(_numbers(sweep, settings, usual)), sweep.missing(parts))
    found = found.saying(_statements(found, study, settings, usual))
    return write(found, out, {"sensitivity": lambda: _panels(found, study, settings, usual)})


def _usual(settings: Settings) -> dict[str, Part]:
    """By setting, the part with a run that every setting has; none where that does not name one part of each."""
    if len(settings) < 2:
        return {}
    common = set.intersection(*({run for part in parts.values() for run in part.runs} for parts in settings.values()))
    found = {
        setting: [part for part in parts.values() if common & set(part.runs)] for setting, parts in settings.items()
    }
    if any(len(parts) != 1 for parts in found.values()):
        return {}
    return {setting: parts[0] for setting, parts in found.items()}


def _numbers(sweep: Sweep, settings: Settings, usual: Mapping[str, Part]) -> list[Number]:
    """Every part's values in the means and by task, each followed by its difference to the usual part's."""
    numbers = []
    places = {**split(sweep.study), **{task: (task,) for task in sweep.study.tasks}}
    for setting, values in settings.items():
        middle = usual.get(setting)
        for part in values.values():
            for task, over in places.items():
                for metric in METRICS_COUNTED:
                    numbers.append(sweep.value(part, task, metric, over))
                    if middle is not None and part is not middle:
                        numbers.append(sweep.gain(part, middle, task, metric, over))
    return numbers


def _statements(found: Findings, study: Study, settings: Settings, usual: Mapping[str, Part]) -> list[str]:
    if not usual:
        return ["No value is compared with the usual one: that is the one whose run every setting names, and none is."]
    said = []
    for setting, values in settings.items():
        middle = usual.get(setting)
        for part in values.values():
            if middle is not None and part is not middle:
                told = [
                    f"{name} {points(found.find(part.label, name, 'reliability', middle.label))}"
                    for name in split(study)
                ]
                said.append(f"{part.label}, reliability against {middle.label}: {'; '.join(told)}.")
    return said


def _panels(found: Findings, study: Study, settings: Settings, usual: Mapping[str, Part]) -> "Figure":
    from matplotlib.figure import Figure

    columns = 2 if len(settings) > 1 else 1
    rows = -(-len(settings) // columns)
    figure = Figure(figsize=(5 * columns, 1.2 + 2.9 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for axis in axes.flat[len(settings) :]:
        axis.set_visible(False)
    for place, (axis, (setting, values)) in enumerate(zip(axes.flat, settings.items(), strict=False)):
        dress(axis, "", setting, "" if place % columns else "% of target tokens")
        _panel(axis, found, study, values, usual.get(setting))
    axes.flat[0].margins(y=0.08)
    several = {name: tasks for name, tasks in split(study).items()}
    entries: dict[str, dict[str, Any]] = {}
    for metric in SHOWN:
        for name, tasks in several.items():
            what = f"{metric}, {name} ({', '.join(tasks) if len(tasks) == 1 else f'mean of {len(tasks)} tasks'})"
            entries[what] = {**METRIC_LOOKS[metric], **({"markerfacecolor": "white"} if name == HELD_OUT else {})}
    legend(figure, entries, columns=2)
    note(figure, found, *(["Grey band: the study's usual value."] if usual else []))
    return figure


def _panel(axis: "Axes", found: Findings, study: Study, values: Mapping[str, Part], usual: Part | None) -> None:
    lines = [(metric, name) for metric in SHOWN for name in split(study)]
    for line, (metric, name) in enumerate(lines):
        shift = 0.11 * (line - (len(lines) - 1) / 2)
        there = [found.find(part.label, name, metric) for part in values.values()]
        style: dict[str, Any] = {"color": METRIC_LOOKS[metric]["color"], "linewidth": 1.1, "alpha": 0.6}
        style["linestyle"] = ":" if name == HELD_OUT else "-"
        drawn = [(place + shift, value) for place, value in enumerate(there) if value is not None]
        for (x, value), (after, following) in zip(drawn, drawn[1:], strict=False):
            if after - x < 1.5:
                axis.plot([x, after], [100 * value.mean, 100 * following.mean], **style)
        for x, value in drawn:
            upright(axis, x, value, METRIC_LOOKS[metric], filled=name != HELD_OUT)
    for place, part in enumerate(values.values()):
        if part is usual:
            axis.axvspan(place - 0.4, place + 0.4, color="0.92", zorder=0)
        if not any(found.find(part.label, name, metric) for metric, name in lines):
            absent(axis, place, 0.5)
    axis.set_xticks(range(len(values)), list(values))
    axis.set_xlim(-0.5, len(values) - 0.5)
