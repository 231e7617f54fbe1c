"""Where metrics always go: a CSV file that a resumed run continues."""

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from instructedit.errors import InputError


class MetricsCsv(Logger):
    """One row per step in ``metrics.csv``; a step's training and validation values share the row.

    Lightning's CSV logger starts over when a run is resumed; this one goes back to the step it is
    resumed from (``rewind``) and appends. A new metric adds a column.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._columns: list[str] = []
        self._row: dict[str, str] = {}

    @property
    def name(self) -> str:
        """Loggers have a name."""
        return "csv"

    @property
    def version(self) -> str:
        """The run directory is the version."""
        return ""

    @rank_zero_only
    def log_hyperparams(self, *_args: Any, **_kwargs: Any) -> None:
        """The configuration is in config.yaml."""

    @rank_zero_only
    def rewind(self, step: int) -> None:
        """Drop the rows after a step: the run goes on from there."""
        rows: list[dict[str, str]] = []
        for row in self._read():
            # Steps rise; where they do not, a full disk or a power cut has left a part of a row, the last one.
            at = int(row["step"]) if row.get("step", "").isdecimal() else 0
            if not (int(rows[-1]["step"]) if rows else 0) < at <= step:
                break
            rows.append(row)
        self._row = rows[-1] if rows else {}
        self._rewrite(rows)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Write the values of a step; the file is complete after each call.

        Raises:
            InputError: it cannot be written.
        """
        try:
            self._log(metrics, step)
        except OSError as error:
            raise InputError(
                f"Cannot write {self.path}: {error.strerror}. Make room or give the right to write there and run the "
                f"same command again: it goes on from the last checkpoint."
            ) from error

    def _log(self, metrics: Mapping[str, float], step: int | None) -> None:
        if not self._columns:  # the first values of this process
            self._row = ([{}] + self._read())[-1]
        texts = {name: repr(float(value)) for name, value in metrics.items()}
        same_step = self._row.get("step") == str(step)
        self._row = {**(self._row if same_step else {}), "step": str(step), **texts}
        new = [name for name in self._row if name not in self._columns]
        if not (new or same_step):
            with self.path.open("a", newline="") as file:
                csv.DictWriter(file, self._columns, restval="").writerow(self._row)
            return
        rows = self._read()
        self._columns += [name for name in self._row if name not in self._columns]
        self._rewrite([*(rows[:-1] if same_step else rows), self._row])

    def _read(self) -> list[dict[str, str]]:
        if not self.path.exists():
            return []
        with self.path.open(newline="") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            self._columns += [name for name in reader.fieldnames or () if name not in self._columns]
        return [{name: text for name, text in row.items() if text} for row in rows]

    def values(self) -> dict[int, dict[str, float]]:
        """Return the numbers in the file by step; what was not measured at a step is left out."""
        return {int(row.pop("step")): {name: float(text) for name, text in row.items()} for row in self._read()}

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        partial = self.path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, restval="")
            writer.writeheader()
            writer.writerows(rows)
        os.replace(partial, self.path)
