"""A process that reads and writes packs beside others: ``python -m tests.base.pack_writer FOLDER SEED SECONDS``.

It deletes whole packs as well, as a rank does that finds one broken. Ends with status 1 when it is given a state that
is not what was put, or when it is warned of anything: what is written whole is never found broken.
"""

import logging
import random
import sys
import time
from pathlib import Path

import torch
from torch import Tensor

from instructedit.base import packs as packs_module
from instructedit.base.packs import Packs

ADDRESS: dict[str, str | int] = {"fingerprint": "f" * 64, "first_block": 2, "torch": "2"}
N_KEYS = 200


def key_of(n: int) -> bytes:
    return n.to_bytes(16, "big")


def state_of(n: int) -> Tensor:
    """A state (1 to 40, 8) that follows from its number alone."""
    return torch.arange(8 * (1 + n % 40), dtype=torch.float32).reshape(-1, 8) + 1000 * n


class Warned(logging.Handler):
    """Ends the process."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.exit(record.getMessage())


def work(root: Path, seed: int, seconds: float) -> None:
    logging.getLogger("instructedit").addHandler(Warned())
    packs_module.OPEN_PACKS = 2
    packs = Packs(root, ADDRESS, "base", torch.float32, 2**30)
    choose = random.Random(seed)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for n in choose.sample(range(N_KEYS), 20):
            state = packs.get(key_of(n), len(state_of(n)))
            if state is not None and not torch.equal(state, state_of(n)):
                sys.exit("a state is not what was put")
        packs.put({key_of(n): state_of(n) for n in choose.sample(range(N_KEYS), 20)})
        for path in packs.folder.glob("*.safetensors"):
            if choose.random() < 0.1:
                path.unlink(missing_ok=True)
    packs.refresh()
    # What is missing at the end: several writers find that out at once.
    packs.put({key_of(n): state_of(n) for n in range(N_KEYS)})


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
