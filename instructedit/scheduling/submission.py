"""Handing steps in: their files written, sbatch called, jobs noted; or nothing of it, where anything is refused.

Knows files and SLURM's answers. What the steps are, `instructedit.scheduling.plan` has decided.
"""

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from instructedit.errors import InputError
from instructedit.runs.directory import RunDirectory, write_whole
from instructedit.runs.jobs import FILE as JOBS
from instructedit.runs.jobs import FOLDER, JobRecord, add_job
from instructedit.scheduling import slurm
from instructedit.scheduling.again import Again, again_text
from instructedit.scheduling.plan import Step
from instructedit.scheduling.resources import Resources
from instructedit.scheduling.script import Script, render
from instructedit.scheduling.yaml_text import as_yaml


@dataclass(frozen=True)
class Job:
    """One job that is ready to be handed in.

    Args:
        command: the program's command.
        home: the folder whose slurm/ holds script and log.
        stem: the name of its files there.
        script: the script's text.
        resources: what it asks for.
        files: further files: configurations and what --resume needs.
        runs: the run directories it trains, in the order of the array's tasks; empty for other commands.
        group: whether it is an array.
        after: jobs in the queue it waits for, beside the one handed in before it.
    """

    command: str
    home: Path
    stem: str
    script: str
    resources: Resources
    files: Mapping[Path, str]
    runs: tuple[Path, ...] = ()
    group: bool = False
    after: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The script's path."""
        return self.home / FOLDER / f"{self.stem}.sbatch"

    def log(self, job: str) -> Path:
        """Where the output of a job, or of an array's task, goes."""
        return self.home / FOLDER / f"{job}.log"


@dataclass(frozen=True)
class Submitted:
    """A job that was handed in, and its number."""

    job: Job
    id: str


def make_jobs(steps: Sequence[Step]) -> list[Job]:
    """Render scripts and configurations; writes nothing.

    Args:
        steps: in their order.

    Raises:
        InputError: a path or an argument cannot stand in a script.
    """
    return [_make_job(step) for step in steps]


def _make_job(step: Step) -> Job:
    files: dict[Path, str] = {}
    configs: list[str] = []
    flags: tuple[str, ...] = ()
    arguments: tuple[str, ...] = (*step.words, *step.argv)

    def keep(home: Path, given: tuple[str, ...], frozen: bool, writes: tuple[Path, ...] = step.writes) -> None:
        again = Again(
            words=step.words,
            arguments=given,
            frozen=frozen,
            folder=str(step.folder),
            resources=step.resources,
            profile=step.profile,
            chain=step.chain,
            writes=tuple(map(str, writes)),
            at_once=step.at_once,
        )
        files[home / FOLDER / f"{step.stem}.json"] = again_text(again)

    for task in step.tasks:
        own = task.run if task.run and (step.group or step.command == "fit") else step.home
        if task.settings is not None:
            config = own / FOLDER / f"{step.stem}.yaml"
            files[config] = as_yaml(task.settings.config)
            configs.append(str(config.absolute()))
            flags = task.settings.flags
            arguments = (*step.words, f"--config={configs[-1]}", *flags)
        keep(own, arguments, task.settings is not None, (own,) if step.group else step.writes)
    if step.group:
        keep(step.home, step.words, False)
    script = Script(
        command=step.command,
        name=step.home.name if step.command == "fit" else f"{step.home.name}-{step.stem}",
        folder=step.folder,
        logs=(step.home / FOLDER).absolute(),
        arguments=step.words if step.group else arguments,
        flags=flags,
        points=tuple(configs) if step.group else (),
        at_once=step.at_once,
    )
    runs = tuple(task.run for task in step.tasks if task.run) if step.command == "fit" else ()
    text = render(script, step.resources, step.profile)
    return Job(step.command, step.home, step.stem, text, step.resources, files, runs, step.group, step.after)


def hand_in(jobs: Sequence[Job], after: Sequence[str] = ()) -> list[Submitted]:
    """Write all files, hand all jobs in, each behind the one before, and note them.

    Args:
        jobs: in their order.
        after: jobs that must have ended well before the first.

    Raises:
        InputError: a folder cannot be written, or SLURM refused a job; then nothing of it is left.
    """
    files = _Files()
    submitted: list[Submitted] = []
    waits = list(after)
    try:
        for job in jobs:
            for run in job.runs:
                files.keep(RunDirectory(run).record)
                RunDirectory(run).announce()
            for path, text in {**job.files, job.path: job.script}.items():
                files.write(path, text)
        for job in jobs:
            waits += job.after
            submitted.append(Submitted(job, slurm.submit(job.path, dependency(waits))))
            _note(submitted[-1], waits, files)
            waits = [submitted[-1].id]
    except BaseException as error:
        left = cancel_all([one.id for one in submitted])
        files.undo()
        told = f"Cannot write {error.filename}: {error.strerror}." if isinstance(error, OSError) else str(error)
        if isinstance(error, OSError | InputError):
            raise InputError(" ".join([told, *left])) from error
        for line in left:
            print(f"warning: {line}", file=sys.stderr)
        raise
    return submitted


def cancel_all(ids: Sequence[str]) -> list[str]:
    """End jobs; return a line for each that could not be ended, and may be in the queue still."""
    left = []
    for one in ids:
        try:
            slurm.cancel(one)
        except slurm.SchedulerError as error:
            left.append(f"Job {one} could not be cancelled ({error}): run `scancel {one}`.")
    return left


def dependency(waits: Sequence[str]) -> list[str]:
    """The arguments of sbatch for a job behind others; one whose turn can never come is cancelled."""
    return [f"--dependency=afterok:{':'.join(waits)}", "--kill-on-invalid-dep=yes"] if waits else []


def _note(submitted: Submitted, waits: Sequence[str], files: "_Files") -> None:
    job = submitted.job
    now = datetime.now(UTC).isoformat(timespec="seconds")
    runs = job.runs or (job.home,)
    for number, run in enumerate(runs):
        task = f"{submitted.id}_{number}" if job.group and job.runs else submitted.id
        record = JobRecord(
            id=task,
            command=job.command,
            submitted=now,
            script=_from(run, job.path),
            log=_from(run, job.log(task)),
            max_requeues=job.resources.max_requeues,
            after=tuple(waits),
        )
        files.keep(run / JOBS)
        add_job(run, record)


def _from(run: Path, path: Path) -> str:
    """A path of a run or of its group, as seen from the run."""
    if path.is_relative_to(run):
        return path.relative_to(run).as_posix()
    return "../" + path.relative_to(run.parent).as_posix()


class _Files:
    """Files that are being written, and how it was before them."""

    def __init__(self) -> None:
        self._before: dict[Path, bytes | None] = {}
        self._made: list[Path] = []

    def keep(self, path: Path) -> None:
        """Remember a file that is about to change, and make its folder."""
        if path in self._before:
            return
        missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
        path.parent.mkdir(parents=True, exist_ok=True)
        self._made += reversed(missing)
        self._before[path] = path.read_bytes() if path.exists() else None

    def write(self, path: Path, text: str) -> None:
        self.keep(path)
        write_whole(path, text)

    def undo(self) -> None:
        """Let everything be as it was."""
        for path, content in self._before.items():
            with suppress(OSError):
                if content is None:
                    path.unlink(missing_ok=True)
                else:
                    path.write_bytes(content)
        for folder in reversed(self._made):
            with suppress(OSError):
                folder.rmdir()
