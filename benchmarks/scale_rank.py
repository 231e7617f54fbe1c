"""One rank of scale.py's trainings: the training module's own step, with every collective counted and every step timed.

    python benchmarks/scale_rank.py SETTINGS.json RESULT.json      # started by scale.py, once for each rank

Counted is what Python gives to torch.distributed. DDP's gradients go there through its own default hook written in
Python; its bitmap of used parameters, 4 bytes a parameter tensor, does not and is not counted. Loopback bytes are the
machine's, from /proc/net/dev: other programs' traffic is in them.
"""

import inspect
import json
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import distributed_c10d

CALLS: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "all_reduce": ("all_reduce", lambda given: [given["tensor"]]),
    "reduce": ("reduce", lambda given: [given["tensor"]]),
    "broadcast": ("broadcast", lambda given: [given["tensor"]]),
    "all_gather": ("all_gather", lambda given: given["tensor_list"]),
    "all_gather_into_tensor": ("all_gather", lambda given: [given["output_tensor"]]),
    "reduce_scatter": ("reduce_scatter", lambda given: given["input_list"]),
    "reduce_scatter_tensor": ("reduce_scatter", lambda given: [given["input"]]),
    "_broadcast_coalesced": ("broadcast", lambda given: given["args"][1]),
}
"""The kind of each function, and the tensors whose bytes count: a gather's output, a scatter's input."""


class Counter:
    """Counts calls and bytes by kind from ``install`` on."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self.bytes: dict[str, int] = {}
        self._inside = False

    def install(self) -> None:
        """Take the place of torch.distributed's functions; before anything takes them for itself."""
        for name, (kind, tensors) in CALLS.items():
            counted = self._counted(getattr(dist, name), kind, tensors)
            setattr(dist, name, counted)
            if hasattr(distributed_c10d, name):
                setattr(distributed_c10d, name, counted)

    def snapshot(self) -> dict[str, dict[str, int]]:
        """What was counted so far."""
        return {kind: {"calls": self.calls[kind], "bytes": self.bytes[kind]} for kind in self.calls}

    def _counted(self, real: Callable[..., Any], kind: str, tensors: Callable[[dict[str, Any]], Any]) -> Any:
        # What is written in C++ has no signature and is called by position.
        signature = None if inspect.isbuiltin(real) or not inspect.isroutine(real) else inspect.signature(real)

        @wraps(real)
        def counted(*args: Any, **settings: Any) -> Any:
            if self._inside:
                return real(*args, **settings)
            given = dict(signature.bind(*args, **settings).arguments) if signature else {"args": args}
            self.calls[kind] = self.calls.get(kind, 0) + 1
            self.bytes[kind] = self.bytes.get(kind, 0) + sum(tensor.nbytes for tensor in tensors(given))
            self._inside = True
            try:
                return real(*args, **settings)
            finally:
                self._inside = False

        return counted


def loopback() -> int:
    """Bytes sent over the machine's loopback interface so far; 0 where that is not told."""
    try:
        lines = Path("/proc/net/dev").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split(":")[1].split()[8]) for line in lines if line.split(":")[0].strip() == "lo"), 0)


def train(settings: dict[str, Any], counter: Counter) -> dict[str, Any]:
    """Run the training and return seconds, counts and loopback bytes of the measured steps."""
    from lightning.pytorch import Callback, Trainer
    from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

    from instructedit.base import SiteSpec
    from instructedit.hypernet.editor import EditorConfig
    from lightning_modules.edit_datamodule import EditDataModule
    from lightning_modules.editor_module import EditorModule
    from lightning_modules.parser import _quiet
    from lightning_modules.strategies import make_strategy
    from lightning_modules.strategies.zero import AsTheyAre, Zero

    _quiet()
    steps, skipped = settings["steps"], settings["skipped"]
    seen: list[tuple[float, int, dict[str, dict[str, int]]]] = []

    class Meter(Callback):
        """Looks at clock and counters at the end of each step."""

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            if settings["strategy"] == "ddp":
                trainer.strategy.model.register_comm_hook(None, allreduce_hook)
            for step in range(skipped + steps):  # the trunk's states are there, as in a later epoch
                batch = trainer.datamodule.micro(step)
                pl_module.stage.store.states((batch.inner + batch.rephrase + batch.avoid + batch.locality).ids)

        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            seen.append((time.perf_counter(), loopback(), counter.snapshot()))

    torch.manual_seed(0)
    sites = SiteSpec(last_blocks=settings["last_blocks"])
    editor = EditorConfig(rank=settings["rank"])
    module = EditorModule(settings["base"], dtype=settings["dtype"], sites=sites, editor=editor, lr=1e-4)
    data = EditDataModule(settings["tasks"], folder=settings["data"], batch=settings["batch"])
    trainer_settings = {"accelerator": "cpu", "devices": settings["ranks"], "max_steps": skipped + steps}
    strategy = make_strategy(settings["strategy"], trainer_settings, timedelta(minutes=5), 10_000)
    off = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    more = {"callbacks": [Meter()], "plugins": [AsTheyAre()] if isinstance(strategy, Zero) else None}
    trainer = Trainer(**trainer_settings, **off, **more, strategy=strategy, use_distributed_sampler=False)
    trainer.fit(module, datamodule=data)
    seconds = [after[0] - before[0] for before, after in zip(seen, seen[1:], strict=False)][skipped - 1 :]
    (_, lo_before, before), (_, lo_after, after) = seen[skipped - 1], seen[-1]
    counted = {
        kind: {key: (after[kind][key] - before.get(kind, {}).get(key, 0)) / steps for key in ("calls", "bytes")}
        for kind in after
    }
    shapes = [(site.d_in, site.d_out) for site in module.editor.sites]
    parameters = sum(value.numel() for value in module.editor.parameters())
    told = {"seconds": seconds, "counted": counted, "loopback": (lo_after - lo_before) / steps}
    return told | {"shapes": shapes, "parameters": parameters, "threads": torch.get_num_threads()}


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    counter = Counter()
    counter.install()
    from lightning_modules.processes import end_together

    with end_together():
        result = train(settings, counter)
        Path(sys.argv[2]).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
