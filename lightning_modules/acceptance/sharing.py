"""Checks of the file system that the nodes share: the state folder itself, and the trunk store in it."""

import hashlib
import logging
import time
from collections.abc import Callable

import torch

from instructedit.base import Base, TrunkStore
from instructedit.base.pack_file import SUFFIX
from lightning_modules.acceptance.rank import Part, Rank, loaded

SECONDS = 60.0
"""How long a file may take to be seen on another node: NFS clients look again after up to a minute."""

INPUTS_EACH = 12
"""Inputs a rank computes; as many again are everybody's."""


def folder(rank: Rank) -> Part:
    """What one node writes, all see."""
    place = rank.setting.folder / "seen"
    place.mkdir(exist_ok=True)
    (place / f"rank-{rank.number}").write_text(rank.node)
    rank.barrier()
    missing: list[str] = []

    def all_there() -> bool:
        missing[:] = [f"rank {n}" for n in range(rank.ranks) if not (place / f"rank-{n}").exists()]
        return not missing

    seconds = _until(all_there)
    if missing:
        told = f"{rank.setting.folder} lacks the files of {', '.join(missing)} after {SECONDS:.0f} s"
        return Part(f"{told}: it is not on a file system that the nodes share. Set INSTRUCTEDIT_ACCEPTANCE_FOLDER")
    return Part(told=f"{rank.setting.folder}, seen after {seconds:.1f} s", numbers={"seconds": seconds})


def store(rank: Rank) -> Part:
    """All ranks fill one store at once, some inputs twice; then each reads all of it, and all read the same."""
    base = loaded(rank, torch.float32, torch.device("cpu"))
    common = inputs(base, -1)
    filled = opened(rank, base)
    own = inputs(base, rank.number) + common
    computed = dict(zip(own, filled.states(own), strict=True))
    filled.flush()
    fault = filled.packs.stopped if filled.packs else "no folder"
    rank.barrier()
    everything = [ids for n in range(rank.ranks) for ids in inputs(base, n)] + common
    read = opened(rank, base)
    missing: list[tuple[int, ...]] = []

    def all_there() -> bool:
        missing[:] = read.missing(everything)
        return not missing

    seconds = _until(all_there)
    states = read.states(everything)
    found = dict(zip(everything, states, strict=True))
    # Everybody's own: what all have computed lies in several packs, and on unlike nodes its last bits may differ.
    digests = rank.gathered(digest(states[: -len(common)]))
    numbers = {"states": float(len(everything)), "seconds": seconds}
    if fault:
        return Part(fault, numbers=numbers)
    if missing:
        told = f"{len(missing)} of {len(everything)} states were not to be seen after {SECONDS:.0f} s"
        return Part(told, numbers=numbers)
    if not all(torch.allclose(found[ids], state, rtol=1e-4, atol=1e-4) for ids, state in computed.items()):
        return Part("states that were read are not those that were computed", numbers=numbers)
    if len(set(digests)) > 1:
        return Part("the ranks have read different states", numbers=numbers)
    told = f"{len(everything)} states filled by {rank.ranks} ranks at once, read by all after {seconds:.1f} s"
    return Part(told=told, numbers=numbers)


def torn(rank: Rank) -> Part:
    """Packs that are half written or damaged are thrown away and made again; nobody reads a wrong number."""
    base = loaded(rank, torch.float32, torch.device("cpu"))
    everything = [ids for n in range(rank.ranks) for ids in inputs(base, n)]
    before = opened(rank, base).states(everything)
    rank.barrier()
    if rank.number == 0:
        packs = opened(rank, base).packs
        assert packs is not None
        for path in sorted(packs.folder.glob(f"*{SUFFIX}"))[:1]:
            half = path.stat().st_size // 2
            path.with_name(f"torn-{path.name}").write_bytes(path.read_bytes()[:half])
            with path.open("r+b") as file:  # and one whose end has turned into zeros, as after a crash of a server
                file.seek(half)
                file.write(bytes(half))
    rank.barrier()
    logging.getLogger("instructedit.base.packs").setLevel(logging.ERROR)
    again = opened(rank, base)
    after = again.states(everything)
    again.flush()
    rank.barrier()
    repaired = opened(rank, base)
    _until(lambda: not repaired.missing(everything))
    healed = len(everything) - len(repaired.missing(everything))
    numbers = {"computed_again": float(again.misses)}
    close = [torch.allclose(one, two, rtol=1e-4, atol=1e-4) for one, two in zip(before, after, strict=True)]
    total = sum(rank.gathered(again.misses))
    if not all(close):
        return Part(f"{close.count(False)} of {len(close)} states were read wrong from broken packs", numbers=numbers)
    if not total:
        return Part("no rank has noticed the broken packs", numbers=numbers)
    if healed < len(everything):
        return Part(f"{len(everything) - healed} states were not written again", numbers=numbers)
    return Part(told=f"a half and a damaged pack were thrown away, {total} states computed again", numbers=numbers)


def inputs(base: Base, rank: int) -> list[tuple[int, ...]]:
    """The token ids that a rank computes; those of -1 are everybody's."""
    own = torch.Generator().manual_seed(1000 + rank)
    words = base.model.get_output_embeddings().weight.shape[0]
    return [tuple(torch.randint(0, words, (8 + n % 5,), generator=own).tolist()) for n in range(INPUTS_EACH)]


def opened(rank: Rank, base: Base) -> TrunkStore:
    """The store, as a process that has just started finds it."""
    split = base.split(base.n_blocks - 2)
    return TrunkStore(split, base.fingerprint, 4, 32, 64, rank.setting.folder / "states", disk_gib=1.0)


def digest(states: list[torch.Tensor]) -> str:
    """A hash of states' bits."""
    joined = b"".join(state.contiguous().numpy().tobytes() for state in states)
    return hashlib.sha256(joined).hexdigest()


def _until(done: Callable[[], bool]) -> float:
    """Wait until something is so, or too long; return the seconds."""
    began = time.monotonic()
    while not done() and time.monotonic() < began + SECONDS:
        time.sleep(0.2)
    return time.monotonic() - began
