"""The curves and intervals a page of a comparison draws, as plain data. Knows metrics' names, nothing of HTML."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from instructedit.comparison.curves import smoothed, thinned
from instructedit.comparison.ranking import lower_is_better, plain
from instructedit.comparison.runs import Cell, ComparedRun, Curve
from instructedit.evaluation.layout import scale
from instructedit.evaluation.metrics import METRICS

RAW_POINTS, SMOOTH_POINTS = 800, 250
"""How many points of a curve a page holds at most."""

NOISY_FROM = 100
"""A curve of so many points is drawn smoothed, its own values faint behind it."""

UNITS = {
    "loss": "loss, nats",
    "edit": "NLL of the target, nats per token",
    "unlikelihood": "unlikelihood, nats per token",
    "locality": "KL(base || edited), nats per token",
    "reliability": "share of tokens",
    "kept": "share of tokens",
    "update_norm": "norm",
    "grad_norm": "norm",
    "lr": "learning rate",
    "alpha_lr": "learning rate",
    "skipped_steps": "steps",
    "edits_per_second": "edits/s",
    "tokens_per_second": "tokens/s",
    "seconds_per_step": "s",
    "memory_gib": "GiB",
    "device_seconds": "s",
}


@dataclass(frozen=True)
class Panel:
    """Charts under one heading.

    Args:
        title: the heading.
        charts: what each chart is, as the page's script reads it.
        open: whether it is shown at once.
        note: a sentence below the heading.
    """

    title: str
    charts: tuple[dict[str, Any], ...]
    open: bool = True
    note: str = ""


def panels(runs: Sequence[ComparedRun]) -> list[Panel]:
    """All that can be drawn, the most asked for first."""
    names = list(dict.fromkeys(name for run in runs for name in run.curves))
    val = [name for name in names if name.startswith("val/")]
    main = [name for name in val if name.rsplit("/", 1)[-1] in METRICS]
    by_task = sorted(main, key=lambda name: (name.split("/")[1], METRICS.index(name.rsplit("/", 1)[-1])))
    train = [name for name in names if name.startswith("train/") and name != "train/loss"]
    raw = f"Thin lines: values as logged, about {RAW_POINTS} of them; thick lines: a moving mean over 4 % of the run."
    other_val = [name for name in val if name not in (*main, "val/score")]
    others = [name for name in names if "/" not in name or name.split("/")[0] not in _KNOWN]
    found = [
        Panel("Learning curves", _curves(runs, ["val/score", "train/loss"]), note=raw),
        Panel("Test table with 95 % intervals", _intervals(runs)),
        Panel("Validation per task", _curves(runs, by_task)),
        Panel("Throughput", _curves(runs, [name for name in names if name.startswith("throughput/")])),
        Panel("Training per task", _curves(runs, [name for name in train if name.count("/") > 1]), False, raw),
        Panel("Optimiser", _curves(runs, [name for name in train if name.count("/") == 1]), False),
        Panel("Validation, other ways of measuring", _curves(runs, other_val), False),
        Panel("Others", _curves(runs, others), False),
    ]
    return [panel for panel in found if panel.charts]


_KNOWN = ("val", "train", "throughput")


def _curves(runs: Sequence[ComparedRun], names: Iterable[str]) -> tuple[dict[str, Any], ...]:
    charts = []
    for name in names:
        lines = []
        for run in runs:
            curve = run.curves.get(name)
            if curve and curve.steps:
                lines.append({"run": run.name} | _line(curve))
        if any(value for line in lines for value in line["y"]):
            chart = {"kind": "curve", "title": name, "x": "optimiser step", "y": _unit(name), "lines": lines}
            charts.append(chart | {"range": _range(lines)})
    return tuple(charts)


def _line(curve: Curve) -> dict[str, Any]:
    if len(curve.steps) < NOISY_FROM:
        return {"x": list(curve.steps), "y": _rounded(curve.values)}
    smooth, raw = thinned(smoothed(curve), SMOOTH_POINTS), thinned(curve, RAW_POINTS)
    return {
        "x": list(smooth.steps),
        "y": _rounded(smooth.values),
        "raw": {"x": list(raw.steps), "y": _rounded(raw.values)},
    }


def _range(lines: Sequence[dict[str, Any]]) -> list[float] | None:
    """The part of the y axis that is shown at first where values are noisy: a few outliers would flatten the rest."""
    noisy = sorted(value for line in lines for value in line.get("raw", {}).get("y", ()))
    if not noisy:
        return None
    values = [value for line in lines for value in line["y"]] + noisy[len(noisy) // 100 : -len(noisy) // 50]
    margin = 0.05 * (max(values) - min(values) or 1.0)
    return _rounded([min(values) - margin, max(values) + margin])


def _rounded(values: Sequence[float]) -> list[float]:
    # All in one text: half as fast again as one by one, and there are hundreds of thousands.
    return list(map(float, ("%.5g " * len(values) % tuple(values)).split()))


def _unit(name: str) -> str:
    last = name.rsplit("/", 1)[-1]
    percent = "0.01 bit" if plain(last) == "fluency" else "%"
    unit = percent if name.startswith("val/") else UNITS.get(last, last)
    return f"{unit} ({'lower' if lower_is_better(name) else 'higher'} is better)" if _judged(name) else unit


def _judged(name: str) -> bool:
    last = name.rsplit("/", 1)[-1]
    return name.startswith("val/") or last in ("loss", "edit", "locality", "reliability", "edits_per_second")


def _intervals(runs: Sequence[ComparedRun]) -> tuple[dict[str, Any], ...]:
    """Per task a chart of dots with intervals, a line for each metric of the test table."""
    charts = []
    for task in dict.fromkeys(task for run in runs for task, _, _ in run.cells):
        metrics = [m for m in METRICS if m != "fluency" and any((task, run.row, m) in run.cells for run in runs)]
        dots = [
            {"run": run.name, "points": [_point(run.cells.get((task, run.row, metric)), metric) for metric in metrics]}
            for run in runs
            if run.row
        ]
        if metrics:
            charts.append({"kind": "dots", "title": task, "x": "% (higher is better)", "y": metrics, "lines": dots})
    return tuple(charts)


def _point(cell: Cell | None, metric: str) -> dict[str, float | int | None] | None:
    if cell is None:
        return None
    mean, low, high = (None if v is None else round(v * scale(metric), 3) for v in (cell.mean, cell.low, cell.high))
    return {"mean": mean, "low": low, "high": high, "n": cell.n}


def as_json(data: object) -> str:
    """JSON that can stand in a script element: no tag begins or ends in it."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
