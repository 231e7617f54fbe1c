"""How far a trial is: a bar on a terminal, else a plain line now and then; both on stderr.

Knows numbers and names; nothing about what is trained.
"""

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

LINE_EVERY_S = 30.0

UNITS = {"training": "steps", "scoring": "edits"}


class TrialProgress:
    """Counts the steps of one trial's training, then the edits of its scoring.

    Args:
        name: which trial.
        clock: seconds that only go forward.
    """

    def __init__(self, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self._clock, self._told = clock, clock()
        self._spent: dict[str, float] = {}
        console = Console(stderr=True)
        self._plain = not console.is_terminal
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
        )
        self._bar = Progress(*columns, console=console, disable=self._plain)
        self._task = self._bar.add_task(name, total=None, left="")
        self._last = clock()

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()

    def advance(self, phase: str, done: int, total: int) -> None:
        """Tell how much of a phase is done; phases may take turns."""
        now = self._clock()
        self._spent[phase] = self._spent.get(phase, 0.0) + now - self._last
        self._last = now
        rate = done / max(self._spent[phase], 1e-9)
        left = f"{rate:.2f} {UNITS[phase]}/s, {_told((total - done) / rate)} left"
        self._bar.update(self._task, completed=done, total=total, description=f"{self.name}, {phase}", left=left)
        if self._plain and (now - self._told >= LINE_EVERY_S or done == total):
            self._told = now
            print(f"{self.name}, {phase}: {done} of {total} {UNITS[phase]}, {left}", file=sys.stderr, flush=True)


def _told(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
