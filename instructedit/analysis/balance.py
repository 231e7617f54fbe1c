"""In which shares the training tasks are mixed, and what that does to the held-out task and the others (Figure 4d).

Reads the section ``balance`` of a study: runs by a name for their shares; the first one is compared with.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from instructedit.analysis.panels import METRIC_LOOKS, forest, legend, note
from instructedit.analysis.plot import dress
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
from instructedit.study.plan import Study
from instructedit.study.results import Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def balance(study: Study, results: Results, out: Path, plan: str = "PLAN") -> Findings:
    """Measure it, and draw it; parameters and errors as for `transfer.transfer`."""
    sweep = Sweep(study, results, "balance", plan)
    parts = [sweep.part(name, runs) for name, runs in sweep.section.items()]
    sweep.check(parts)
    found = Findings("balance", tuple(_numbers(sweep, parts)), sweep.missing(parts))
    found = found.saying(_statements(found, study, parts))
    return write(found, out, {"balance": lambda: _panels(found, study, parts)})


def _numbers(sweep: Sweep, parts: Sequence[Part]) -> list[Number]:
    """Every part's values by task and in the means, each followed by its difference to the first part's."""
    numbers = []
    several = {name: tasks for name, tasks in split(sweep.study).items() if len(tasks) > 1}
    for part in parts:
        for task, over in {**{task: () for task in sweep.study.tasks}, **several}.items():
            for metric in METRICS_COUNTED:
                numbers.append(sweep.value(part, task, metric, over))
                if part is not parts[0]:
                    numbers.append(sweep.gain(part, parts[0], task, metric, over))
    return numbers


def _statements(found: Findings, study: Study, parts: Sequence[Part]) -> list[str]:
    return [
        f"Held-out {task}, reliability: {part.label} minus {parts[0].label}: "
        f"{points(found.find(part.label, task, 'reliability', parts[0].label))}."
        for task in study.held_out
        for part in parts[1:]
    ]


def _panels(found: Findings, study: Study, parts: Sequence[Part]) -> "Figure":
    from matplotlib.figure import Figure

    # The held-out task is what it is about.
    tasks = [*study.held_out, *(task for task in study.tasks if task not in study.held_out)]
    figure = Figure(figsize=(10.5, 1.9 + 0.8 * len(parts)), layout="constrained")
    axes = figure.subplots(1, len(tasks), sharex=True, sharey=True, squeeze=False)[0]
    series = {metric: METRIC_LOOKS[metric] for metric in METRICS_SHOWN}
    missing = [part.label for part in parts if set(part.runs) <= set(found.missing)]
    labels = [f"{part.label}\n{shares(study, part)}" for part in parts]
    for axis, task in zip(axes, tasks, strict=True):
        dress(axis, f"{task} (held out)" if task in study.held_out else task, "%")
        values = {
            (part.label, metric): found.find(part.label, task, metric) for part in parts for metric in METRICS_SHOWN
        }
        forest(axis, [part.label for part in parts], series, values, missing, labels)
    legend(figure, series)
    trained = next((part.trained for part in parts if part.trained), ())
    note(figure, found, f"Under each name: shares of {', '.join(trained)} among the edits of training.")
    return figure


def shares(study: Study, part: Part) -> str:
    """Write a part's shares of training tasks in their order, such as ``40 / 40 / 20 %``; empty where not given."""
    given = study.run(part.runs[0]).setting("data.balance")
    if given == "equal":
        given = dict.fromkeys(part.trained, 1)
    if not isinstance(given, Mapping) or not part.trained or set(given) < set(part.trained):
        return ""
    whole = sum(float(given[task]) for task in part.trained)
    return " / ".join(f"{100 * float(given[task]) / whole:.0f}" for task in part.trained) + " %"
