"""A process that reads and writes packs beside others: ``python -m tests.base.pack_writer FOLDER SEED ROUNDS``.

It breaks nothing and deletes packs now and then, as a rank does that finds one broken. Ends with status 1 when it is
given a state that is not what was put.
"""

import random
import sys
from pathlib import Path

import torch
from torch import Tensor

from instructedit.base.packs import Packs

ADDRESS: dict[str, str | int] = {"fingerprint": "f" * 64, "first_block": 2, "torch": "2"}
N_KEYS = 200


def key_of(n: int) -> bytes:
    return n.to_bytes(16, "big")


def state_of(n: int) -> Tensor:
    """A state (1 to 40, 8) that follows from its number alone."""
    return torch.arange(8 * (1 + n % 40), dtype=torch.float32).reshape(-1, 8) + 1000 * n


def work(root: Path, seed: int, rounds: int) -> None:
    packs = Packs(root, ADDRESS, "base", torch.float32, 2**30)
    choose = random.Random(seed)
    for round_ in range(rounds):
        numbers = choose.sample(range(N_KEYS), 20)
        for n in numbers:
            state = packs.get(key_of(n), len(state_of(n)))
            if state is not None and not torch.equal(state, state_of(n)):
                sys.exit(1)
        packs.put({key_of(n): state_of(n) for n in numbers})
        if round_ % 10 == 9:
            for path in packs.folder.glob("*.safetensors"):
                if choose.random() < 0.1:
                    path.unlink(missing_ok=True)
    packs.refresh()
    # What is missing at the end: several writers find that out at once.
    packs.put({key_of(n): state_of(n) for n in range(N_KEYS)})
    sys.exit(bool(packs.stopped))


if __name__ == "__main__":
    work(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
