"""The files of a sweep's analysis: pictures, the table of numbers, and a page where there is more to say."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from instructedit.analysis.plot import check_installed, figure_style, save
from instructedit.analysis.sweep import Findings, table
from instructedit.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write(
    found: Findings, out: Path, figures: "Mapping[str, Callable[[], Figure]]", pages: Mapping[str, str] | None = None
) -> Findings:
    """Write an analysis's files: ``NAME.csv``, each figure as PNG and SVG, each page; the findings name them.

    Args:
        found: what was found.
        out: the folder; made where it is not there.
        figures: what draws each, by the files' name.
        pages: Markdown by the files' name.

    Raises:
        InputError: matplotlib is not installed, or the folder cannot be written.
    """
    check_installed()
    files = [out / f"{found.name}.csv"]
    try:
        out.mkdir(parents=True, exist_ok=True)
        files[0].write_text(table(found.numbers), encoding="utf-8")
        for name, page in (pages or {}).items():
            files.append(out / f"{name}.md")
            files[-1].write_text(page, encoding="utf-8")
        with figure_style():
            for name, draw in figures.items():
                files += save(draw(), out, name)
    except OSError as error:
        raise InputError(f"Cannot write to {out} ({error.strerror or error}). Choose another --out.") from error
    return replace(found, files=tuple(files))
