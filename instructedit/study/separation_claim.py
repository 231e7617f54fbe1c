"""The claim that instructions separate the tasks' editing gradients, from the table the gradients' analysis wrote.

``FIGURES/gradients/separation.csv`` has a line a number, with an interval: the editor's ``name``, the ``kind`` of
gradient (raw, transformed), the ``site`` (all for their sum), the ``measure``, ``value``, ``low``, ``high``, ``n``; and
``against``, the editor it is the difference to, empty for the editor's own number.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from instructedit.analysis.seeds import Pooled
from instructedit.errors import InputError
from instructedit.study.evidence import Evidence
from instructedit.study.markdown import interval, table
from instructedit.study.verdict import Claim, Part

FILE = Path("gradients") / "separation.csv"
TRANSFORMED, ALL_SITES = "transformed", "all"
MEASURES = ("silhouette", "purity", "cosine_gap")
_SAID = {
    "silhouette": "silhouette",
    "purity": "share of the nearest neighbours that are of the same task",
    "cosine_gap": "mean cosine within tasks minus between them",
}


@dataclass(frozen=True)
class Separation:
    """One line of the table.

    Args:
        name: of the editor.
        against: the editor it is the difference to; empty for its own number.
        kind: raw or transformed.
        site: a site, or all.
        measure: what was measured.
        number: value and interval.
    """

    name: str
    against: str
    kind: str
    site: str
    measure: str
    number: Pooled


def read_separation(figures: Path) -> list[Separation]:
    """Read the table; empty where there is none.

    Args:
        figures: the folder of the study's figures.

    Raises:
        InputError: it lacks a column, or holds something that is no number.
    """
    path = figures / FILE
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [_line(line) for line in csv.DictReader(file)]
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is no table of separation ({error}). Make it again with `analyse`.") from error


def _line(line: dict[str, str]) -> Separation:
    number = Pooled(float(line["value"]), float(line["low"]), float(line["high"]), int(line.get("n") or 0), 1)
    return Separation(line["name"], line.get("against") or "", line["kind"], line["site"], line["measure"], number)


def separation_claim(e: Evidence, lines: Sequence[Separation]) -> Claim:
    """Return the claim: InstructEdit's transformed gradients lie further apart by task than multi-task MEND's.

    The editors are those that the plan's analysis names: the first is InstructEdit's, the second multi-task MEND's.
    """
    names = list(e.numbers.study.analyses["gradients"])
    editor, other = (names + ["", ""])[:2]
    chosen = [line for line in lines if (line.kind, line.site, line.name) == (TRANSFORMED, ALL_SITES, editor)]
    parts = []
    for measure in MEASURES:
        gains = [line.number for line in chosen if line.measure == measure and line.against == other]
        parts.append(Part(f"{_SAID[measure]}: over {other}", gains[0] if gains else None, metric=""))
    for name in names[2:]:
        for measure in MEASURES:
            gains = [line.number for line in chosen if line.measure == measure and line.against == name]
            parts += [Part(f"{_SAID[measure]}: over {name}", gain, counts=False, metric="") for gain in gains]
    return Claim(
        "gradients",
        "With instructions the tasks' editing gradients lie apart; multi-task MEND's do not.",
        "shown as a t-SNE picture, Figure 4(a); no numbers.",
        tuple(parts),
        "Measured in the full space of the updates of all edited matrices, not in a picture; one seed; intervals draw "
        "records.",
    )


def separation_table(lines: Sequence[Separation]) -> str:
    """Return the editors' own numbers over all sites."""
    own = [line for line in lines if not line.against and line.site == ALL_SITES]
    if not own:
        return "The analysis is not there yet."
    measures = tuple(dict.fromkeys(line.measure for line in own))
    cells = {(line.name, line.kind, line.measure): line.number for line in own}
    rows = [
        [name, kind, *(interval("", cells.get((name, kind, measure))) for measure in measures)]
        for name, kind in dict.fromkeys((line.name, line.kind) for line in own)
    ]
    return table(["editor", "gradient", *measures], rows, left=2)
