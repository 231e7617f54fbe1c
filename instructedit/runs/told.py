"""What a run directory tells of itself: how far the latest start is, its jobs, and which of them that start was of.

Knows files, nothing of a scheduler's answers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from instructedit.runs.jobs import FILE as JOBS
from instructedit.runs.jobs import JobRecord, read_jobs
from instructedit.runs.progress import Progress, look_for_progress


@dataclass(frozen=True)
class Told:
    """What a run directory tells.

    Args:
        run: the directory.
        progress: of its latest start.
        jobs: all of its jobs, oldest first.
        notes: what cannot be read.
    """

    run: Path
    progress: Progress | None
    jobs: Sequence[JobRecord]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, run: Path) -> "Told":
        """Read it."""
        progress, wrong = look_for_progress(run)
        notes = [wrong] if wrong else []
        try:
            (run / JOBS).open("rb").close()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            notes.append(f"{JOBS} cannot be read: {error.strerror}")
        return cls(run, progress, read_jobs(run), tuple(notes))

    @property
    def job(self) -> JobRecord | None:
        """The latest training job."""
        return next((job for job in reversed(self.jobs) if job.command == "fit"), None)

    @property
    def others(self) -> list[JobRecord]:
        """The jobs that train nothing."""
        return [job for job in self.jobs if job.command != "fit"]

    @property
    def asked_for(self) -> list[str]:
        """The jobs to ask the scheduler for."""
        done = self.progress is not None and self.progress.state == "done"
        latest = [] if done or self.job is None else [self.job]
        return [job.id for job in (*latest, *self.others)]

    @property
    def mine(self) -> Progress | None:
        """What the latest training job has told; None where the progress is of a start before it, or of no job."""
        return self.progress if self.progress and self.job and self.progress.job == self.job.id else None

    @property
    def by_hand(self) -> bool:
        """Whether the progress is of a start after the latest job and by other means, at a keyboard for instance."""
        if self.progress is None or self.job is None or self.progress.job in [job.id for job in self.jobs]:
            return False
        try:
            return self.progress.updated > datetime.fromisoformat(self.job.submitted).timestamp()
        except ValueError:
            return False
