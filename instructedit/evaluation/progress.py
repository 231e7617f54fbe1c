"""How far an evaluation is: a bar on a terminal, else a plain line now and then; both on stderr.

Knows numbers and names; nothing about what is evaluated.
"""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

LINE_EVERY_S = 30.0


class EditProgress:
    """Counts edits, or what else is done one by one.

    Args:
        total: all of them.
        done: those that were there before.
        clock: seconds that only go forward.
        unit: what is counted.
    """

    def __init__(
        self, total: int, done: int = 0, clock: Callable[[], float] = time.monotonic, unit: str = "edits"
    ) -> None:
        self.total, self.done, self.made, self.unit = total, done, 0, unit
        self._clock = clock
        self._start = self._told = clock()
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._plain = not console.is_terminal
        self._bar = Progress(*columns, console=console, disable=self._plain)
        self._task = self._bar.add_task(unit, total=total, completed=done, left="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def advance(self, row: str, task: str, edits: int) -> None:
        """Count what is finished, and say so."""
        self.done += edits
        self.made += edits
        now = self._clock()
        seconds = max(now - self._start, 1e-9)
        # Methods differ in speed, so this is the rate of all so far, not of the last ones.
        left = f"{self.made / seconds:.2f} {self.unit}/s, {_told(seconds / self.made * (self.total - self.done))} left"
        self._bar.update(self._task, completed=self.done, description=f"{row}, {task}", left=left)
        if self._plain and (now - self._told >= LINE_EVERY_S or self.done == self.total):
            self._told = now
            print(f"{row}, {task}: {self.done} of {self.total} {self.unit}, {left}", file=sys.stderr, flush=True)


def _told(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes} min" if minutes < 100 else f"{minutes / 60:.1f} h"
