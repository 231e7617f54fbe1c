"""Stopping on a signal: at a step's end all ranks agree, save, and stop. The signal itself only set a flag."""

from typing import Any

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer

from instructedit import signals
from lightning_modules.callbacks import at_step_end
from lightning_modules.callbacks.checkpoints import Checkpoints


class Stopped(Exception):
    """A signal came in an evaluation: what is trained is saved, the evaluation is made again later."""


class StopOnSignal(Callback):
    """Saves and stops when any rank has had SIGTERM, SIGINT or SIGUSR1.

    Args:
        checkpoints: what saves.
    """

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints
        self.stopped = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the handlers back: Lightning put its own around them. Stop at once if a signal has come by now.

        Raises:
            Stopped: one has, before the first step of this start; nothing new is to be saved.
        """
        signals.install()
        if self._asked(trainer, pl_module):
            raise Stopped

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Agree with the other ranks."""
        if not at_step_end(trainer, batch_idx):
            return
        if self._asked(trainer, pl_module):
            self.stopped = trainer.should_stop = True
            self.checkpoints.save(trainer)

    def _asked(self, trainer: Trainer, pl_module: LightningModule) -> bool:
        """Whether any rank has been told to stop."""
        flag = torch.tensor([float(bool(signals.requested()))], device=pl_module.device)
        if trainer.world_size > 1:
            torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX)
        return bool(flag.item())
