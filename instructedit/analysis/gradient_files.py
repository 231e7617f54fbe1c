"""The files of the analysis of gradients: numbers as CSV and figures. Ids and numbers only; knows no editors."""

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from instructedit.analysis.gradient_figures import draw_explained, draw_separation, draw_sites, draw_tsne
from instructedit.analysis.gradients import EXPLAINED, Findings, Row
from instructedit.analysis.plot import figure_style

SEPARATION, DIFFERENCES = "separation.csv", "differences.csv"
COORDINATES, EXPLAINED_FILE = "coordinates.csv", "explained.csv"


def write(found: Findings, folder: Path, title: str) -> list[Path]:
    """Write all tables and figures; the folder must be there.

    Args:
        found: of one study.
        folder: where they go.
        title: the base and what was asked of it, over every figure.

    Returns:
        The tables, then the figures.
    """
    texts = {
        SEPARATION: separation_table(found.rows),
        DIFFERENCES: separation_table(found.differences),
        COORDINATES: coordinates_table(found),
        EXPLAINED_FILE: explained_table(found),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    with figure_style():
        drawn = [draw(found, folder, title) for draw in (draw_tsne, draw_explained, draw_separation, draw_sites)]
    return [folder / name for name in texts] + [path for paths in drawn for path in paths]


def separation_table(rows: Sequence[Row]) -> str:
    """Return separations, or differences of them, as CSV: a line for each number with its interval."""
    head = ["editor", "gradients", "scale", "site", "measure", "value", "low", "high", "chance", "records"]
    return _csv(
        head,
        (
            [row.name, row.kind, row.scale, row.site, row.measure]
            + [_number(value) for value in (row.found.value, row.found.low, row.found.high, row.chance)]
            + [str(row.records)]
            for row in rows
        ),
    )


def coordinates_table(found: Findings) -> str:
    """Return where each record lies, all sites together, by t-SNE and by the first components, as CSV."""
    head = ["editor", "gradients", "scale", "id", "task", "tsne_1", "tsne_2"]
    return _csv(
        [*head, *(f"pc_{number + 1}" for number in range(EXPLAINED))],
        (
            [picture.name, picture.kind, picture.scale, record, task]
            + [_number(value) for value in (*placed, *_padded(line))]
            for picture in found.pictures
            for record, task, placed, line in zip(
                picture.ids, picture.tasks, picture.placed, picture.components.coordinates, strict=True
            )
        ),
    )


def explained_table(found: Findings) -> str:
    """Return the share of the variance that each of the first components holds, by site, as CSV."""
    head = ["editor", "gradients", "scale", "site", *(f"pc_{number + 1}" for number in range(EXPLAINED))]
    lines = ([*key, *(_number(value) for value in _padded(shares))] for key, shares in found.explained.items())
    return _csv(head, lines)


def _padded(values: Iterable[float]) -> list[float]:
    """The first numbers of a list, with zeros behind where it is shorter."""
    return [*values, *([0.0] * EXPLAINED)][:EXPLAINED]


def _csv(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(lines)
    return text.getvalue()


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
