"""How far an editor of one task serves the others: the paper's motivating matrix, and one editor for all against each.

Reads the section ``transfer`` of a study: ``singles``, a run by the task it was trained on; ``together`` and ``mend``,
the runs of InstructEdit and of MEND trained on all tasks. Every drop and gain is paired by record.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from instructedit.analysis.panels import ABSENT, forest, legend, note
from instructedit.analysis.plot import BLUE, VERMILION, dress
from instructedit.analysis.sweep import METRICS_COUNTED, METRICS_SHOWN, Findings, Number, Part, Sweep, points, signed
from instructedit.analysis.written import write
from instructedit.evaluation.paper import TRANSFER_DROPS, paper_transfer
from instructedit.study.plan import Study
from instructedit.study.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage


def transfer(study: Study, results: Results, out: Path, plan: str = "PLAN") -> Findings:
    """Measure it, and draw the matrix and the gains over each task's own editor.

    Args:
        study: the plan.
        results: its runs.
        out: the folder to write; made where it is not there.
        plan: the plan's path, as messages name it.

    Raises:
        InputError: none of its runs is there, or the folder cannot be written.
    """
    sweep = Sweep(study, results, "transfer", plan)
    singles = {
        task: sweep.part(f"{study.run(run).trained_as} on {task}", run)
        for task, run in sweep.section.get("singles", {}).items()
    }
    together = [
        sweep.part(f"{study.run(runs[0]).trained_as} on all", runs)
        for runs in (sweep.section.get("mend"), sweep.section.get("together"))
        if runs
    ]
    parts = [*singles.values(), *together]
    sweep.check(parts)
    numbers = _numbers(sweep, parts, singles)
    found = Findings("transfer", tuple(numbers), sweep.missing(parts))
    found = found.saying(_statements(found, singles, together))
    figures = {
        "transfer": lambda: _matrix(found, study, parts, singles),
        "transfer-own": lambda: _gains(found, singles, together),
    }
    return write(found, out, figures)


def _numbers(sweep: Sweep, parts: Sequence[Part], singles: Mapping[str, Part]) -> list[Number]:
    """Every part's value on every task, each followed by its difference to the task's own editor."""
    numbers = []
    trained = {part.label: task for task, part in singles.items()}
    for part in parts:
        for task in sweep.study.tasks:
            for metric in METRICS_COUNTED:
                source = trained.get(part.label, "")
                numbers.append(sweep.value(part, task, metric).beside(paper_transfer(source, task, metric)))
                if task in singles and singles[task] is not part:
                    drop = TRANSFER_DROPS.get((source, task, metric))
                    gain = sweep.gain(part, singles[task], task, metric)
                    numbers.append(gain.beside(None if drop is None else -drop))
    return numbers


def _statements(found: Findings, singles: Mapping[str, Part], together: Sequence[Part]) -> list[str]:
    labels = {part.label for part in singles.values()}
    drops = [
        number.found
        for number in found.numbers
        if number.against and number.part in labels and number.metric == "reliability"
    ]
    there = [drop for drop in drops if drop is not None]
    said = []
    if there:
        below = sum(drop.high < 0 for drop in there)
        above = sum(drop.low > 0 for drop in there)
        said.append(
            f"Reliability of editors of one task on another task, against that task's own editor: below it in {below} "
            f"of {len(there)} pairs, above it in {above}; in {len(there) - below - above} the interval includes 0."
        )
    for part in together:
        for task, own in singles.items():
            gain = found.find(part.label, task, "reliability", own.label)
            said.append(f"{part.label} minus {own.label}, reliability on {task}: {points(gain)}.")
    return said


def _matrix(found: Findings, study: Study, parts: Sequence[Part], singles: Mapping[str, Part]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 1.0 + 1.6 + 2 * 0.62 * len(parts)), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    for axis, metric in zip(axes.flat, METRICS_SHOWN, strict=True):
        shades = _heat(axis, found, study, parts, singles, metric)
    figure.colorbar(shades, ax=axes, label="% of target tokens", shrink=0.7, pad=0.02)
    figure.suptitle("Editors (rows) on the test records of every task (columns)", fontsize=12)
    note(
        figure,
        found,
        "In brackets: percentage points above the task's own editor, paired by record; framed: that editor. Intervals: "
        "transfer.csv. -: no such probe.",
        *_published(found),
        whiskers=False,
    )
    return figure


def _published(found: Findings) -> list[str]:
    """The paper's reliability of the same editors, in a line; none where the tasks are others."""
    told = [
        f"{number.part.rpartition(' ')[2]} on {number.task} {number.paper:g}"
        for number in found.numbers
        if number.paper is not None and number.metric == "reliability" and not number.against
    ]
    return [f"Paper, reliability of MEND trained on one task (GPT2-XL): {', '.join(told)}."] if told else []


