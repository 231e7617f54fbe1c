"""What stands in a printed table: which cells are best, what the paper has beside them, what a reader must be told.

Knows no format: what all this looks like is decided in ``formats`` and ``latex``.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from instructedit.evaluation.metrics import METRICS, UNITS, VARIED
from instructedit.evaluation.paper import PAPER_BASES, PaperCell, is_paper_base, paper_number
from instructedit.evaluation.tables import Line, summarise
from instructedit.instructions.controls import CONTROLS, WHICH
from instructedit.records import Outcome

Mark = Literal["best", "second"]

CAPTION = (
    "Percent, with 95 % bootstrap intervals over examples; (n) where a column has fewer examples; - for no probe. "
    "Generalization is measured on rephrases and, where a record has none, on its Subject_Aliasing questions. "
    "Locality is agreement with the unedited base, not correctness. "
    "A record is asked at most as many probes of a kind as prepare --max-probes (4 by default) and the evaluation's "
    "max_probes say."
)
VARIANT_CAPTIONS: Mapping[str, str] = {
    "": "Shares of the target's tokens, teacher-forced.",
    "exact": "Exact match, teacher-forced: a probe counts where every token of its target is right.",
    "greedy": "Shares of the target's tokens that a greedy continuation has at their places.",
    "greedy_exact": (
        "Greedy generation, exact: a probe counts where the continuation begins with one of its right answers; "
        "for locality, where all tokens compared are those of the unedited base."
    ),
}
SUCCESS_CAPTION = (
    "Success, of convsent alone: sigmoid(wanted - unwanted) * min(1, exp(wanted - wanted before the edit)), of mean "
    "log-probabilities per token of completions that the request does not use."
)
FLUENCY_CAPTION = "Fluency is no percentage: entropy of a generated text's word bigrams and trigrams, in 0.01 bit."
FOOTNOTES: Mapping[str, str] = {
    "†": (
        "† not comparable: GRACE's published row on held-out zsre equals the unedited base to the last digit, "
        "so its requests were probably not edited in."
    ),
    "‡": "‡ GRACE's published numbers come from greedy generation, the other methods' are teacher-forced.",
}
ASIDE = re.compile(rf"\(({'|'.join(['unseen', *CONTROLS])})\)(?:, \d+ (?:together|in sequence))?$")
"""What a row's name ends with where a text stands in front of its inputs that training never had there."""


