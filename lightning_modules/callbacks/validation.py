"""Validation every so many steps: metrics per task, one score, the best checkpoint, early stopping.

A callback of ours and not Lightning's validation loop, because that one is lost when a run is killed
in it or just before it; here a resumed run makes up for it, so that ``metrics.csv`` has no gaps.
"""

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import torch.distributed
from lightning.pytorch import Callback, LightningModule, Trainer

from instructedit import signals
from instructedit.errors import InputError
from instructedit.evaluation.metrics import METRICS
from instructedit.evaluation.runner import dress, evaluate
from instructedit.methods.hyper import HyperMethod
from instructedit.records import Outcome
from lightning_modules.callbacks import at_step_end
from lightning_modules.callbacks.checkpoints import LAST, Checkpoints, keep_as_best, read_checkpoint
from lightning_modules.callbacks.stopping import Stopped

if TYPE_CHECKING:
    from lightning_modules.edit_datamodule import EditDataModule, Examples
    from lightning_modules.editor_module import EditorModule

Measured = TypeVar("Measured")
"""What ranks share: outcomes, or the sizes of edits."""

SCORED = METRICS[:3]
"""Reliability, generalization, locality; portability is reported and chooses nothing."""


class Validation(Callback):
    """Scores the editor on the validation records, each with the instruction training has seen.

    Args:
        every_n_steps: optimiser steps between validations; the last step is always validated.
        patience: stop after so many validations in a row without a better ``val/score``; null never does.
        min_delta: how much better counts as better for ``patience``, in points of 100.
    """

    def __init__(self, every_n_steps: int = 100, patience: int | None = None, min_delta: float = 0.0) -> None:
        if every_n_steps < 1 or (patience is not None and patience < 1):
            raise InputError(f"validation.every_n_steps and patience are 1 or more; found {every_n_steps}, {patience}.")
        self.every_n_steps, self.patience, self.min_delta = every_n_steps, patience, min_delta
        self.checkpoints: Checkpoints
        self.on_progress: Callable[[int, int], None] | None = None
        self.best_score, self.best_step, self.last_step = float("-inf"), -1, 0
        self.seconds = 0.0
        """Spent in validations, of this start."""
        self._level, self._stale = float("-inf"), 0
        self._examples: Examples = {}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make up for a validation that was not finished, and remember an early stop."""
        self.catch_up(trainer, pl_module)
        self._maybe_stop(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Validate when it is time, unless the run was told to stop."""
        if at_step_end(trainer, batch_idx) and not trainer.should_stop:
            if self._due(trainer):
                self.checkpoints.save(trainer)  # a validation may take long: a kill then costs no steps
            self.catch_up(trainer, pl_module)
            self._maybe_stop(trainer)

    def catch_up(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Validate if it is due at this step and was not done.

        Raises:
            Stopped: a signal came; the step was saved before, and a resumed run validates it again.
        """
        if not self._due(trainer):
            if self.best_step == trainer.global_step:
                self.checkpoints.mend_best(trainer)
            return
        self._validate(trainer, pl_module)
        self.checkpoints.save(trainer, again=True)
        if self.best_step == trainer.global_step:
            self.checkpoints.keep_as_best(trainer)

    def make_up(self, trainer: Trainer, module: "EditorModule") -> None:
        """Validate a finished run whose last validation was cut off; no step is left in which that could be done.

        The engine is gone by now: the editor is read from the last checkpoint, whole on every rank, and this
        validation is added to that file.

        Raises:
            Stopped: as ``catch_up``.
        """
        if not self._due(trainer):
            if self.best_step == trainer.global_step:
                self.checkpoints.mend_best(trainer)
            return
        last = Path(trainer.default_root_dir) / "checkpoints" / LAST
        content = read_checkpoint(last)
        module.start_over()
        module.load_state_dict(content["state_dict"])
        self._validate(trainer, module)
        if not trainer.is_global_zero:
            return
        content["callbacks"][self.state_key] = self.state_dict()
        trainer.strategy.checkpoint_io.save_checkpoint(content, last)
        if self.best_step == trainer.global_step:
            keep_as_best(last.parent)

    def _validate(self, trainer: Trainer, module: "EditorModule") -> None:
        """Measure, log and note."""
        data: EditDataModule = trainer.datamodule
        self._examples = self._examples or validation_examples(data)
        self._module = module
        since = time.monotonic()
        outcomes = run_validation(module, data, self._examples, trainer.global_rank, trainer.world_size, self._advance)
        values = summary(outcomes, data.tasks)
        module.last_values |= {"val/score": values["val/score"]}
        for logger in trainer.loggers:
            logger.log_metrics(values, trainer.global_step)
        self._note(values["val/score"], trainer.global_step)
        self.seconds += time.monotonic() - since

    def _advance(self, n: int, total: int) -> None:
        stop_if_asked(self._module)
        if self.on_progress:
            self.on_progress(n, total)

    def _due(self, trainer: Trainer) -> bool:
        step = trainer.global_step
        return step != self.last_step and (step % self.every_n_steps == 0 or step == trainer.max_steps)

    def _note(self, score: float, step: int) -> None:
        self.last_step = step
        self._stale = 0 if score > self._level + self.min_delta else self._stale + 1
        self._level = score if self._stale == 0 else self._level
        if score > self.best_score:
            self.best_score, self.best_step = score, step

    def _maybe_stop(self, trainer: Trainer) -> None:
        if self.patience is not None and self._stale >= self.patience:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        names = ("best_score", "best_step", "last_step", "_level", "_stale")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it up again."""
        for name, value in state_dict.items():
            setattr(self, name, value)


def validation_examples(data: "EditDataModule") -> "Examples":
    """The validation records of every task, dressed as validation asks them."""
    which: Literal["seen"] | None = "seen" if data.pools else None
    return {task: dress(examples, data.pools, which) for task, examples in data.validation().items()}


def run_validation(
    module: "EditorModule",
    data: "EditDataModule",
    examples: "Examples",
    rank: int = 0,
    world_size: int = 1,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[Outcome]:
    """Evaluate the editor as it is now; ranks share the records and all get all outcomes.

    Raises:
        Stopped: ``on_progress`` raised it on any rank; then it is raised on all.
    """
    stage = module.evaluation_stage
    if module.placed.in_step:
        # Ranks that share a base ask it the same questions side by side, all of them.
        rank, world_size = 0, 1
    mine = [example for task in examples for example in examples[task][rank::world_size]]
    report = (lambda n: on_progress(n, len(mine))) if on_progress else None

    def measure() -> list[Outcome]:
        with module.whole_editor() as editor:
            method = HyperMethod(editor, stage, module.method, data.pools)
            return evaluate(method, stage, mine, batch=data.eval_batch, metrics=METRICS[:4], on_progress=report)

    return shared_outcomes(measure, world_size)


def stop_if_asked(module: "EditorModule") -> None:
    """Stop an evaluation when a signal has come; on all ranks at once where they go side by side.

    Raises:
        Stopped: one has.
    """
    asked = bool(signals.requested())
    if module.placed.most(int(asked)) if module.placed.in_step else asked:
        raise Stopped(signals.requested())


def shared_outcomes(measure: Callable[[], list[Measured]], world_size: int) -> list[Measured]:
    """Let every rank measure its share of the records and give all of them all outcomes, rank by rank.

    Raises:
        Stopped: ``measure`` raised it on any rank; then it is raised on all.
    """
    outcomes: list[Measured] | None
    try:
        outcomes = measure()
    except Stopped:
        outcomes = None  # the other ranks wait for ours
    gathered = [outcomes]
    if world_size > 1:
        gathered *= world_size
        torch.distributed.all_gather_object(gathered, outcomes)
    found = [part for part in gathered if part is not None]
    if len(found) < world_size:
        raise Stopped(signals.requested())
    return [outcome for part in found for outcome in part]


def summary(outcomes: Sequence[Outcome], tasks: Sequence[str]) -> dict[str, float]:
    """Average outcomes to ``val/<task>/<metric>`` and ``val/score``, in percent.

    The score is the mean over tasks of the mean of reliability, generalization and locality, as far
    as the task has them.
    """
    values: defaultdict[tuple[str, str], list[float]] = defaultdict(list)
    for outcome in sorted(outcomes, key=lambda o: (o.task, o.metric, o.id)):  # one order on any number of ranks
        values[outcome.task, outcome.metric].append(outcome.value)
    means = {key: 100 * sum(found) / len(found) for key, found in values.items()}
    scores = []
    for task in tasks:
        parts = [means[task, metric] for metric in SCORED if (task, metric) in means]
        scores.append(sum(parts) / len(parts))
    return {"val/score": sum(scores) / len(scores)} | {f"val/{task}/{m}": v for (task, m), v in means.items()}
