"""How a training is spread over processes, by name: ``trainer.strategy``."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal

import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from instructedit.errors import InputError, unknown
from lightning_modules.strategies.sharded import Sharded

Stage = Literal[1, 2, 3]
STAGES: tuple[Stage, ...] = (1, 2, 3)
ZERO = {f"zero_{stage}{suffix}": (stage, bool(suffix)) for stage in STAGES for suffix in ("", "_offload")}
STRATEGIES = ("auto", "ddp", "fsdp2", *ZERO)
"""``auto`` is one device, or ``ddp`` where there are several."""


def make_strategy(asked: Any, settings: Mapping[str, Any], timeout: timedelta, persist: int) -> Any:
    """Return what the Trainer takes as its strategy.

    Args:
        asked: one of ``STRATEGIES``, or a strategy object of one of these kinds.
        settings: the trainer's other settings.
        timeout: how long a rank waits for the others in a collective.
        persist: see ``Zero``.

    Raises:
        InputError: there is no such strategy, or its package is not installed.
    """
    if isinstance(asked, Strategy):
        if not isinstance(asked, SingleDeviceStrategy | DDPStrategy | Sharded):
            raise InputError(
                f"trainer.strategy is a {type(asked).__name__}, whose checkpoints no other strategy could read. "
                f"Choose one of {', '.join(STRATEGIES)}."
            )
        return asked
    cpu = settings.get("accelerator") == "cpu"
    if asked == "auto" and n_processes(settings) == 1:
        return asked
    if asked in ("auto", "ddp"):
        # Without it DDP sorts its buckets anew after the first step, and with more than two ranks a sum's order and
        # last bits change: a resumed run, which has its first step later, would differ from one left alone.
        return DDPStrategy(find_unused_parameters=True, timeout=timeout)
    if asked == "fsdp2":
        from lightning_modules.strategies.fsdp2 import FSDP2

        return FSDP2(timeout)
    if asked in ZERO:
        from lightning_modules.strategies.zero import Zero

        if str(settings.get("gradient_clip_algorithm")) == "value":
            raise InputError(
                f"DeepSpeed clips gradients by their norm alone, but trainer.gradient_clip_algorithm is value. Set it "
                f"to norm, or trainer.strategy from {asked} to ddp or fsdp2."
            )
        stage, offload = ZERO[asked]
        return Zero(stage, offload, timeout, persist, cpu)
    raise unknown("trainer.strategy", str(asked), STRATEGIES)


def check_launched(settings: Mapping[str, Any], launched: int | None) -> None:
    """Check that a launcher has started as many processes as the Trainer is going to expect.

    Args:
        settings: the trainer's.
        launched: how many there are; None where the program starts them itself.

    Raises:
        InputError: it has not: every process would train by itself, or wait for ever.
    """
    wanted = n_processes(settings)
    if launched is not None and launched != wanted:
        raise InputError(
            f"The launcher started {launched} processes, but trainer.devices {settings.get('devices')!r} on "
            f"{settings.get('num_nodes') or 1} nodes ask for {wanted}. Start one for each device, or set "
            f"trainer.devices and trainer.num_nodes to what was started."
        )


def n_processes(settings: Mapping[str, Any]) -> int:
    """How many processes the Trainer is going to use.

    Raises:
        InputError: trainer.devices is no number or list of devices.
    """
    devices = settings.get("devices")
    if devices in ("auto", "-1", -1, None):
        on_gpu = settings.get("accelerator") in ("auto", "gpu", "cuda") and torch.cuda.is_available()
        devices = torch.cuda.device_count() if on_gpu else 1
    if isinstance(devices, str) and "," in devices:
        devices = [part for part in devices.split(",") if part.strip()]
    try:
        count = len(devices) if isinstance(devices, list | tuple) else int(devices)
    except ValueError as error:
        raise InputError(
            f"trainer.devices is {devices!r}. Give the number of devices, a list of them, or auto."
        ) from error
    return count * int(settings.get("num_nodes") or 1)
