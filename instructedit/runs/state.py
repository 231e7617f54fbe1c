"""What became of a run, from the outside: its progress file, its jobs and their logs, and the scheduler's word.

Knows the run directory and SLURM's states. Nothing is asked of SLURM where it is not installed, or for a run that is
done; of many runs at once it is asked once.
"""

import errno
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from instructedit.errors import InputError
from instructedit.runs.jobs import JobRecord
from instructedit.runs.logs import last_error
from instructedit.runs.progress import Progress
from instructedit.runs.told import Told
from instructedit.runs.words import ALIVE, OVER, PENDING, Word, alone, forgotten, not_asked, scheduled, silence
from instructedit.scheduling import slurm
from instructedit.scheduling.slurm import SchedulerError, SlurmJob

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
    return os.path.isfile(path / "run.json") or os.path.isfile(path / "config.yaml")


def runs_in(folder: Path, left_out: list[str] | None = None) -> list[Path]:
    """The runs of a folder: itself, where it is one; else those right in it, and those in its groups.

    Args:
        folder: any folder.
        left_out: grows by a line for each folder in it that cannot be read.

    Raises:
        InputError: the folder cannot be read, or, without ``left_out``, one in it.
    """
    if is_run(folder):
        return [folder]
    found = []
    for path in _folders(folder):
        for inner in [path] if is_run(path) else [path, *_folders(path, left_out)]:
            if is_run(inner):
                found.append(inner)
            elif inner != path and not os.access(inner, os.X_OK):
                _tell(_locked(inner, errno.EACCES), left_out)
    return found


def _folders(path: Path, left_out: list[str] | None = None) -> list[Path]:
    """The folders right in a folder, by name."""
    try:
        if not os.access(path, os.X_OK):
            raise PermissionError(errno.EACCES, "")
        return sorted(inner for inner in path.iterdir() if os.path.isdir(inner))
    except OSError as error:
        _tell(_locked(path, error.errno), left_out)
        return []


def _locked(path: Path, number: int | None) -> InputError:
    return InputError(f"Cannot read the folder {path}: {os.strerror(number or 0)}. Leave it out, or ask its owner.")


def _tell(error: InputError, left_out: list[str] | None) -> None:
    if left_out is None:
        raise error
    left_out.append(f"left out: {error}")


def find_runs(names: Iterable[str], folder: Path, left_out: list[str] | None = None) -> list[Path]:
    """The run directories that are meant: paths, names in the folder of all runs, groups; all runs where none is named.

    Each comes once, under the first of its names.

    Args:
        names: paths, names or groups.
        folder: of all runs.
        left_out: grows by a line for each folder in one of these that cannot be read.

    Raises:
        InputError: there is no such run, or none at all; a named folder cannot be read.
    """
    runs: list[Path] = []
    names, folder = [*names], _plain(folder)
    for name in names:
        place = next((path for path in (_plain(name), folder / name) if os.path.isdir(path)), None)
        found = runs_in(place, left_out) if place else []
        if not found:
            raise InputError(
                f"No run at {name!r}: neither that nor {str(folder / name)!r} is a run directory or a group of them. "
                f"`instructedit status` lists the runs in {str(folder)!r}."
            )
        runs += found
    if not names:
        runs = runs_in(folder, left_out) if os.path.isdir(folder) else []
        if not runs:
            more = f" {' '.join(left_out)}" if left_out else ""
            raise InputError(f"There are no runs in {str(folder)!r}. Name a run directory, or give --folder.{more}")
    once: dict[str, Path] = {}
    for run in runs:
        once.setdefault(os.path.realpath(run), run)
    return list(once.values())


def _plain(path: str | Path) -> Path:
    """A path without a second slash before it, which pathlib keeps."""
    text = str(path)
    return Path("/" + text.lstrip("/") if text.startswith("/") else text)


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
    seen, away = None, ""
    if slurm.installed():
        try:
            seen = slurm.show_jobs([job for each in told for job in each.asked_for])
        except SchedulerError as error:
            away = str(error)
    return [_judged(each, seen) for each in told], away


def _judged(told: Told, seen: Seen | None) -> RunState:
    """The state of a run.

    Args:
        told: what its directory tells.
        seen: the jobs the scheduler knows; None where it could not be asked.
    """
    progress, job = told.progress, told.job
    known = seen.get(job.id) if job and seen is not None else None
    waits = known is not None and known.state in (*PENDING, *ALIVE)
    if told.by_hand and not waits:
        job, known = None, None
    mine = told.mine if job else progress
    word: Word
    if progress and progress.state == "done":
        word, why = "done", ""
    elif job and known:
        word, why = scheduled(known, mine, job)
    elif job:
        word, why = forgotten(mine, job) if seen is not None else not_asked(mine, job)
    else:
        word, why = alone(told)
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
        silent=silence(mine) if mine and word == "running" else 0.0,
        notes=told.notes,
    )


def _in_words(job: JobRecord, seen: Seen | None) -> str:
    known = seen.get(job.id) if seen is not None else None
    if known is None:
        return "unknown"
    waits = f" ({known.reason})" if known.state == "PENDING" and known.reason else ""
    return known.state.lower() + waits
