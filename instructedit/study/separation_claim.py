"""The claim that instructions separate the tasks' editing gradients, from the tables the gradients' analysis wrote.

``FIGURES/gradients/separation.csv`` has the editors' own numbers, ``differences.csv`` beside it those of "A - B". Their
columns are those of ``instructedit analyse gradients``; looked at are whole directions, of all sites together.
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

FOLDER = Path("gradients")
OWN, DIFFERENCES = "separation.csv", "differences.csv"
TRANSFORMED, ALL_SITES, DIRECTION = "transformed", "all", "direction"
MEASURES = ("silhouette", "purity", "cosine_gap")
_SAID = {
    "silhouette": "silhouette",
    "purity": "share of the nearest neighbours that are of the same task",
    "cosine_gap": "mean cosine within tasks minus between them",
}


@dataclass(frozen=True)
class Separation:
    """One number of all sites together.

    Args:
        name: of the editor, or of two with a minus between.
        kind: raw or transformed.
        measure: what was measured.
        number: value and interval.
    """

    name: str
    kind: str
    measure: str
    number: Pooled


def read_separation(figures: Path, name: str = DIFFERENCES) -> list[Separation]:
    """Read one of the tables; empty where there is none.

    Args:
        figures: the folder of the study's figures.
        name: which: ``DIFFERENCES`` or ``OWN``.

    Raises:
        InputError: it lacks a column, or holds something that is no number.
    """
    path = figures / FOLDER / name
    if not path.is_file():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            lines = list(csv.DictReader(file))
        chosen = [line for line in lines if (line["site"], line["scale"]) == (ALL_SITES, DIRECTION)]
        # What could not be measured has no number there.
        return [_line(line) for line in chosen if all(line[key] for key in ("value", "low", "high"))]
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is no table of separation ({error}). Make it again with `analyse`.") from error


def _line(line: dict[str, str]) -> Separation:
    value, low, high = (float(line[key]) for key in ("value", "low", "high"))
    return Separation(
        line["editor"], line["gradients"], line["measure"], Pooled(value, low, high, int(line["records"]), 1)
    )


def separation_claim(e: Evidence, lines: Sequence[Separation]) -> Claim:
    """Return the claim: InstructEdit's transformed gradients lie further apart by task than multi-task MEND's.

    The editors are those that the plan's analysis names: the first is InstructEdit's, the second multi-task MEND's.
    """
    names = list(e.numbers.study.analyses["gradients"])
    editor, other = (names + ["", ""])[:2]
    found = {(line.name, line.measure): line.number for line in lines if line.kind == TRANSFORMED}
    parts = [
        Part(f"{_SAID[measure]}: over {other}", found.get((f"{editor} - {other}", measure)), metric="")
        for measure in MEASURES
    ]
    for name in names[2:]:
        gains = ((measure, found.get((f"{editor} - {name}", measure))) for measure in MEASURES)
        parts += [
            Part(f"{_SAID[measure]}: over {name}", gain, counts=False, metric="") for measure, gain in gains if gain
        ]
    return Claim(
        "gradients",
        "With instructions the tasks' editing gradients lie further apart than multi-task MEND's.",
        "shown as a t-SNE picture, Figure 4(a); no numbers.",
        tuple(parts),
        "Measured in the full space of the updates of all edited matrices, not in a picture; one seed; intervals draw "
        "records.",
    )


def separation_table(lines: Sequence[Separation]) -> str:
    """Return the editors' own numbers over all sites."""
    if not lines:
        return "The analysis is not there yet."
    measures = tuple(dict.fromkeys(line.measure for line in lines))
    cells = {(line.name, line.kind, line.measure): line.number for line in lines}
    rows = [
        [name, kind, records, *(interval("", cells.get((name, kind, measure))) for measure in measures)]
        for name, kind, records in dict.fromkeys((line.name, line.kind, str(line.number.n_records)) for line in lines)
    ]
    told = "Over fewer records there are fewer tasks, which changes every measure; the claim compares on shared tasks."
    fewer = len({records for _, _, records, *_ in rows}) > 1
    return table(["editor", "gradient", "records", *measures], rows, left=2) + (f"\n\n{told}" if fewer else "")
