"""Progress of a run: a bar with rate and remaining time on a terminal, a line now and then in a log file."""

import time
from typing import TYPE_CHECKING, Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from lightning_modules.callbacks import at_step_end

if TYPE_CHECKING:
    from lightning_modules.editor_module import EditorModule

LINE_SECONDS = 30.0
"""Seconds between two lines where there is no terminal."""


class TrainingProgress(Callback):
    """Shows steps, edits per second, remaining time, loss and the latest score; rank zero only."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        self._bar: Progress | None = None
        self._task: TaskID
        self._validation: TaskID | None = None
        self._since, self._first_step, self._line = 0.0, 0, 0.0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the bar: a validation may come before the first step."""
        if not trainer.is_global_zero:
            return
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._bar = Progress(
            *columns, TextColumn("{task.fields[text]}"), console=self.console, disable=not self.console.is_terminal
        )
        self._task = self._bar.add_task("training", total=trainer.max_steps, text="")
        self._bar.start()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start to count."""
        self._since, self._first_step = time.monotonic(), trainer.global_step
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step)

    def validated(self, n: int, total: int) -> None:
        """Show ``n`` more validation records out of ``total`` below the steps; gone when all are done."""
        if self._bar is None:
            return
        if self._validation is None:
            self._validation = self._bar.add_task("validation", total=total, text="")
        self._bar.advance(self._validation, n)
        if self._bar.tasks[-1].finished:
            self._bar.remove_task(self._validation)
            self._validation = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Show a finished step."""
        if self._bar is None or not at_step_end(trainer, batch_idx):
            return
        module: EditorModule = pl_module
        step, now = trainer.global_step, time.monotonic()
        rate = (step - self._first_step) * trainer.datamodule.batch / (now - self._since)
        text = f"{rate:.1f} edits/s"
        for name in ("train/loss", "val/score"):
            if name in module.last_values:
                text += f"  {name} {module.last_values[name]:.4g}"
        self._bar.update(self._task, completed=step, text=text)
        if not self.console.is_terminal and (now - self._line > LINE_SECONDS or step == trainer.max_steps):
            self._line = now
            print(f"step {step}/{trainer.max_steps}  {text}", flush=True)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the bar away, so that the error stands by itself."""
        self.on_fit_end(trainer, pl_module)
