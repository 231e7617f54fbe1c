"""What is compared: a run's settings, what it was made with, its curves and the cells of its test table.

Knows neither files nor Weights & Biases: `local` and `wandb_runs` make these.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeGuard

from instructedit.evaluation.layout import competes
from instructedit.records import Outcome

LARGEST = 1e100
"""No metric is beyond it, and sums of such numbers are none: they are left out, as those that are not finite."""

LARGEST_MEAN = 1e6
"""What a test measures are shares, and a fluency of some bits."""

BASE = "Base"
"""The row of the unedited base in every test table."""


@dataclass(frozen=True)
class Curve:
    """One metric's values by optimiser step.

    Args:
        steps: rising.
        values: as many, finite.
    """

    steps: Sequence[int]
    values: Sequence[float]


@dataclass(frozen=True)
class Cell:
    """One number of a test table, in the metric's own unit, shares between 0 and 1.

    Args:
        mean: the average over records.
        low: lower end of its 95 % interval; None where only the average is known.
        high: upper end.
        n: records; None where only the average is known.
    """

    mean: float
    low: float | None = None
    high: float | None = None
    n: int | None = None


CellKey = tuple[str, str, str]
"""Task, row of the table, metric with its variant: ``("zsre", "InstructEdit (seen)", "locality_exact")``."""


class Rows(Protocol):
    """Reads numbers per record; only those of one row of the table and some metrics, where they are given."""

    def __call__(self, method: str = "", metrics: Container[str] = ()) -> Sequence[Outcome]:
        """Read them."""


@dataclass(frozen=True)
class ComparedRun:
    """One run.

    Args:
        name: what it is called here; unique among the compared ones.
        source: where it was read from: a directory, or ``entity/project/id``.
        settings: the resolved configuration, flat, as texts.
        facts: what it was made with: commit, dirty, base fingerprint, data hashes, versions.
        state: one word, or empty.
        step: optimiser steps done.
        max_steps: optimiser steps of a finished run.
        edits_per_second: of its latest start.
        device_hours: wall time times ranks over all starts.
        curves: by the metric's name, as in metrics.csv.
        cells: its test table.
        outcomes: reads the numbers per record, of all rows of the table, or of one and some metrics; None where there
            are none.
        notes: what a reader must be told about how it could be read.
    """

    name: str
    source: str
    settings: Mapping[str, str] = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    state: str = ""
    step: int | None = None
    max_steps: int | None = None
    edits_per_second: float | None = None
    device_hours: float | None = None
    curves: Mapping[str, Curve] = field(default_factory=dict)
    cells: Mapping[CellKey, Cell] = field(default_factory=dict)
    outcomes: Rows | None = None
    notes: tuple[str, ...] = ()

    @property
    def row(self) -> str:
        """The row of its test table that stands for the run: its editor's, with seen instructions where it takes any.

        Empty where nothing was tested.
        """
        return next((method for _, method, _ in self.cells if competes(method)), "")

    @property
    def unseen(self) -> str:
        """Its editor's row with unseen instructions; empty where there is none."""
        return next((method for _, method, _ in self.cells if method.endswith("(unseen)")), "")

    @property
    def best(self) -> tuple[int, float] | None:
        """Step and value of the best ``val/score``, the first of equal ones: the checkpoint the editor comes from."""
        curve = self.curves.get("val/score")
        if curve is None or not curve.values:
            return None
        place = max(range(len(curve.values)), key=lambda index: curve.values[index])
        return curve.steps[place], curve.values[place]


def cell_of(name: str, value: object) -> tuple[CellKey, Cell] | None:
    """A cell from a flat name, ``test/<row>/<task>/<metric>``, and its number; None for any other name or value."""
    parts = name.split("/")
    if len(parts) < 4 or parts[0] != "test" or not is_mean(value):
        return None
    return (parts[-2], "/".join(parts[1:-2]), parts[-1]), Cell(float(value))


def is_number(value: object, most: float = LARGEST) -> TypeGuard[float]:
    """Whether a value is a number, finite and no larger than one of its kind can be."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -most < value < most


def is_mean(value: object) -> TypeGuard[float]:
    """Whether a value can be an average of a test, or one of its values."""
    return is_number(value, LARGEST_MEAN)
