"""A retention curve as files: a table, a line for each question, and a picture.

Knows points and the formats; nothing of editors or bases. Ids and numbers only: no text of a record gets into a file.
"""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructedit.analysis.plot import BLUE, GREY, SUFFIXES, VERMILION, dress, figure_style, save
from instructedit.editing.retention import WAYS, Point, Way
from instructedit.evaluation.intervals import Estimate

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TABLE, LINES, PICTURE = "retention.csv", "rows.jsonl", "retention"
PICTURES = tuple(f"{PICTURE}.{suffix}" for suffix in SUFFIXES)

MEASURES = ("retention", "exact", "first_tenth", "unchanged", "kl")

LABELS: Mapping[Way, str] = {"alone": "each alone", "together": "together", "sequence": "one after another"}
_LOOKS: Mapping[Way, dict[str, Any]] = {
    "alone": {"color": GREY, "linestyle": "--", "marker": ""},
    "together": {"color": BLUE, "marker": "o"},
    "sequence": {"color": VERMILION, "marker": "s"},
}

LEAST_KL = 1e-3
"""In nats; what is below is drawn there, on a logarithmic axis."""


def table(points: Sequence[Point]) -> str:
    """Return the table as CSV: a row for each way and count, each measure with its interval.

    Without unrelated questions the cells of ``unchanged`` and ``kl`` are empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ends = [f"{name}{end}" for name in MEASURES for end in ("", "_low", "_high")]
    writer.writerow(["how", "n", "update_norm", *ends, "first", "unrelated"])
    for point in points:
        found = point.estimates()
        cells = [_number(value) for name in MEASURES for value in _ends(found.get(name))]
        size = _number(point.update_norm)
        writer.writerow([point.how, point.n, size, *cells, len(point.first), len(point.unrelated)])
    return text.getvalue()


def lines(points: Sequence[Point]) -> Iterator[str]:
    """Yield a JSON object for each edit and each unrelated record of each point, infinite numbers as null."""
    for point in points:
        for kind, questions in (("edit", point.edits), ("unrelated", point.unrelated)):
            for one in questions:
                told = {key: _plain(value) for key, value in asdict(one).items()}
                yield json.dumps({"how": point.how, "n": point.n, "kind": kind, **told})


def draw(points: Sequence[Point], folder: Path, title: str) -> list[Path]:
    """Draw the curve as PNG and SVG: edits still answered, unrelated answers unchanged, and how far these moved.

    The same points give the same bytes with one release of matplotlib.

    Args:
        points: of one editor.
        folder: where the pictures go.
        title: what was edited and by what.
    """
    from matplotlib.figure import Figure

    with figure_style():
        figure = Figure(figsize=(11, 3.9), layout="constrained")
        axes = figure.subplots(1, 3)
        for way in WAYS:
            own = [point for point in points if point.how == way]
            if own:
                _line(axes[0], own, "retention", 100, **_LOOKS[way], label=LABELS[way])
            if own and own[0].unrelated:
                _line(axes[1], own, "unchanged", 100, **_LOOKS[way])
                _line(axes[2], own, "kl", 1, **_LOOKS[way])
        counts = sorted({point.n for point in points})
        for axis, name, unit in zip(axes, _TITLES, _UNITS, strict=True):
            _dress(axis, counts, name, unit)
        for axis in axes[:2]:
            axis.set_ylim(-3, 103)
        axes[2].set_yscale("log")
        axes[2].yaxis.set_major_formatter("{x:g}")
        axes[0].legend(frameon=False, loc="best")
        figure.suptitle(title, fontsize=11)
        return save(figure, folder, PICTURE)


_TITLES = ("Edits still answered", "Unrelated answers unchanged", "Drift of unrelated answers")
_UNITS = ("% of target tokens", "% of tokens", "KL(base || edited), nats")


def _line(axis: "Axes", points: Sequence[Point], name: str, scale: float, **look: Any) -> None:
    """Draw one measure with its interval as a band; what is not finite is left out."""
    found = [(point.n, point.estimates()[name]) for point in points]
    found = [(n, value) for n, value in found if math.isfinite(value.mean)]
    least = LEAST_KL if name == "kl" else 0.0
    n = [n for n, _ in found]
    low, middle, high = (
        [max(least, scale * getattr(value, end)) for _, value in found] for end in ("low", "mean", "high")
    )
    axis.plot(n, middle, markersize=5, linewidth=1.8, **look)
    axis.fill_between(n, low, high, color=look["color"], alpha=0.15, linewidth=0)


def _dress(axis: "Axes", counts: Sequence[int], title: str, unit: str) -> None:
    axis.set_xscale("log")
    axis.set_xticks(counts, [str(n) for n in counts])
    axis.minorticks_off()
    dress(axis, title, "edits in one base", unit)


def _ends(found: Estimate | None) -> tuple[float, float, float]:
    return (math.nan,) * 3 if found is None else (found.mean, found.low, found.high)


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def _plain(value: object) -> object:
    if not isinstance(value, float):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None