def _heat(
    axis: "Axes", found: Findings, study: Study, parts: Sequence[Part], singles: Mapping[str, Part], metric: str
) -> "AxesImage":
    import numpy as np
    from matplotlib.patches import Rectangle

    shares = np.full((len(parts), len(study.tasks)), np.nan)
    for row, part in enumerate(parts):
        for column, task in enumerate(study.tasks):
            value = found.find(part.label, task, metric)
            own = singles.get(task)
            if value is None:
                gone = set(part.runs) <= set(found.missing)
                text = ABSENT.replace(" yet", "\nyet") if gone else "-"
                if gone:
                    axis.add_patch(Rectangle((column - 0.5, row - 0.5), 1, 1, fc="0.93", ec="0.75", hatch="///", lw=0))
                box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5} if gone else None
                axis.text(column, row, text, ha="center", va="center", fontsize=8, color="0.35", bbox=box)
                continue
            shares[row, column] = 100 * value.mean
            drop = found.find(part.label, task, metric, own.label) if own and own is not part else None
            text = f"{100 * value.mean:.1f}" + (f"\n({signed(drop.mean)})" if drop is not None else "")
            light = value.mean > 0.65
            axis.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if light else "black")
            if own is part:
                axis.add_patch(
                    Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, fill=False, ec="black", lw=1.8, zorder=3)
                )
    shades = axis.imshow(shares, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    axis.set_title(metric)
    held = [f"{task}\n(held out)" if task in study.held_out else task for task in study.tasks]
    axis.set_xticks(range(len(held)), held)
    axis.set_yticks(range(len(parts)), [part.label for part in parts])
    axis.tick_params(length=0)
    axis.axhline(len(singles) - 0.5, color="white", linewidth=3)
    return shades


def _gains(found: Findings, singles: Mapping[str, Part], together: Sequence[Part]) -> "Figure":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 1.9 + 0.75 * len(singles)), layout="constrained")
    axes = figure.subplots(1, len(METRICS_SHOWN), sharex=True, sharey=True)
    colours = ((VERMILION, "s"), (BLUE, "o"))
    series = {part.label: {"color": c, "marker": m} for part, (c, m) in zip(together, colours, strict=False)}
    for axis, metric in zip(axes, METRICS_SHOWN, strict=True):
        dress(axis, metric, "percentage points")
        gains = {
            (task, part.label): found.find(part.label, task, metric, own.label)
            for task, own in singles.items()
            for part in together
        }
        gone = set(found.missing)
        missing = {
            task
            for task, own in singles.items()
            if gone.issuperset(own.runs) or all(gone.issuperset(part.runs) for part in together)
        }
        forest(axis, list(singles), series, gains, missing)
        axis.axvline(0, color="0.4", linewidth=1)
    legend(figure, {f"{label}, minus the task's own editor": look for label, look in series.items()})
    note(figure, found, "Right of 0: better than an editor trained on that task alone, on the same records.")
    return figure
