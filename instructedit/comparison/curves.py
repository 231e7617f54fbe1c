"""Reads metrics by step from CSV, smooths and thins them. Knows numbers, not what they mean."""

import csv
import math
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import compress
from pathlib import Path

import numpy as np

from instructedit.comparison.runs import LARGEST, Curve
from instructedit.errors import InputError
from instructedit.terminal import shown

SMOOTHED_OVER = 25
"""A smoothed value is the mean of the values around it, one part in so many of the curve."""

DIGITS = 15
"""No step has more."""


class CurveTable(Mapping[str, Curve]):
    """The columns of a CSV file by step; a column's texts become numbers when it is asked for.

    Args:
        steps: of every row, rising.
        columns: texts by name, as many as steps; empty where a step has no value.
    """

    def __init__(self, steps: list[int], columns: Mapping[str, list[str]]) -> None:
        self._steps = steps
        self._columns = {name: (steps, texts) for name, texts in columns.items()}
        self._read: dict[str, Curve] = {}

    @property
    def last_step(self) -> int | None:
        """The last row's step."""
        return self._steps[-1] if self._steps else None

    def beside(self, other: "CurveTable", prefix: str) -> "CurveTable":
        """This table with the columns of another one, whose names get a prefix."""
        both = CurveTable(self._steps, {})
        both._columns = self._columns | {prefix + name: column for name, column in other._columns.items()}
        return both

    def __getitem__(self, name: str) -> Curve:
        if name not in self._read:
            told, texts = self._columns[name]
            steps = [step for step, text in zip(told, texts, strict=True) if text]
            self._read[name] = _finite(steps, _numbers([text for text in texts if text]))
        return self._read[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def _numbers(texts: list[str]) -> list[float]:
    try:
        return list(map(float, texts))  # many times faster than one by one
    except ValueError:
        return [_number(text) for text in texts]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _finite(steps: list[int], values: list[float]) -> Curve:
    """A curve without what is no number a metric can be."""
    fits = [-LARGEST < value < LARGEST for value in values]
    return Curve(list(compress(steps, fits)), list(compress(values, fits)))


def read_curves(path: Path) -> tuple[CurveTable, tuple[str, ...]]:
    """Read a CSV file of metrics by ``step``; no file gives no curves.

    A run that was killed, or still writes, may leave a part of a row at the end: it is left out, and a note says so.

    Returns:
        The curves, and notes.

    Raises:
        InputError: it is no such file.
    """
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return CurveTable([], {}), ()
    except OSError as error:
        raise InputError(f"Cannot read {path}: {error.strerror}.") from error
    lines = text.splitlines()
    rows: list[list[str]] = []
    with suppress(csv.Error):  # a block of zeros, as a machine that went down leaves it: what comes before it is whole
        rows.extend(csv.reader(lines))
    if not rows or rows == [[]]:
        if any(lines):
            raise InputError(f"{path} is no CSV file. Restore the file, or leave the run out.")
        return CurveTable([], {}), ()
    head = rows[0]
    if "step" not in head:
        found = shown(", ".join(head[:5]))[:80]
        raise InputError(f"{path} has no column 'step'; found {found}. It is not a run's metrics.")
    place = head.index("step")
    steps: list[int] = []
    kept: list[list[str]] = []
    for row in rows[1:]:
        at = row[place] if len(row) == len(head) else ""
        whole = len(kept) + 2 < len(lines) or text.endswith("\n")
        if not (at.isdecimal() and len(at) <= DIGITS and whole and (not steps or int(at) > steps[-1])):
            break
        steps.append(int(at))
        kept.append(row)
    lost = len(lines) - 1 - len(kept)
    notes = (f"{path}: {lost} row{'s' if lost > 1 else ''} at the end left out, torn or out of order.",) if lost else ()
    columns = dict(zip(head, map(list, zip(*kept, strict=True)), strict=True)) if kept else {}
    columns.pop("step", None)
    return CurveTable(steps, {name: texts for name, texts in columns.items() if any(texts)}), notes


def smoothed(curve: Curve) -> Curve:
    """Each value replaced by the mean of those around it, fewer at the ends; steps stay."""
    values = np.array(curve.values, dtype=np.float64)
    half = len(values) // SMOOTHED_OVER // 2
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(len(values))
    low, high = np.maximum(places - half, 0), np.minimum(places + half + 1, len(values))
    return Curve(curve.steps, ((sums[high] - sums[low]) / (high - low)).tolist())


def thinned(curve: Curve, most: int) -> Curve:
    """Every k-th point and the last one, about ``most`` in all."""
    stride = -(-len(curve.steps) // most)
    places = [*range(0, len(curve.steps), stride)] if stride > 1 else [*range(len(curve.steps))]
    if places and places[-1] != len(curve.steps) - 1:
        places.append(len(curve.steps) - 1)
    return Curve([curve.steps[place] for place in places], [curve.values[place] for place in places])
