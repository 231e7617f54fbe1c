"""What became of a run, from the outside: its progress file, its jobs and their logs, and the scheduler's word.

Knows the run directory and SLURM's states. Nothing is asked of SLURM where it is not installed, or for a run that is
done; of many runs at once it is asked once.
"""

import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from instructedit.errors import InputError
from instructedit.runs.endings import ended_why
from instructedit.runs.jobs import JobRecord
from instructedit.runs.logs import last_error
from instructedit.runs.processes import is_alive
from instructedit.runs.progress import Progress
from instructedit.runs.told import Told
from instructedit.scheduling import slurm
from instructedit.scheduling.slurm import SchedulerError, SlurmJob

Word = Literal[
    "new", "queued", "starting", "running", "requeued", "stopped", "cancelled", "failed", "lost", "done", "unknown"
]
"""``lost``: it said it was running, or was submitted, and nothing of it can be seen any more; ``unknown``: nobody who
knows can be asked."""

OVER: tuple[Word, ...] = ("stopped", "cancelled", "failed", "lost", "done", "new")

STALE_SECONDS = 300.0
"""Without a sign of life for so long, and for ten times its seconds a step, a run nobody can ask about counts as lost."""

_PENDING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
_ALIVE = ("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")

Seen = Mapping[str, SlurmJob]
"""The jobs the scheduler knows, by id."""


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
        silent: of a running one, seconds since it was heard of where that is longer than it should be; else 0.
        notes: what cannot be read of it.
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
    silent: float = 0.0
    notes: tuple[str, ...] = ()

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
    told = Told.of(run)
    return _judged(told, slurm.show_jobs(told.asked_for) if slurm.installed() else None)


def states_of(runs: Sequence[Path]) -> tuple[list[RunState], str]:
    """Find out what runs are doing, asking SLURM once for all of them.

    Returns:
        Their states, and why SLURM does not answer; empty where it does, or is not installed. Then the states are
        what the run directories tell.
    """
    told = [Told.of(run) for run in runs]
    seen, silence = None, ""
    if slurm.installed():
        try:
            seen = slurm.show_jobs([job for each in told for job in each.asked_for])
        except SchedulerError as error:
            silence = str(error)
    return [_judged(each, seen) for each in told], silence


def _judged(told: Told, seen: Seen | None) -> RunState:
    """The state of a run.

    Args:
        told: what its directory tells.
        seen: the jobs the scheduler knows; None where it could not be asked.
    """
    progress, job = told.progress, told.job
    known = seen.get(job.id) if job and seen is not None else None
    waits = known is not None and known.state in (*_PENDING, *_ALIVE)
    if told.by_hand and not waits:
        job, known = None, None
    mine = told.mine if job else progress
    if progress and progress.state == "done":
        word, why = _done()
    elif job and known:
        word, why = _scheduled(known, mine, job)
    elif job:
        word, why = _forgotten(mine, job) if seen is not None else _not_asked(mine, job)
    else:
        word, why = _alone(told)
    error = last_error(told.run / job.log) if job and word in ("failed", "stopped", "cancelled", "lost") else ""
    return RunState(
        path=told.run,
        word=word,
        why=why,
        progress=progress,
        job=told.job,
        requeues=max(known.restarts if known else 0, mine.restarts if mine else 0),
        nodes=(known.nodes if known else "") or (mine.nodes or mine.host if mine else ""),
        error=error,
        others=tuple((other, _in_words(other, seen)) for other in told.others),
        silent=_silence(mine) if mine and word == "running" else 0.0,
        notes=told.notes,
    )


def _done() -> tuple[Word, str]:
    return "done", ""


def _scheduled(known: SlurmJob, mine: Progress | None, job: JobRecord) -> tuple[Word, str]:
    """The state of a run whose job the controller knows."""
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


def _forgotten(mine: Progress | None, job: JobRecord) -> tuple[Word, str]:
    """The state of a run whose job the controller does not know any more."""
    gone = f"job {job.id} is not known to the scheduler any more"
    if mine is None:
        return "lost", gone
    if mine.state == "requeued":
        return "lost", f"{mine.reason}; {gone}"
    return _by_progress(mine)


def _not_asked(mine: Progress | None, job: JobRecord) -> tuple[Word, str]:
    """The state of a run whose job nobody can be asked about."""
    if mine is None:
        return "unknown", f"job {job.id} was submitted, and has told nothing of itself"
    return _by_progress(mine)


def _alone(told: Told) -> tuple[Word, str]:
    """The state of a run without a job."""
    if told.progress is not None:
        return _by_progress(told.progress)
    if told.notes:
        return "unknown", ""
    if any((told.run / "checkpoints").glob("*.ckpt")):
        # Of before the runs told their progress.
        tested = os.path.isfile(told.run / "results" / "test.json")
        return ("done", "") if tested else ("stopped", "its progress is unknown")
    return "new", "never started"


def _by_progress(progress: Progress) -> tuple[Word, str]:
    """The state of a run by what it has told, and by its process where that can be looked for."""
    if progress.state != "running":
        return progress.state, progress.reason
    here = progress.host == platform.node()
    alive = is_alive(progress.pid, progress.process, progress.updated) if here else "unknown"
    if alive == "no":
        return "lost", "its process is gone"
    if alive == "unknown" and (silent := _silence(progress)):
        return "lost", f"no sign of life for {silent / 60:.0f} minutes"
    return "running", ""


def _silence(progress: Progress) -> float:
    """Seconds without a sign of life; 0 for no longer than a step or a part of a validation may take."""
    silent = time.time() - progress.updated
    return silent if silent > max(STALE_SECONDS, 10 * progress.seconds_per_step) else 0.0


def _in_words(job: JobRecord, seen: Seen | None) -> str:
    known = seen.get(job.id) if seen is not None else None
    if known is None:
        return "unknown"
    waits = f" ({known.reason})" if known.state == "PENDING" and known.reason else ""
    return known.state.lower() + waits
