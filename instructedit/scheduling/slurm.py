"""Talking to SLURM: ``sbatch``, ``scontrol`` and ``scancel`` as one function each.

Knows the programs' arguments and answers, nothing of runs. Every call has a time limit: a controller that is down
answers after minutes.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from instructedit.errors import InputError

SECONDS = 60.0
"""How long the controller may take to answer."""

FEW = 2
"""So many jobs are asked for one by one; for more the controller is asked for all it has, which is one answer too."""

_IDS = re.compile(r"JobId=(\d+)(?: ArrayJobId=(\d+) ArrayTaskId=(\S+))? ")
_UNKNOWN = re.compile(r"invalid job id|job \S+ not found", re.IGNORECASE)
"""What is said of a job that is not known; the second of a task whose array is."""

_FIELD = re.compile(r"(?:^|\s)([A-Z][A-Za-z0-9:/_-]*)=")


class SchedulerError(InputError):
    """The scheduler is not there, or refused; one line with its own words."""


@dataclass(frozen=True)
class SlurmJob:
    """What the controller knows of a job.

    Args:
        id: as it was asked for.
        state: the base state, for instance ``PENDING``, ``RUNNING``, ``COMPLETED``, ``FAILED``, ``TIMEOUT``.
        reason: why it waits or how it ended, in SLURM's words; empty for none.
        restarts: how often it was started again.
        nodes: its nodes in SLURM's notation; empty while it waits.
        exit_code: ``status:signal`` of the batch step.
        fields: everything ``scontrol show job`` tells, by its names.
    """

    id: str
    state: str
    reason: str
    restarts: int
    nodes: str
    exit_code: str
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether it will not run (any more)."""
        return self.state in _OVER


_OVER = (
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "BOOT_FAIL", "DEADLINE"),
    *("OUT_OF_MEMORY", "REVOKED"),
)


def installed() -> bool:
    """Whether this machine can talk to a SLURM controller."""
    return shutil.which("scontrol") is not None and shutil.which("sbatch") is not None


def show_job(job: str) -> SlurmJob | None:
    """Ask for one job, ``12`` or ``12_3``; None where the controller does not know it (any more).

    Raises:
        SchedulerError: SLURM is not installed or does not answer.
    """
    try:
        answer = _call(["scontrol", "show", "job", "-o", job])
    except SchedulerError as error:
        # The second form is its answer about a task of an array that it knows as a whole, cancelled before it began.
        if _UNKNOWN.search(str(error)):
            return None
        raise
    lines = [line for line in answer.splitlines() if line.startswith("JobId=")]
    return parse_job(job, lines[0]) if lines else None


def show_jobs(jobs: Sequence[str]) -> dict[str, SlurmJob]:
    """Ask for many jobs at once, ``12`` or ``12_3``; those the controller does not know (any more) are left out.

    Raises:
        SchedulerError: SLURM does not answer.
    """
    singles = dict.fromkeys(jobs)
    if len(singles) <= FEW:
        return {job: found for job in singles if (found := show_job(job))}
    arrays = dict.fromkeys(job.partition("_")[0] for job in singles)
    lines: list[str] = []
    for each in [(array,) for array in arrays] if len(arrays) <= FEW else [()]:
        try:
            lines += _call(["scontrol", "show", "job", "-o", *each]).splitlines()
        except SchedulerError as error:
            if not _UNKNOWN.search(str(error)):
                raise
    known: dict[str, SlurmJob] = {}
    for line in lines:
        ids = _IDS.match(line)
        for name in _names(*ids.groups()) if ids else ():
            if name in singles:
                known.setdefault(name, parse_job(name, line))
    return known


def _names(job: str, array: str | None, tasks: str | None) -> Iterable[str]:
    """What a line of ``scontrol show job`` is of: a job, a task of an array, or all of its tasks that wait."""
    yield job
    for part in re.split(",", (tasks or "").partition("%")[0].strip("[]")):
        bounds = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if bounds:
            first, last, by = int(bounds[1]), int(bounds[2] or bounds[1]), int(bounds[3] or 1)
            yield from (f"{array}_{task}" for task in range(first, last + 1, by))


def parse_job(job: str, line: str) -> SlurmJob:
    """Read one line of ``scontrol show job -o``.

    >>> parse_job("7", "JobId=7 JobName=demo JobState=RUNNING Reason=None Restarts=1 NodeList=n1 ExitCode=0:0").restarts
    1
    """
    found = list(_FIELD.finditer(line))
    ends = [match.start() for match in found[1:]] + [len(line)]
    fields: dict[str, str] = {}
    for match, end in zip(found, ends, strict=True):
        # The first of a name counts: a job's name or command line may look like a field, and comes later or is ours.
        fields.setdefault(match[1], line[match.end() : end].strip())

    def told(name: str) -> str:
        value = fields.get(name, "")
        return "" if value in ("None", "(null)") else value

    return SlurmJob(
        id=job,
        state=told("JobState"),
        reason=told("Reason"),
        restarts=int(told("Restarts") or 0),
        nodes=told("NodeList"),
        exit_code=told("ExitCode"),
        fields=fields,
    )


def submit(script: Path, arguments: Sequence[str] = ()) -> str:
    """Hand in a script and return the job's id.

    Args:
        script: the file.
        arguments: further arguments of ``sbatch``, before the file.

    Raises:
        SchedulerError: it was refused.
    """
    answer = _call(["sbatch", "--parsable", *arguments, str(script.resolve())])
    # With several clusters the answer is "id;cluster".
    return answer.strip().splitlines()[-1].partition(";")[0]


def requeue(job: str) -> None:
    """Let a job start again from the queue.

    Raises:
        SchedulerError: it was refused.
    """
    _call(["scontrol", "requeue", job])


def cancel(job: str) -> None:
    """End a job, wherever it is.

    Raises:
        SchedulerError: it was refused.
    """
    _call(["scancel", job])


def _call(command: Sequence[str]) -> str:
    """Run one of SLURM's programs and return what it prints."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            encoding="utf-8",
            errors="replace",  # another user's job may have any name
            timeout=SECONDS,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"SLURM_BITSTR_LEN": "0"},  # an array's tasks are listed whole
        )
    except FileNotFoundError as error:
        raise SchedulerError(
            f"{command[0]} was not found: SLURM's programs are not installed on this machine, or not on the PATH. "
            f"Run this on a login node of your cluster."
        ) from error
    except subprocess.TimeoutExpired as error:
        raise SchedulerError(f"{command[0]} has not answered in {SECONDS:.0f} s. Try again later.") from error
    if done.returncode:
        told = " ".join((done.stderr or done.stdout).split())
        raise SchedulerError(f"SLURM refused `{' '.join(command[:3])}`: {told or f'status {done.returncode}'}")
    return done.stdout
