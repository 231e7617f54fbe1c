"""When things happen in a run: checkpoints, validation, stopping, progress."""

from lightning.pytorch import Trainer


def at_step_end(trainer: Trainer, batch_idx: int) -> bool:
    """Whether this micro-batch was the last of an optimiser step."""
    return bool((batch_idx + 1) % trainer.accumulate_grad_batches == 0)
