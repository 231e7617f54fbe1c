"""The figures of the analysis of gradients: the paper's Figure 4(a), its components, and the separations.

All of directions and, but for the one by site, of all sites together. Knows findings and matplotlib.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructedit.analysis.collect import ALL_SITES, KINDS, Kind
from instructedit.analysis.gradients import EXPLAINED, Findings, Picture
from instructedit.analysis.plot import BLUE, GREY, dress, literal, looks, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TITLES = {"silhouette": "Silhouette by task", "purity": "Neighbours of one's own task", "cosine_gap": "Cosine gap"}
UNITS = {"silhouette": "silhouette", "purity": "share of nearest neighbours", "cosine_gap": "within - between tasks"}
_OF_KIND = {"raw": {"color": GREY, "marker": "o"}, "transformed": {"color": BLUE, "marker": "s"}}


def draw_tsne(found: Findings, folder: Path, title: str) -> list[Path]:
    """Draw the editors side by side, a point a record: transformed gradients above, raw ones below."""
    figure, rows = _grid(found, 2)
    for row, kind in zip(rows, reversed(KINDS), strict=True):
        for axis, picture in zip(row, _pictures(found, kind), strict=True):
            _scatter(axis, picture.placed[:, :2], picture, looks(_tasks(found)))
            score = found.row(picture.name, kind, "silhouette").found
            told = f"silhouette {score.value:.2f} [{score.low:.2f}, {score.high:.2f}]"
            dress(axis, f"{picture.name}, {kind}\n{told}", "t-SNE 1", "t-SNE 2")
            # Distances of t-SNE have no unit.
            axis.set_xticks([])
            axis.set_yticks([])
    return _finish(figure, found, folder, "tsne", f"Editing gradients by task, t-SNE of directions\n{title}")


def draw_explained(found: Findings, folder: Path, title: str) -> list[Path]:
    """Draw the first two principal components, and how much of the variance the first ten hold."""
    figure, rows = _grid(found, 3)
    for row, kind in zip(rows, reversed(KINDS), strict=False):
        for axis, picture in zip(row, _pictures(found, kind), strict=True):
            shares = [*picture.components.explained, 0.0]
            flat = picture.components.coordinates
            _scatter(axis, flat[:, :2] if flat.shape[1] > 1 else flat[:, [0, 0]], picture, looks(_tasks(found)))
            units = (f"component {n + 1} ({100 * shares[n]:.0f} % of variance)" for n in range(2))
            dress(axis, f"{picture.name}, {kind}", *units)
    for axis, one in zip(rows[2], _pictures(found, "raw"), strict=True):
        for kind in KINDS:
            percent = 100 * found.explained[one.name, kind, "direction", ALL_SITES]
            axis.plot(range(1, len(percent) + 1), percent, markersize=5, linewidth=1.5, label=kind, **_OF_KIND[kind])
        dress(axis, f"{one.name}, explained", "component", "% of variance")
        axis.set_xticks(range(1, EXPLAINED + 1))
        axis.set_ylim(bottom=0)
        axis.legend(frameon=False)
    return _finish(figure, found, folder, "components", f"Principal components of gradient directions\n{title}")


def draw_separation(found: Findings, folder: Path, title: str) -> list[Path]:
    """Draw how far the tasks lie apart for each editor, with intervals; the dotted line is what chance gives."""
    from matplotlib.figure import Figure

    names = _names(found)
    figure = Figure(figsize=(11, 1.9 + 0.55 * len(names)), layout="constrained")
    axes = figure.subplots(1, 3, sharey=True)
    for axis, measure in zip(axes, TITLES, strict=True):
        for place, name in enumerate(names):
            for kind, lift in (("raw", 0.14), ("transformed", -0.14)):
                row = found.row(name, kind, measure)
                _whisker(axis, row.found, y=place + lift, label=kind if place == 0 else None, **_OF_KIND[kind])
            if measure == "purity":
                axis.plot([row.chance] * 2, [place - 0.4, place + 0.4], color="black", linestyle=":")
        if measure != "purity":
            axis.axvline(0, color="black", linewidth=0.8)
        dress(axis, TITLES[measure], UNITS[measure])
    axes[0].set_yticks(range(len(names)), [literal(name) for name in names])
    axes[0].set_ylim(len(names) - 0.5, -0.5)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(
        literal(f"Separation of tasks by gradient directions; bars are 95 % intervals. {title}"), fontsize=11
    )
    return save(figure, folder, "separation")


def draw_sites(found: Findings, folder: Path, title: str) -> list[Path]:
    """Draw the silhouette at each site for each editor, raw and transformed."""
    from matplotlib.figure import Figure

    names = _names(found)
    sites = list(dict.fromkeys(row.site for row in found.rows if row.site != ALL_SITES))
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    for axis, kind in zip(axes, KINDS, strict=True):
        for name, look in looks(names).items():
            rows = [found.row(name, kind, "silhouette", site=site).found for site in sites]
            axis.plot(
                range(len(sites)), [one.value for one in rows], markersize=6, linewidth=1.5, label=literal(name), **look
            )
            ends = [one.low for one in rows], [one.high for one in rows]
            axis.fill_between(range(len(sites)), *ends, color=look["color"], alpha=0.12, linewidth=0)
        dress(axis, f"{kind} gradients", "site", UNITS["silhouette"] if axis is axes[0] else "")
        axis.set_xticks(range(len(sites)), _short(sites), rotation=60, ha="right", fontsize=8)
        axis.axhline(0, color="black", linewidth=0.8)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(names), frameon=False)
    figure.suptitle(literal(f"Silhouette by site, directions; bands are 95 % intervals. {title}"), fontsize=11)
    return save(figure, folder, "sites")


def _grid(found: Findings, rows: int) -> "tuple[Figure, Any]":
    """A figure with a column for each editor; the axes (rows, editors)."""
    from matplotlib.figure import Figure

    columns = len(_names(found))
    figure = Figure(figsize=(max(6.0, 3.7 * columns), 3.6 * rows + 0.9), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _finish(figure: "Figure", found: Findings, folder: Path, name: str, title: str) -> list[Path]:
    """Add the legend of tasks and the title, and save."""
    handles: dict[str, Any] = {}
    for axis in figure.axes:
        drawn = dict(zip(*reversed(axis.get_legend_handles_labels()), strict=True))
        handles |= {task: drawn[task] for task in _tasks(found) if task in drawn}
    told = [literal(f"{task}{_held_out(found, task)}") for task in handles]
    figure.legend(handles.values(), told, loc="outside lower center", ncols=len(told), frameon=False)
    figure.suptitle(literal(title), fontsize=11)
    return save(figure, folder, name)


def _held_out(found: Findings, task: str) -> str:
    """Say for which editors a task is held out."""
    having = {picture.name: task in picture.held_out for picture in found.pictures if task in picture.tasks}
    names = [name for name, held_out in having.items() if held_out]
    if not names:
        return ""
    return " (held out)" if len(names) == len(having) else f" (held out: {', '.join(names)})"


def _names(found: Findings) -> list[str]:
    return list(dict.fromkeys(picture.name for picture in found.pictures))


def _tasks(found: Findings) -> list[str]:
    """All tasks, in the order of the editor that has the most."""
    most = max(found.pictures, key=lambda picture: len(set(picture.tasks)))
    return list(dict.fromkeys([*most.tasks, *(task for picture in found.pictures for task in picture.tasks)]))


def _pictures(found: Findings, kind: Kind) -> list[Picture]:
    return [picture for picture in found.pictures if picture.kind == kind and picture.scale == "direction"]


def _scatter(axis: "Axes", points: Any, picture: Picture, look: dict[str, dict[str, Any]]) -> None:
    for task in dict.fromkeys(picture.tasks):
        own = [index for index, other in enumerate(picture.tasks) if other == task]
        axis.scatter(
            points[own, 0],
            points[own, 1],
            s=18,
            alpha=0.8,
            linewidths=0.3,
            edgecolors="white",
            label=task,
            **look[task],
        )


def _whisker(axis: "Axes", found: Any, y: float, label: str | None, **look: Any) -> None:
    ends = [[max(0.0, found.value - found.low)], [max(0.0, found.high - found.value)]]
    axis.errorbar([found.value], [y], xerr=ends, capsize=3, linestyle="", markersize=6, label=label, **look)


def _short(sites: Sequence[str]) -> list[str]:
    """Site names as short as they can be told apart: without the parts that all of them share.

    >>> _short(["model.layers.27.mlp.up_proj", "model.layers.28.mlp.down_proj"])
    ['27.up_proj', '28.down_proj']
    """
    parts = [site.split(".") for site in sites]
    if len({len(one) for one in parts}) > 1 or len(parts) < 2:
        return list(sites)
    kept = [place for place in range(len(parts[0])) if len({one[place] for one in parts}) > 1]
    return [".".join(one[place] for place in kept) for one in parts]
