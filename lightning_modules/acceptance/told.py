"""A training that asks SLURM to tell its ranks to stop, as SLURM does before a job's time is up."""

import os
import subprocess
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from instructedit import signals

SECONDS = 60.0
"""How long a signal may be on its way."""


class AsksToBeTold(Callback):
    """Has SIGUSR1 sent to all ranks of the job at the beginning of a step, once; every rank waits until it has come.

    Args:
        step: optimiser steps done by then, 1 or more.
        marker: the file that tells later starts that this was done.
    """

    def __init__(self, step: int, marker: str) -> None:
        self.step, self.marker = step, Path(marker)
        self._due = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Look for the marker, before the first step: rank zero writes it after one, which all have made together."""
        self._due = not self.marker.exists()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Ask, and wait.

        Raises:
            RuntimeError: the signal has not come.
        """
        if not self._due or trainer.global_step != self.step:
            return
        self._due = False
        if trainer.is_global_zero:
            self.marker.write_text(f"{self.step}\n")
            # To the steps of the job, not to its script: what #SBATCH --signal=USR1@N does.
            subprocess.run(["scancel", "--signal=USR1", os.environ["SLURM_JOB_ID"]], check=True, timeout=SECONDS)
        end = time.monotonic() + SECONDS
        while not signals.requested():
            if time.monotonic() > end:
                raise RuntimeError(f"SIGUSR1 has not reached rank {trainer.global_rank} in {SECONDS:.0f} s")
            time.sleep(0.01)
