"""Signs of life: ``progress.json`` in the run directory, for whoever watches the run from outside."""

import dataclasses
import logging
import os
import platform
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lightning.pytorch import Callback, LightningModule, Trainer

from instructedit.runs.processes import mark
from instructedit.runs.progress import Progress, State, write_progress
from instructedit.scheduling.requeue import current_job, job_id
from lightning_modules.callbacks import at_step_end
from lightning_modules.callbacks.checkpoints import Checkpoints
from lightning_modules.callbacks.throughput import Throughput

if TYPE_CHECKING:
    from lightning_modules.editor_module import EditorModule

log = logging.getLogger(__name__)

SECONDS = 5.0
"""Between two writes: often enough to watch, seldom enough for a shared file system."""


class Heartbeat(Callback):
    """Tells how far a run is: at a start, every few seconds, and how it ended; rank zero only.

    A file that cannot be written is told once and ends no training.

    Args:
        run: the run directory.
        throughput: what measures; called before this one.
        checkpoints: what saves.
    """

    def __init__(self, run: Path, throughput: Throughput, checkpoints: Checkpoints) -> None:
        self.run, self.throughput, self.checkpoints = run, throughput, checkpoints
        self._step, self._max_steps, self._began, self._ranks = 0, 0, 0, 0
        self._metrics: dict[str, float] = {}
        self._phase: Literal["training", "validation", "test"] = "training"
        self._written, self._warned = 0.0, False

    def begin(self, step: int, trainer: Trainer) -> None:
        """Tell that the run goes on at a step; until then, and on other ranks than zero, nothing is told."""
        if trainer.is_global_zero:
            self._step = self._began = step
            self._max_steps, self._ranks = trainer.max_steps, trainer.world_size
            self.tell("running")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Tell a finished step, if it is time."""
        if at_step_end(trainer, batch_idx):
            module: EditorModule = pl_module
            self._step = trainer.global_step
            # A validation's values stand until the next one.
            scores = {name: value for name, value in self._metrics.items() if name.startswith("val/")}
            self._metrics = scores | module.last_values
            self.alive("training")

    def alive(self, phase: Literal["training", "validation", "test"]) -> None:
        """Tell what the run is at, if it is time."""
        changed, self._phase = phase != self._phase, phase
        if changed or time.monotonic() - self._written >= SECONDS:
            self.tell("running")

    def tell(self, state: State, reason: str = "") -> None:
        """Write now."""
        if not self._ranks:
            return
        job = current_job()
        progress = Progress(
            state=state,
            step=self._step,
            max_steps=self._max_steps,
            began=self._began,
            saved_step=max(self._began, self.checkpoints.saved_step),
            phase=self._phase,
            reason=reason,
            **dataclasses.asdict(self.throughput.latest),
            metrics=self._metrics,
            host=platform.node(),
            pid=os.getpid(),
            process=mark(os.getpid()),
            job=job_id(),
            restarts=job.restarts if job else 0,
            nodes=os.environ.get("SLURM_JOB_NODELIST", ""),
            ranks=self._ranks,
        )
        self._written = time.monotonic()
        try:
            write_progress(self.run, progress)
        except OSError as error:
            if not self._warned:
                log.warning("Cannot write %s/progress.json: %s. The training goes on.", self.run, error.strerror)
            self._warned = True
