"""The look that all figures share: colours, markers, axes, and files that come out the same byte by byte.

Knows matplotlib, which is loaded when a figure is made; nothing of what is shown.
"""

import importlib.util
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructedit.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY = "#0072b2", "#d55e00", "#009e73", "#e69f00", "#cc79a7", "#56b4e9"
BLACK, GREY = "#000000", "0.55"
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE, SKY, BLACK)
"""Okabe and Ito's (2008), told apart with any colour vision; their yellow is too pale on white."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X")
"""One for each colour, so that no figure depends on colours alone."""

SUFFIXES = ("png", "svg")


def looks(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Give each name a colour and a marker; the same names in the same order look the same in every figure."""
    return {
        name: {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}
        for index, name in enumerate(names)
    }


def literal(text: str) -> str:
    """Return a text as matplotlib shows it letter by letter: a name's dollar signs are no mathematics."""
    return text.replace("$", r"\$")


@contextmanager
def figure_style() -> Iterator[None]:
    """Inside the block figures have the shared sizes, and SVG's ids are the same each time."""
    import matplotlib

    with matplotlib.rc_context({"svg.hashsalt": "instructedit", "font.size": 10, "axes.titlesize": 11}):
        yield


def dress(axis: "Axes", title: str = "", x: str = "", y: str = "") -> None:
    """Label an axis; with a light grid and without the frame's upper and right side."""
    axis.set_title(literal(title))
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.grid(alpha=0.25)
    axis.spines[["top", "right"]].set_visible(False)


def save(figure: "Figure", folder: Path, name: str) -> list[Path]:
    """Write a figure as PNG and SVG, without dates: the same figure gives the same bytes with one matplotlib.

    Args:
        figure: to be called inside ``figure_style``.
        folder: where it goes.
        name: of the files, without what follows the point.
    """
    paths = [folder / f"{name}.{suffix}" for suffix in SUFFIXES]
    # Laid out once for both files; it takes as long as all the drawing.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    for path in paths:
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})
    return paths


def check_installed(packages: Sequence[str] = ("matplotlib",)) -> None:
    """Refuse to begin where a package for figures is missing, before the work is done.

    Raises:
        InputError: names the package and the extra that installs it.
    """
    for package in packages:
        if importlib.util.find_spec(package) is None:
            raise InputError(
                f"The figures need the package {package!r}, which is not installed. "
                "Run `pip install 'instructedit[analysis]'`."
            )
