"""Panels of a sweep's figures: means with intervals, legends outside the data, notes on what is missing.

Knows matplotlib's axes and `Pooled` numbers; nothing of plans. Everything is drawn in percent or percentage points.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from instructedit.analysis.plot import looks
from instructedit.analysis.seeds import Pooled
from instructedit.analysis.sweep import METRICS_COUNTED, Findings

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

METRIC_LOOKS = looks(METRICS_COUNTED)

ABSENT, NO_PROBE = "not made yet", "no such probe"


def forest(
    axis: "Axes",
    groups: Sequence[str],
    series: Mapping[str, Mapping[str, Any]],
    found: Mapping[tuple[str, str], Pooled | None],
    missing: Collection[str],
    labels: Sequence[str] = (),
) -> None:
    """Draw means with intervals under each other: a band for each group, a marker for each series in it.

    A group without any number keeps its band, which says why.

    Args:
        axis: where.
        groups: from top to bottom.
        series: colour and marker of each.
        found: numbers by group and series, in shares.
        missing: groups whose runs are not there yet; another one without numbers has no such probe.
        labels: what the bands are called, where it is not the group's name.
    """
    # A series that this panel has nothing of takes no room.
    own = [name for name in series if any(found.get((group, name)) for group in groups)]
    step = 0.7 / max(1, len(own))
    for place, group in enumerate(groups):
        for index, name in enumerate(own):
            value = found.get((group, name))
            if value is not None:
                at = place + step * (index - (len(own) - 1) / 2)
                axis.errorbar(100 * value.mean, at, xerr=_arms(value), **whiskers(series[name]))
        if not any(found.get((group, name)) for name in series):
            absent(axis, 0.5, place, ABSENT if group in missing else NO_PROBE, across=True)
    axis.set_ylim(len(groups) - 0.5, -0.5)
    axis.set_yticks(range(len(groups)), labels or groups)
    axis.tick_params(axis="y", length=0)
    for border in range(1, len(groups)):
        axis.axhline(border - 0.5, color="0.85", linewidth=0.8, zorder=0)
    axis.grid(visible=False, axis="y")


def upright(axis: "Axes", x: float, value: Pooled, look: Mapping[str, Any], *, filled: bool = True) -> None:
    """Draw one mean with its interval above and below."""
    axis.errorbar(x, 100 * value.mean, yerr=_arms(value), **whiskers(look, filled=filled))


def absent(axis: "Axes", x: float, y: float, why: str = ABSENT, *, across: bool = False) -> None:
    """Say why there is no number; across: x is a share of the panel's width, else y of its height."""
    where = axis.get_yaxis_transform() if across else axis.get_xaxis_transform()
    turn = 0 if across else 90
    box = {"facecolor": "white", "edgecolor": "none", "pad": 2}
    axis.text(x, y, why, ha="center", va="center", color="0.35", fontsize=9, transform=where, rotation=turn, bbox=box)


def whiskers(look: Mapping[str, Any], *, filled: bool = True) -> dict[str, Any]:
    """Return the style of a marker with whiskers."""
    face = look["color"] if filled else "white"
    return {**look, "linestyle": "", "markersize": 5.5, "markerfacecolor": face, "elinewidth": 1.4, "capsize": 2.5}


def legend(figure: "Figure", entries: Mapping[str, Mapping[str, Any]], columns: int | None = None) -> None:
    """Draw a legend above the panels: by its text, each entry's style; in one line, or in columns."""
    from matplotlib.lines import Line2D

    styles = [{"linestyle": "", "markersize": 6.5, **look} for look in entries.values()]
    handles = [Line2D([], [], label=text, **style) for text, style in zip(entries, styles, strict=True)]
    ncols = columns or len(handles)
    figure.legend(handles=handles, loc="outside upper center", ncols=ncols, frameon=False, handletextpad=0.4)


def note(figure: "Figure", found: Findings, *more: str, whiskers: bool = True) -> None:
    """Write small lines under the panels: what a whisker is, more where there is more, and what is missing."""
    seeds = {number.found.n_seeds for number in found.numbers if number.found is not None}
    several = f" and of seeds where there are several (up to {max(seeds)})" if max(seeds, default=1) > 1 else ""
    lines = [*([f"Whiskers: 95 % interval, of records{several}."] if whiskers else []), *more]
    if found.missing:
        lines.append(_folded(f"NOT MADE YET: {', '.join(found.missing)}."))
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=8.5, color="0.25")


def _folded(text: str) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(text, 150))


def _arms(value: Pooled) -> list[list[float]]:
    return [[max(0.0, 100 * (value.mean - value.low))], [max(0.0, 100 * (value.high - value.mean))]]
