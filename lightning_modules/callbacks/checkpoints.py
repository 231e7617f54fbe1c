"""Checkpoints of a run: ``last``, some before it, and ``best``; written whole or not at all.

Lightning gathers what goes in (hypernetwork, optimiser, counters, callbacks' state); here is when,
where and how it reaches the disk. The base is never in it.
"""

import logging
import os
import shutil
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from instructedit.errors import InputError
from lightning_modules.callbacks import at_step_end
from lightning_modules.loggers import MetricsCsv

if TYPE_CHECKING:
    from lightning_modules.editor_module import EditorModule

LAST, BEST, OLDER = "last.ckpt", "best.ckpt", "step-*.ckpt"

log = logging.getLogger(__name__)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes beside the target and renames; what stood there before is kept under its step's name.

    Unless it is of the same step or cannot be read: the older ones are of older steps, and whole.
    Lightning's own goes through the system's temporary folder, from which a rename may be a copy.

    Args:
        keep: how many checkpoints to keep, the last one counted; at least 1.
    """

    def __init__(self, keep: int = 2) -> None:
        super().__init__()
        self.keep = keep

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write one checkpoint file.

        Raises:
            InputError: it cannot be written; what was there before still is.
        """
        path, step = Path(path), checkpoint["global_step"]
        partial = path.with_suffix(".partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with partial.open("wb") as file:
                torch.save(checkpoint, file)
                file.flush()
                os.fsync(file.fileno())
            before = step_of(path)
            if before is not None and before < step:
                os.replace(path, path.with_name(f"step-{before:08d}.ckpt"))
            os.replace(partial, path)
            for old in sorted(path.parent.glob(OLDER), reverse=True)[self.keep - 1 :]:
                old.unlink(missing_ok=True)
        except (OSError, RuntimeError) as error:  # torch tells a full disk as a RuntimeError
            partial.unlink(missing_ok=True)
            raise InputError(
                f"Cannot write the checkpoint of step {step} to {path}: {error}. Make room or give the right to write "
                f"there and run the same command again: it goes on from the checkpoint before."
            ) from error

    def load_checkpoint(self, path: str | Path, map_location: Any = None, weights_only: bool | None = True) -> Any:
        """Read one checkpoint file into the CPU's memory: Adam keeps the very tensors, and the file may go."""
        return read_checkpoint(Path(path), mapped=False)


class Checkpoints(Callback):
    """Saves ``checkpoints/last.ckpt``.

    Args:
        every_n_steps: optimiser steps between checkpoints; validations and stops save besides.
        keep: how many of the newest are kept, beside the best one: should the last one turn out broken, a
            run goes on from the one before.
    """

    def __init__(self, every_n_steps: int = 100, keep: int = 2) -> None:
        if every_n_steps < 1 or keep < 1:
            raise InputError(f"checkpoint.every_n_steps and keep are 1 or more; found {every_n_steps} and {keep}.")
        self.every_n_steps, self.keep = every_n_steps, keep
        self.begun = 0
        """The step of the checkpoint this start goes on from."""
        self.saved_step = -1
        """The step of the checkpoint this start has written last; -1 before that."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compare the ranks' checkpoints before anything of them is shared out.

        Raises:
            InputError: the ranks have read different ones.
        """
        check_same(trainer, self.begun, "go on from")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Drop the metrics of steps that are going to be done again."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCsv):
                logger.rewind(trainer.global_step)

    def save(self, trainer: Trainer, again: bool = False) -> None:
        """Save now, on all ranks; a step that was saved is saved ``again`` only on request."""
        if again or self.saved_step != trainer.global_step:
            trainer.save_checkpoint(_folder(trainer) / LAST)
            self.saved_step = trainer.global_step
            module: EditorModule = trainer.lightning_module
            module.placed.flush()

    def keep_as_best(self, trainer: Trainer) -> None:
        """Keep a copy of the checkpoint just saved as the best one."""
        if trainer.is_global_zero:
            keep_as_best(_folder(trainer))

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


def check_same(trainer: Trainer, step: int, what: str) -> None:
    """Check that all ranks have read a checkpoint of the same step. All of them call it together.

    Raises:
        InputError: they have not.
    """
    if trainer.world_size == 1:
        return
    steps = torch.tensor([step, -step], device=trainer.strategy.root_device)
    torch.distributed.all_reduce(steps, torch.distributed.ReduceOp.MAX)
    if steps[0] != -steps[1]:
        raise InputError(
            f"The ranks {what} different checkpoints, of steps {-int(steps[1])} to {int(steps[0])}: they do not see "
            f"the same files in {_folder(trainer)}. Put run.folder on a file system all nodes share, and start again."
        )


def _folder(trainer: Trainer) -> Path:
    return Path(trainer.default_root_dir) / "checkpoints"


def keep_as_best(folder: Path) -> None:
    """Let the best checkpoint be the last one; no copy where the file system knows links."""
    partial = folder / "best.partial"
    partial.unlink(missing_ok=True)
    try:
        os.link(folder / LAST, partial)
    except OSError:
        shutil.copyfile(folder / LAST, partial)
    os.replace(partial, folder / BEST)


def find_checkpoint(folder: Path) -> Path | None:
    """Return the newest whole checkpoint of a run to go on from, the best one last; None where there is none at all.

    Raises:
        InputError: there are some, and none can be read.
    """
    there = [folder / LAST, *sorted(folder.glob(OLDER), reverse=True), folder / BEST]
    there = [path for path in there if path.exists()]
    for path in there:
        try:
            read_checkpoint(path, verify=True)
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


def read_checkpoint(path: Path, verify: bool = False, mapped: bool = True) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Args:
        path: the file.
        mapped: leave its tensors in the file until they are looked at.
        verify: compare the checksums of all it holds too: tensors are mapped, and a flipped bit in one is not seen.

    Raises:
        InputError: it is missing or damaged.
    """
    try:
        if verify:
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            if damaged:
                raise zipfile.BadZipFile(f"the checksum of {damaged} is wrong")
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        content["state_dict"], content["loops"], content["global_step"]  # noqa: B018 - a file of another kind lacks them
        return content
    except Exception as error:  # torch raises many kinds for damaged files
        first = (str(error).splitlines() or [""])[0]
        raise InputError(
            f"Checkpoint {path} cannot be read ({type(error).__name__}: {first}). Name another one with --ckpt_path, "
            f"or leave that out."
        ) from error
