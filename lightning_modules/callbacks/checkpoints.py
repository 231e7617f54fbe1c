"""Checkpoints of a run: ``last``, the one before it, and ``best``; written whole or not at all.

Lightning gathers what goes in (hypernetwork, optimiser, counters, callbacks' state); here is when,
where and how it reaches the disk. The base is never in it.
"""

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from instructedit.errors import InputError
from lightning_modules.callbacks import at_step_end
from lightning_modules.loggers import MetricsCsv

LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames; what stood there before is kept as ``previous.ckpt``.

    Unless it is of the same step or cannot be read: ``previous`` is of an older step, and whole.
    Lightning's own goes through the system's temporary folder, from which a rename may be a copy.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write one checkpoint file."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        with partial.open("wb") as file:
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        before = step_of(path)
        if before is not None and before < checkpoint["global_step"]:
            os.replace(path, path.with_name(PREVIOUS))
        os.replace(partial, path)


class Checkpoints(Callback):
    """Saves ``checkpoints/last.ckpt``.

    Args:
        every_n_steps: optimiser steps between checkpoints; validations and stops save besides.
    """

    def __init__(self, every_n_steps: int = 100) -> None:
        if every_n_steps < 1:
            raise InputError(f"checkpoint.every_n_steps is {every_n_steps}. Set it to 1 or more.")
        self.every_n_steps = every_n_steps
        self._saved_step = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the metrics of steps that are going to be done again."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCsv):
                logger.rewind(trainer.global_step)

    def save(self, trainer: Trainer, again: bool = False) -> None:
        """Save now, on all ranks; a step that was saved is saved ``again`` only on request."""
        if again or self._saved_step != trainer.global_step:
            trainer.save_checkpoint(_folder(trainer) / LAST)
            self._saved_step = trainer.global_step

    def keep_as_best(self, trainer: Trainer) -> None:
        """Keep a copy of the checkpoint just saved as the best one."""
        if trainer.is_global_zero:
            partial = _folder(trainer) / "best.partial"
            shutil.copyfile(_folder(trainer) / LAST, partial)
            os.replace(partial, _folder(trainer) / BEST)

    def mend_best(self, trainer: Trainer) -> None:
        """Keep the last checkpoint as the best one if a kill came just before that was done."""
        step, folder = trainer.global_step, _folder(trainer)
        if step_of(folder / LAST) == step != step_of(folder / BEST):
            self.keep_as_best(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save when it is time."""
        step = trainer.global_step
        due = step % self.every_n_steps == 0 or step == trainer.max_steps
        if at_step_end(trainer, batch_idx) and due:
            self.save(trainer)


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / "checkpoints"


def find_checkpoint(folder: Path) -> Path | None:
    """Return the newest readable checkpoint of a run to go on from; None where there is none at all.

    Raises:
        InputError: there are some, and none can be read.
    """
    there = [folder / name for name in (LAST, PREVIOUS) if (folder / name).exists()]
    for path in there:
        try:
            read_checkpoint(path)
            return path
        except InputError as error:
            log.warning("%s Falling back to the one before.", error)
    if there:
        raise InputError(f"No checkpoint in {folder} can be read. Remove the folder to train from the start.")
    return None


def step_of(path: Path) -> int | None:
    """Return the optimiser step a checkpoint was saved at; None where there is none that can be read."""
    try:
        return int(read_checkpoint(path)["global_step"])
    except InputError:
        return None


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        content["state_dict"], content["loops"], content["global_step"]  # noqa: B018 - a file of another kind lacks them
        return content
    except Exception as error:  # torch raises many kinds for damaged files
        first = (str(error).splitlines() or [""])[0]
        raise InputError(f"Checkpoint {path} cannot be read ({type(error).__name__}: {first}).") from error
