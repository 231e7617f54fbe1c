"""The processes of one training, as a whole: how long they wait for each other, and how they end together.

Imports nothing heavy: it is in place before torch is.
"""

import ctypes
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from instructedit.errors import InputError

_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class ProcessesConfig:
    """What several processes need to know of each other.

    Args:
        timeout_minutes: how long a rank waits for the others before it gives up. Longer than the longest time one
            rank may be alone: computing the trunk states of a step, or the larger share of a validation.
        zero_3_persistence: parameters with fewer elements stay whole on every rank under ``zero_3``.
    """

    timeout_minutes: float = 30.0
    zero_3_persistence: int = 10_000

    def __post_init__(self) -> None:
        if self.timeout_minutes <= 0 or self.zero_3_persistence < 0:
            raise InputError(
                f"processes.timeout_minutes is above 0 and zero_3_persistence 0 or more; found {self.timeout_minutes} "
                f"and {self.zero_3_persistence}."
            )


@contextmanager
def end_together() -> Iterator[None]:
    """Inside the block, a rank that fails ends at once, so that the others do not wait for it.

    Leaving the interpreter in order would first take down collectives, which may wait for the other ranks.
    """
    rank, local_rank = _rank(), os.environ.get("LOCAL_RANK")
    if local_rank not in (None, "0"):
        _die_with_parent()
    try:
        yield
        _part()
    except SystemExit:
        _part()
        raise
    except InputError as error:
        if not _several():
            raise
        print(f"error: {'' if rank == '0' else f'(rank {rank}) '}{error}", file=sys.stderr, flush=True)
        _leave(2)
    except Exception as error:
        if not _several():
            raise
        if _lost_peer(error):
            first = (str(error).splitlines() or [""])[0]
            print(
                f"error: rank {rank} ends because another rank has ended or does not answer; its own message tells "
                f"why ({type(error).__name__}: {first}). The same command goes on from the last checkpoint.",
                file=sys.stderr,
                flush=True,
            )
        else:
            print(f"rank {rank} failed:", file=sys.stderr)
            traceback.print_exc()
        _leave(1)


def _part() -> None:
    """Take the collectives down in order, for a rank whose work is done.

    Left to the interpreter's end, their threads go in any order: now and then such a rank ended with SIGABRT, and its
    job with it.
    """
    if _several():
        import torch.distributed

        torch.distributed.destroy_process_group()


def _rank() -> str:
    # A rank that was launched inside an allocation has inherited its launcher's SLURM_PROCID.
    return os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_PROCID") or "0"


def _several() -> bool:
    """Whether this process has been talking to others."""
    distributed = sys.modules.get("torch.distributed")
    return bool(
        distributed and distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
    )


def _lost_peer(error: BaseException) -> bool:
    """Whether a collective failed because of another process, as far as its text tells: gloo's and NCCL's words."""
    import torch.distributed

    if not isinstance(error, RuntimeError | torch.distributed.DistError):
        return False
    told = ("connection closed by peer", "connection reset by peer", "timed out waiting", "ncclremoteerror", "timeout")
    return any(part in str(error).lower() for part in told)


def _leave(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _die_with_parent() -> None:
    """Let the kernel end this process when the one that launched it is gone (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
