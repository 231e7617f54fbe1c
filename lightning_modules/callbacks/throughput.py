"""How fast a run is: edits and tokens a second, memory, and the device time it has taken over all its starts.

These numbers differ from run to run, so they go to ``throughput.csv`` and not to ``metrics.csv``.
"""

import resource
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from instructedit.runs.progress import read_progress
from lightning_modules.callbacks import at_step_end
from lightning_modules.callbacks.validation import Validation
from lightning_modules.loggers import MetricsCsv

if TYPE_CHECKING:
    from lightning_modules.editor_module import EditorModule

FILE = "throughput.csv"
PREFIX = "throughput/"
"""What other loggers than that file see in front of the names."""

STEPS = 32
"""``latest`` is the mean of so many steps: steady enough to tell a remaining time from, quick to show a change."""


@dataclass(frozen=True)
class ThroughputValues:
    """What was measured.

    Args:
        seconds_per_step: wall seconds of an optimiser step, validations left out; 0 before the first step.
        edits_per_second: requests of the global batch by the same seconds.
        tokens_per_second: tokens of all rows of all ranks by the same seconds, padding not counted.
        memory_gib: the most this start has held: on an accelerator what torch took of it, on the CPU the process.
        device_seconds: wall seconds times ranks over all starts of the run, this one counted until now.
    """

    seconds_per_step: float = 0.0
    edits_per_second: float = 0.0
    tokens_per_second: float = 0.0
    memory_gib: float = 0.0
    device_seconds: float = 0.0


class Throughput(Callback):
    """Measures at the end of each optimiser step; callbacks that read ``latest`` come after it.

    Args:
        run: the run directory.
        validation: its seconds are left out of the rates.
    """

    def __init__(self, run: Path, validation: Validation) -> None:
        self.run, self.validation = run, validation
        self.csv = MetricsCsv(run / FILE)
        self._began = time.monotonic()
        self._earlier: float | None = None
        self._ranks = 0
        self._values = ThroughputValues()
        self._since: float | None = None
        self._recent: deque[tuple[float, int]] = deque(maxlen=STEPS)
        self._unlogged: list[tuple[float, int]] = []

    @property
    def latest(self) -> ThroughputValues:
        """The rates at the end of the latest step, and the device time until now."""
        return replace(self._values, device_seconds=self._device_seconds())

    def _device_seconds(self) -> float:
        if self._earlier is None:
            # Asked for the first time: before this start writes its own progress, and with the run locked.
            progress = read_progress(self.run)
            self._earlier = progress.device_seconds if progress else 0.0
        return self._earlier + self._ranks * (time.monotonic() - self._began)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Learn how many ranks take part."""
        self._ranks = trainer.world_size

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on in the file where the run goes on."""
        self.csv.rewind(trainer.global_step)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Start to count at the first batch: starting the moments and the workers is no step."""
        if self._since is None:
            self._since = self._now()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count a step, from the end of the one before: loading data and saving checkpoints are in it."""
        if not at_step_end(trainer, batch_idx) or self._since is None:
            return
        module: EditorModule = pl_module
        now, edits = self._now(), trainer.datamodule.batch
        step = (now - self._since, module.step_tokens)
        self._since = now
        self._recent.append(step)
        self._unlogged.append(step)
        memory = peak_memory(trainer.strategy.root_device)
        self._values = rates(self._recent, edits, memory)
        if trainer.global_step % trainer.log_every_n_steps == 0:
            values = replace(rates(self._unlogged, edits, memory), device_seconds=self._device_seconds())
            self._unlogged.clear()
            self.csv.log_metrics(asdict(values), trainer.global_step)
            for logger in trainer.loggers:
                if not isinstance(logger, MetricsCsv):
                    named = {PREFIX + name: value for name, value in asdict(values).items()}
                    logger.log_metrics(named, trainer.global_step)

    def _now(self) -> float:
        """A clock that stands still in validations."""
        return time.monotonic() - self.validation.seconds


def rates(steps: Sequence[tuple[float, int]] | deque[tuple[float, int]], edits: int, memory: float) -> ThroughputValues:
    """Return the mean rates of some steps.

    Args:
        steps: seconds and tokens of each.
        edits: requests of a step.
        memory: GiB.
    """
    seconds, tokens = (sum(values) for values in zip(*steps, strict=True))
    seconds = max(seconds, 1e-9)  # a clock may be coarse
    return ThroughputValues(seconds / len(steps), edits * len(steps) / seconds, tokens / seconds, memory)


def peak_memory(device: torch.device) -> float:
    """Return the most that was held, GiB: of a CUDA device by torch, elsewhere by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device) / 2**30
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30
