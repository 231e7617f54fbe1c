"""What became of a run, from the outside: its progress file, its jobs and their logs, and the scheduler's word.

Knows the run directory and SLURM's states. Nothing is asked of SLURM where it is not installed, or for a run that is done.
"""

import os
import platform
import re
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from instructedit.errors import InputError
from instructedit.runs.jobs import JobRecord, read_jobs
from instructedit.runs.progress import Progress, read_progress
from instructedit.scheduling import slurm
from instructedit.scheduling.slurm import SlurmJob

Word = Literal["new", "queued", "starting", "running", "requeued", "stopped", "cancelled", "failed", "lost", "done"]
"""``lost``: it said it was running, and nothing of it can be seen any more."""

OVER: tuple[Word, ...] = ("stopped", "cancelled", "failed", "lost", "done", "new")

STALE_SECONDS = 300.0
"""Without a sign of life for so long, and for ten times its seconds a step, a run nobody can ask about counts as lost."""

LOG_BYTES = 64 * 1024

_PENDING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_ALIVE = ("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")


@dataclass(frozen=True)
class RunState:
    """One run as `status` shows it.

    Args:
        path: the run directory.
        word: its state.
        why: what the run waits for, or why it ended; empty where there is nothing to say.
        progress: what it has told last; None before its first start.
        job: its latest training job; None without a scheduler.
        requeues: how often that job was started again.
        nodes: where it runs, as the scheduler writes it; else the machine's name.
        error: the last error in the job's log; empty for none.
        others: further jobs of the run, such as an evaluation behind it, and their states.
    """

    path: Path
    word: Word
    why: str = ""
    progress: Progress | None = None
    job: JobRecord | None = None
    requeues: int = 0
    nodes: str = ""
    error: str = ""
    others: tuple[tuple[JobRecord, str], ...] = ()

    @property
    def over(self) -> bool:
        """Whether nothing more happens by itself."""
        return self.word in OVER


def is_run(path: Path) -> bool:
    """Whether a folder is a run directory: started, or submitted."""
    return (path / "run.json").is_file() or (path / "config.yaml").is_file()


def runs_in(folder: Path) -> list[Path]:
    """The runs of a folder: itself, where it is one; else those right in it, and those in its groups."""
    if is_run(folder):
        return [folder]
    found = []
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        found += [path] if is_run(path) else sorted(point for point in path.iterdir() if is_run(point))
    return found


def find_runs(names: Iterable[str], folder: Path) -> list[Path]:
    """The run directories that are meant: paths, names in the folder of all runs, groups; all runs where none is named.

    Raises:
        InputError: there is no such run, or none at all.
    """
    runs: list[Path] = []
    for name in names:
        place = next((path for path in (Path(name), folder / name) if path.is_dir()), None)
        found = runs_in(place) if place else []
        if not found:
            raise InputError(
                f"No run at {name!r}: neither that nor {str(folder / name)!r} is a run directory or a group of them. "
                f"`instructedit status` lists the runs in {str(folder)!r}."
            )
        runs += found
    if not runs and not list(names):
        runs = runs_in(folder) if folder.is_dir() else []
        if not runs:
            raise InputError(f"There are no runs in {str(folder)!r}. Name a run directory, or give --folder.")
    return list(dict.fromkeys(runs))


def state_of(run: Path) -> RunState:
    """Find out what a run is doing.

    Raises:
        SchedulerError: SLURM is installed and does not answer.
    """
    progress, jobs = read_progress(run), read_jobs(run)
    trainings = [job for job in jobs if job.command == "fit"]
    job = trainings[-1] if trainings else None
    seen: dict[str, SlurmJob | None] = {}
    if slurm.installed():
        latest = [] if job is None or (progress and progress.state == "done") else [job]
        for asked in [*latest, *(other for other in jobs if other.command != "fit")]:
            seen[asked.id] = slurm.show_job(asked.id)
    known = seen.get(job.id) if job else None
    if progress and progress.state == "done":
        word, why = _done()
    elif job and known:
        word, why = _scheduled(known, progress, job)
    else:
        word, why = _alone(run, progress, job)
    error = last_error(run / job.log) if job and word in ("failed", "stopped", "cancelled", "lost") else ""
    others = tuple((other, _in_words(seen.get(other.id))) for other in jobs if other.command != "fit")
    return RunState(
        path=run,
        word=word,
        why=why,
        progress=progress,
        job=job,
        requeues=max(known.restarts if known else 0, progress.restarts if progress else 0),
        nodes=(known.nodes if known else "") or (progress.nodes or progress.host if progress else ""),
        error=error,
        others=others,
    )


