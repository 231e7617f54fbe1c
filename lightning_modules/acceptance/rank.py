"""One of the processes of the acceptance: who it is, how it meets the others, and what it tells of a check."""

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from instructedit.base import Base, load_base
from instructedit.errors import InputError
from lightning_modules.acceptance.setting import Setting

WAIT = timedelta(minutes=3)
"""How long a rank waits for the others: also for one that unpacks the base."""


@dataclass(frozen=True)
class Part:
    """What one rank tells of a check.

    Args:
        fault: what is wrong, empty where nothing is.
        told: what was seen.
        numbers: the same.
        skipped: why it could not be tried, empty where it was.
    """

    fault: str = ""
    told: str = ""
    numbers: Mapping[str, float] | None = None
    skipped: str = ""


@dataclass(frozen=True)
class Rank:
    """One of the processes.

    Args:
        number: its rank.
        ranks: how many there are.
        local: its number on its node.
        node: the node's name.
        device: what it computes on.
        setting: the job's.
    """

    number: int
    ranks: int
    local: int
    node: str
    device: torch.device
    setting: Setting

    @property
    def name(self) -> str:
        """For messages."""
        return f"rank {self.number} on {self.node}"

    def barrier(self) -> None:
        """Wait for all."""
        dist.barrier()

    def gathered(self, value: object) -> list[object]:
        """Every rank's value, in order, on all of them."""
        values: list[object] = [None] * self.ranks
        dist.all_gather_object(values, value)
        return values


def join(setting: Setting) -> Rank:
    """Meet the others, as SLURM has numbered the tasks.

    Raises:
        RuntimeError: they are not there in time.
    """
    number, ranks, local = (int(os.environ[f"SLURM_{name}"]) for name in ("PROCID", "NTASKS", "LOCALID"))
    os.environ.setdefault("MASTER_PORT", str(20000 + int(setting.job) % 10000))
    dist.init_process_group("gloo", timeout=WAIT, rank=number, world_size=ranks)
    device = torch.device("cpu")
    if setting.accelerator == "gpu" and torch.cuda.is_available():
        # Where each task sees its own GPU alone, that is number 0.
        device = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(device)
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    return Rank(number, ranks, local, node, device, setting)


def loaded(rank: Rank, dtype: torch.dtype, device: torch.device | None = None) -> Base:
    """The base; rank zero is first, and unpacks or fetches it where need be."""
    place = device or rank.device
    fault, base = "", None
    for turn in (True, False):
        if turn == (rank.number == 0):
            try:
                base = load_base(rank.setting.base, dtype, place)
            except InputError as error:
                fault = str(error)
        rank.barrier()
    if base is None:
        raise InputError(fault)
    return base
