"""The progress bar during a validation."""

from types import SimpleNamespace
from typing import Any

from lightning_modules.callbacks.progress import TrainingProgress


def test_a_validation_has_a_bar_of_its_own_until_it_is_done() -> None:
    progress = TrainingProgress()
    progress.validated(1, 4)  # no bar, nothing to show
    trainer: Any = SimpleNamespace(is_global_zero=True, max_steps=6, global_step=3)
    module: Any = None
    progress.on_fit_start(trainer, module)
    bar = progress._bar
    assert bar is not None
    for _ in range(2):
        progress.validated(3, 4)
        assert [(task.description, task.completed, task.total) for task in bar.tasks[1:]] == [("validation", 3, 4)]
        progress.validated(1, 4)
        assert len(bar.tasks) == 1
    progress.on_fit_end(trainer, module)
    assert progress._bar is None
