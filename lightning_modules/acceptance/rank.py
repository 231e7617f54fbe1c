"""One of the processes of the acceptance: who it is, how it meets the others, and what it tells of a check."""

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from instructedit.base import Base, load_base
from instructedit.errors import InputError
from lightning_modules.acceptance.setting import Setting

WAIT = timedelta(minutes=3)
"""How long a rank waits for the others: also for one that unpacks the base."""

COLLECTIVE = timedelta(minutes=2)
"""How long a collective may take: one that hangs is given up before the ranks give each other up."""


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


class LostError(RuntimeError):
    """Another rank has not said what all say."""


class Talk:
    """How ranks tell each other of their checks: short values through a store that rank zero holds.

    Not through collectives: those are what is checked. A rank whose check has broken off is noticed by the others, and
    all of them begin the next one together.

    Args:
        store: the store.
        number: this rank.
        ranks: how many there are.
    """

    def __init__(self, store: dist.Store, number: int, ranks: int) -> None:
        self.store, self.number, self.ranks = store, number, ranks
        self._check, self._asked = "", 0

    def begin(self, check: str) -> None:
        """Begin a check."""
        self._check, self._asked = check, 0

    def gathered(self, value: Any) -> list[Any]:
        """Every rank's value, which JSON can hold, in order and on all of them.

        Raises:
            LostError: a rank has not told its own in time, or its check has broken off.
        """
        self._asked += 1
        place = f"{self._check}/{self._asked}"
        self.store.set(f"{place}/{self.number}", json.dumps(value))
        return [self._told(f"{place}/{rank}", rank) for rank in range(self.ranks)]

    def break_off(self) -> None:
        """Let the others not wait for this rank's values in this check."""
        self.store.set(f"{self._check}/broken", str(self.number))

    def leave(self) -> None:
        """Wait until nobody needs this rank's store any more."""
        self.begin("leaving")
        self.store.set(f"left/{self.number}", "")
        if self.number == 0:
            self.store.wait([f"left/{rank}" for rank in range(self.ranks)], WAIT)

    def _told(self, key: str, rank: int) -> Any:
        end = time.monotonic() + WAIT.total_seconds()
        while not self.store.check([key]):
            if self.store.check([f"{self._check}/broken"]):
                raise LostError(f"rank {self.store.get(f'{self._check}/broken').decode()} has broken off")
            if time.monotonic() > end:
                raise LostError(f"rank {rank} has told nothing in {WAIT.total_seconds():.0f} s")
            time.sleep(0.02)
        return json.loads(self.store.get(key))


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
        talk: to the others.
    """

    number: int
    ranks: int
    local: int
    node: str
    device: torch.device
    setting: Setting
    talk: Talk

    @property
    def name(self) -> str:
        """For messages."""
        return f"rank {self.number} on {self.node}"

    def barrier(self) -> None:
        """Wait for all."""
        self.talk.gathered(None)

    def gathered(self, value: Any) -> list[Any]:
        """Every rank's value, in order, on all of them."""
        return self.talk.gathered(value)

    @contextmanager
    def collectives(self, backend: str) -> Iterator[None]:
        """Inside the block, the ranks' processes are a group of torch.distributed's.

        Args:
            backend: ``gloo`` or ``nccl``.
        """
        store = dist.PrefixStore(backend, self.talk.store)
        dist.init_process_group(backend, store=store, rank=self.number, world_size=self.ranks, timeout=COLLECTIVE)
        try:
            yield
        finally:
            dist.destroy_process_group()


def join(setting: Setting) -> Rank:
    """Meet the others, as SLURM has numbered the tasks.

    Raises:
        RuntimeError: the first node cannot be reached.
    """
    number, ranks, local = (int(os.environ[f"SLURM_{name}"]) for name in ("PROCID", "NTASKS", "LOCALID"))
    port = int(os.environ.get("MASTER_PORT", 20000 + int(setting.job) % 10000))
    store = dist.TCPStore(os.environ["MASTER_ADDR"], port, ranks, is_master=number == 0, timeout=WAIT)
    device = torch.device("cpu")
    if setting.accelerator == "gpu" and torch.cuda.is_available():
        # Where each task sees its own GPU alone, that is number 0.
        device = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(device)
    node = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
    return Rank(number, ranks, local, node, device, setting, Talk(store, number, ranks))


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
