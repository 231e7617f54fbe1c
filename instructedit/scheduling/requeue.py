"""Going on after a scheduler's signal: whether this process's job starts again, and letting it.

The job script of `submit` says how often that may be (``INSTRUCTEDIT_MAX_REQUEUES``); without it a job is left alone:
somebody else looks after it. Knows SLURM's environment variables, nothing of runs.
"""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from instructedit.scheduling import ENDED, MAX_REQUEUES, slurm

STATUS = 3
"""Exit status of a command that was stopped before its end and is not started again by itself."""


@dataclass(frozen=True)
class CurrentJob:
    """The job this process belongs to.

    Args:
        id: ``12``, or ``12_3`` for a task of an array.
        restarts: how often it was started again by now, for whatever reason.
        max_requeues: how often it may be.
        nodes: its nodes, in SLURM's notation.
    """

    id: str
    restarts: int
    max_requeues: int
    nodes: str = ""


@dataclass(frozen=True)
class Ending:
    """What becomes of a job whose command was stopped.

    Args:
        requeued: whether it starts again by itself.
        told: that in words, to stand after "stopped at step 5 by SIGUSR1; ".
        reason: the same as a short state.
    """

    requeued: bool
    told: str
    reason: str


def job_id() -> str:
    """The id of the job this process runs in, an array's task as ``12_3``; empty without one."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID", "")


def current_job() -> CurrentJob | None:
    """The job that `submit` made and this process runs in; None for any other."""
    limit, job = os.environ.get(MAX_REQUEUES, ""), job_id()
    if not (limit.isdecimal() and job):
        return None
    restarts = os.environ.get("SLURM_RESTART_COUNT", "0")
    return CurrentJob(
        job, int(restarts) if restarts.isdecimal() else 0, int(limit), os.environ.get("SLURM_JOB_NODELIST", "")
    )


def used_up(job: CurrentJob) -> str:
    """Tell that a job was started more often than it may be; empty where it was not.

    A scheduler requeues by itself too, after a preemption or with a node that went down.
    """
    if job.restarts <= job.max_requeues:
        return ""
    return f"job {job.id} was started again {job.restarts} times, more than the {job.max_requeues} it may be"


def requeue(job: CurrentJob) -> Ending:
    """Let a job start again, unless it may not or somebody has cancelled it. One rank of all calls it."""
    if job.restarts >= job.max_requeues:
        times = f"{job.restarts} of {job.max_requeues} requeues used"
        return Ending(False, f"job {job.id} is not started again: {times}", f"out of requeues: {times}")
    try:
        found = slurm.show_job(job.id)
        # Told to stop, a job still counts as running; one that was cancelled or is out of time is completing.
        if found is not None and found.state != "RUNNING":
            return Ending(False, f"job {job.id} was cancelled, or its time is up", "cancelled, or out of time")
        slurm.requeue(job.id)
    except slurm.SchedulerError as error:
        return Ending(False, f"job {job.id} could not be requeued: {error}", f"could not be requeued: {error}")
    times = f"requeue {job.restarts + 1} of {job.max_requeues}"
    return Ending(True, f"job {job.id} goes on by itself ({times})", times)


def ended_well() -> None:
    """Leave the file that the job script has named for a command that has done all it should."""
    named = os.environ.get(ENDED)
    if named:
        try:
            Path(named).touch()
        except OSError as error:
            print(f"warning: cannot write {named}: {error.strerror}", file=sys.stderr)


class _Told(BaseException):
    """A signal has come; not an Exception, which the command may handle itself."""


@contextmanager
def ends_on_signals() -> Iterator[None]:
    """End what runs inside on SIGTERM or SIGUSR1 and let its job start again; for commands that lose nothing by it.

    Raises:
        SystemExit: a signal came.
    """
    job = current_job()
    if job is None:
        yield
        return

    def told(number: int, _frame: FrameType | None) -> None:
        for name in ("SIGTERM", "SIGUSR1"):
            signal.signal(getattr(signal, name), signal.SIG_IGN)  # once is enough
        raise _Told(signal.Signals(number).name)

    before = {number: signal.signal(number, told) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    except _Told as name:
        ending = requeue(job)
        print(f"stopped by {name}; {ending.told}", flush=True)
        sys.exit(0 if ending.requeued else STATUS)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
