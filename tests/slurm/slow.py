"""A callback for jobs: named in a run's own configuration, as users name theirs."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

LAST: list["Last"] = []
"""Taken down with this module, which is when the interpreter goes down."""


class Last:
    """Makes the interpreter's going down take longer."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __del__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        sleep(self.seconds)


class Slow(Callback):
    """Makes a rank slower in the job's first start, and leaves a file for each step it has done.

    Args:
        folder: where to.
        seconds: how long the rank sleeps before each step.
        rank: which one; -1 for all.
        every_start: whether later starts are slow too.
        leaving: how many seconds longer rank one takes to end, when all its work is done.
    """

    def __init__(
        self, folder: str, seconds: float = 0.0, rank: int = -1, every_start: bool = False, leaving: float = 0.0
    ) -> None:
        self.folder, self.seconds, self.rank, self.every_start = Path(folder), seconds, rank, every_start
        self.leaving = leaving
        self.restarts = int(os.environ.get("SLURM_RESTART_COUNT", "0"))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.leaving and trainer.global_rank == 1:
            LAST.append(Last(self.leaving))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if self.rank in (-1, trainer.global_rank) and (self.every_start or not self.restarts):
            time.sleep(self.seconds)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"start{self.restarts}-rank{trainer.global_rank}-step{trainer.global_step}").touch()