@dataclass(frozen=True)
class Table:
    """Lines, and what is shown around them.

    Args:
        lines: the rows, those of a task together.
        title: what stands above.
        variant: how the metrics were measured, one of ``VARIANTS``.
        records: which records the rows are about, where it is not all.
        paper: whose published numbers stand beside ours, one of ``PAPER_BASES``; empty for nobody's.
        stamp: what the rows were made with. Three keys are looked at, the others only told: ``dirty`` and
            ``partial`` put a warning on the table, ``base`` says whether the paper's base is another.
        held_out: tasks no editor was trained on.
    """

    lines: tuple[Line, ...]
    title: str = ""
    variant: str = ""
    records: str = ""
    paper: str = ""
    stamp: Mapping[str, object] = field(default_factory=dict)
    held_out: tuple[str, ...] = ()

    @cached_property
    def columns(self) -> tuple[str, ...]:
        """The metrics that every task can have, then any other one that a line has, in the order of METRICS."""
        had = {metric for line in self.lines for metric in line.cells}
        usual = [metric for metric in METRICS if metric in VARIED or metric in had]
        return tuple(dict.fromkeys([*usual, *(metric for line in self.lines for metric in line.cells)]))

    @cached_property
    def marks(self) -> Mapping[tuple[str, str, str], Mark]:
        """The best and second best values of a task as printed, by (task, method, metric); equal ones share a mark.

        As in the paper, Base does not compete; nor does a row with unseen instructions or a control's text, whose
        method competes with its seen ones. One row alone has nobody to be better than.
        """
        marks: dict[tuple[str, str, str], Mark] = {}
        for task in dict.fromkeys(line.task for line in self.lines):
            rivals = [line for line in self.lines if line.task == task and competes(line.method)]
            for metric in self.columns:
                had = [line for line in rivals if metric in line.cells]
                shown = {line.method: printed(metric, line.cells[metric].mean) for line in had}
                if len(shown) < 2:
                    continue
                order = sorted(set(shown.values()), key=float, reverse=True)
                names: Mapping[str, Mark] = dict(zip(order, ("best", "second"), strict=False))
                marks |= {(task, method, metric): names[value] for method, value in shown.items() if value in names}
        return marks

    def published(self, line: Line, metric: str) -> PaperCell | None:
        """The paper's number for a cell, where one is asked for that was measured the way this table is.

        The paper's numbers are teacher-forced shares; GRACE's came from greedy generation and stand in both tables.
        """
        if not self.paper or self.records:
            return None
        cell = paper_number(self.paper, line.task, line.method, metric)
        return cell if cell and (self.variant == "" or (self.variant == "greedy" and cell.greedy)) else None

    def beside(self, line: Line) -> dict[str, str]:
        """The paper's row beneath one of ours: per column its number as printed, with its footnote's sign.

        Empty where the paper has no number for the row.
        """
        cells = {metric: self.published(line, metric) for metric in self.columns}
        # Published decimals round half up; the nearest float of one may lie below it.
        return {metric: f"{cell.value + 1e-9:.1f}{_sign(cell, self.variant)}" for metric, cell in cells.items() if cell}

    @property
    def source(self) -> str:
        """The name of the paper's rows."""
        return f"paper, {PAPER_BASES[self.paper]}" if self.paper else ""

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What makes the rows less than a result: changed code, missing rows, code of several commits."""
        found = []
        if _yes(self.stamp.get("dirty")):
            found.append("DIRTY: made with code that differs from its commit")
        if _yes(partial := self.stamp.get("partial")):
            found.append(
                "PARTIAL: not every row is there" + ("" if str(partial).lower() == "true" else f" ({partial})")
            )
        if "," in str(self.stamp.get("commit", "")):
            found.append("SEVERAL COMMITS: the rows were not all made by the same code")
        return tuple(found)

    def notes(self, best: str, second: str) -> tuple[str, ...]:
        """The sentences below the table, warnings apart.

        Args:
            best: what the best value looks like, for instance ``"bold"``.
            second: what the second best looks like.
        """
        found = [VARIANT_CAPTIONS[self.variant], CAPTION]
        found += [SUCCESS_CAPTION] if "success" in self.columns else []
        found += [FLUENCY_CAPTION] if "fluency" in self.columns else []
        if self.marks:
            found.append(
                f"Best of a task {best}, second best {second}, of the values as printed; "
                f"the highest is best, for fluency too; Base and rows named {self._aside()} do not compete."
            )
        shown = {text[-1] for line in self.lines for text in self.beside(line).values()}
        if shown:
            found.append(self._about_paper())
        found += [text for sign, text in FOOTNOTES.items() if sign in shown]
        return tuple(found)

    def _aside(self) -> str:
        named = (match[1] for line in self.lines if (match := ASIDE.search(line.method)))
        there = {"unseen", *named}
        return " or ".join(f"({which})" for which in WHICH if which in there)

    def _about_paper(self) -> str:
        base = str(self.stamp.get("base") or "")
        told = f"Rows '{self.source}': Table 3 of Tian et al. 2024 (arXiv 2402.16123), on whole test sets."
        if base and is_paper_base(self.paper, base):
            return told
        which = f"The base here is {base}, another model" if base else "The base here may be another model"
        return f"{told} {which}: compare the picture, not the numbers."


def competes(method: str) -> bool:
    """Tell whether a row takes part in best and second best."""
    return method != "Base" and not ASIDE.search(method)


def printed(metric: str, value: float) -> str:
    """A metric's value as every table prints it: shares in percent, others as they are, with one decimal."""
    return f"{value * scale(metric):.1f}"


def scale(metric: str) -> float:
    """What a metric's values are multiplied by for a table."""
    return 100.0 if UNITS.get(metric, "share") == "share" else 1.0


def _sign(cell: PaperCell, variant: str) -> str:
    if not cell.comparable:
        return "†"
    return "‡" if cell.greedy and variant == "" else ""


def _yes(mark: object) -> bool:
    return str(mark or "").lower() not in ("", "false", "no", "none", "0")


def make_table(outcomes: Sequence[Outcome], title: str = "", *, variant: str = "", **around: object) -> Table:
    """Summarise outcomes into a table; lines of which the variant has no value are left out.

    Args:
        outcomes: one per example, method and metric.
        title: what stands above.
        variant: how the metrics were measured.
        around: the other fields of ``Table``.
    """
    lines = tuple(line for line in summarise(outcomes, variant=variant) if line.cells)
    return Table(lines, title, variant, **around)  # type: ignore[arg-type]
