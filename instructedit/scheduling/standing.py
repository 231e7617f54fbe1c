"""What became of one step of a chain, as far as going on with it is concerned: done, waiting, running, or over.

Asks the run directory first, then SLURM.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from instructedit.errors import InputError
from instructedit.runs.jobs import FOLDER, read_jobs
from instructedit.runs.state import runs_in, state_of
from instructedit.scheduling import slurm
from instructedit.scheduling.again import read_again
from instructedit.scheduling.places import ALIVE
from instructedit.scheduling.slurm import SlurmJob

NEVER = "DependencyNeverSatisfied"
"""SLURM's reason for a job that waits for one that has failed."""


@dataclass(frozen=True)
class Standing:
    """Where a step is.

    Args:
        word: ``over`` is what ended before its end, or never began.
        job: its job, where it waits or runs in SLURM; else empty.
        in_vain: whether SLURM has found that it waits for what will not come.
    """

    word: Literal["done", "waits", "runs", "over"]
    job: str = ""
    in_vain: bool = False


def of_run(run: Path) -> Standing:
    """Of a training.

    Raises:
        InputError: its job is just ending.
        SchedulerError: SLURM is installed and does not answer.
    """
    state = state_of(run)
    if state.word == "done":
        return Standing("done")
    if state.word not in ALIVE:
        return Standing("over")
    job = state.job.id if state.job else ""
    known = slurm.show_job(job) if job and slurm.installed() else None
    return _in_queue(run, known) if known is not None else Standing("runs", job)


def of_command(home: Path, stem: str) -> Standing:
    """Of any other command: its file says that it has ended well, or SLURM still knows its latest job.

    Args:
        home: the folder whose slurm/ holds its script.
        stem: the name of its files.

    Raises:
        InputError: its job is just ending.
        SchedulerError: SLURM is installed and does not answer.
    """
    jobs = [job for job in read_jobs(home) if Path(job.script).stem == stem]
    if not jobs:
        return Standing("over")
    job = jobs[-1].id
    if (home / FOLDER / f"{job}.ended").exists():
        return Standing("done")
    known = slurm.show_job(job) if slurm.installed() else None
    if known is None or (known.over and known.state != "COMPLETED"):
        return Standing("over")
    if known.state == "COMPLETED":
        return Standing("done")
    return _in_queue(home, known)


def _in_queue(home: Path, known: SlurmJob) -> Standing:
    if known.state == "COMPLETING":
        raise InputError(f"Job {known.id} of {home} is just ending. Wait a moment until it is seen how, and try again.")
    waits = known.state == "PENDING" and known.restarts == 0
    return Standing("waits" if waits else "runs", known.id, known.reason.startswith(NEVER))


def points(group: Path) -> list[Path]:
    """The runs of a group that were submitted as its array."""
    found = [(run, read_again(run, "fit")) for run in runs_in(group)] if group.is_dir() else []
    return [
        run
        for run, again in found
        if again and any(link.group and again.seen(link.home).resolve() == group.resolve() for link in again.chain)
    ]