def _done() -> tuple[Word, str]:
    return "done", ""


def _scheduled(known: SlurmJob, progress: Progress | None, job: JobRecord) -> tuple[Word, str]:
    """The state of a run whose job the controller knows."""
    mine = progress if progress and progress.job == job.id else None
    if known.state in _PENDING:
        again = known.restarts > 0 or (mine is not None and mine.state == "requeued")
        return ("requeued" if again else "queued"), known.reason
    if known.state in _ALIVE:
        if mine and mine.restarts == known.restarts and mine.state == "running":
            return "running", ""
        return "starting", ""
    why = ended_why(known)
    if mine and mine.state in ("stopped", "failed") and mine.restarts == known.restarts:
        why = mine.reason if mine.state == "stopped" else f"{mine.reason} ({why})"
        return ("cancelled" if known.state == "CANCELLED" else mine.state), why
    return ("cancelled" if known.state == "CANCELLED" else "failed"), why


def _alone(run: Path, progress: Progress | None, job: JobRecord | None) -> tuple[Word, str]:
    """The state of a run that no scheduler can be asked about."""
    if progress is None and not job and any((run / "checkpoints").glob("*.ckpt")):
        # Of before the runs told their progress.
        return ("done", "") if (run / "results" / "test.json").exists() else ("stopped", "its progress is unknown")
    if progress is None:
        return ("lost", f"job {job.id} is not known to the scheduler any more") if job else ("new", "never started")
    if progress.state == "running":
        silent = time.time() - progress.updated
        here = progress.host == platform.node()
        dead = not _is_process(progress.pid) if here else silent > max(STALE_SECONDS, 10 * progress.seconds_per_step)
        if dead:
            return "lost", "its process is gone" if here else f"no sign of life for {silent / 60:.0f} minutes"
        return "running", ""
    if progress.state == "requeued" and job:
        return "lost", f"{progress.reason}; job {job.id} is not known to the scheduler any more"
    return progress.state, progress.reason


def _is_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def ended_why(known: SlurmJob) -> str:
    """How a job ended, in words: SLURM's state, and what its exit code says.

    >>> ended_why(SlurmJob("7", "FAILED", "RaisedSignal:9(Killed)", 0, "n1", "0:9"))
    'FAILED, killed by SIGKILL'
    """
    status, _, number = known.exit_code.partition(":")
    parts = [known.state]
    if number.isdecimal() and int(number):
        parts.append(f"killed by {_signal_name(int(number))}")
    elif status.isdecimal() and int(status) > 128:
        parts.append(f"a process was killed by {_signal_name(int(status) - 128)}")
    elif status.isdecimal() and int(status):
        parts.append(f"exit status {status}")
    if known.state in ("NODE_FAIL", "TIMEOUT", "CANCELLED") and known.reason:
        parts.append(known.reason)
    return ", ".join(parts)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _in_words(known: SlurmJob | None) -> str:
    if known is None:
        return "unknown"
    waits = f" ({known.reason})" if known.state == "PENDING" and known.reason else ""
    return known.state.lower() + waits


_OURS = re.compile(r"^error: (?!rank \d+ ends because)")
_RAISED = re.compile(r"^([\w.]+(?:Error|Exception|Interrupt|Exit)\b.*)$")
_KILLED = re.compile(r"^srun: error: .*task\S* .*: (?!Exited|Terminated)|oom.kill|Out Of Memory", re.IGNORECASE)
_TASK = re.compile(r"^srun: error: .*task\S* .*:", re.IGNORECASE)
_START = "=== "
"""How a job script begins the output of each of its starts."""

_ANY = re.compile(r"error|CANCELLED|killed", re.IGNORECASE)


def last_error(log: Path) -> str:
    """The line of a job's log that tells most about why it ended; empty for none.

    What this program says comes first, then an exception's last line, then the launcher's word on a task that was killed
    and on any other, then anything that speaks of an error. A rank that only reports that another one ended is the last to be believed.
    """
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_BYTES))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    starts = [place for place, line in enumerate(lines) if line.startswith(_START)]
    lines = lines[starts[-1] :] if starts else lines  # a log goes on when its job is started again
    for pattern in (_OURS, _RAISED, _KILLED, _TASK, _ANY):
        found = [line.strip() for line in lines if pattern.search(line)]
        if found:
            return found[-1]
    return ""
