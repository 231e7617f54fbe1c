"""The word for what a run is doing, and why: from the scheduler's answer, or from what the run has told alone.

Knows SLURM's states and what a run tells, not how either is read.
"""

import os
import platform
import time
from typing import Literal

from instructedit.runs.endings import ended_why
from instructedit.runs.jobs import JobRecord
from instructedit.runs.processes import is_alive
from instructedit.runs.progress import Progress
from instructedit.runs.told import Told
from instructedit.scheduling.slurm import SlurmJob

Word = Literal[
    "new", "queued", "starting", "running", "requeued", "stopped", "cancelled", "failed", "lost", "done", "unknown"
]
"""``lost``: it said it was running, or was submitted, and nothing of it can be seen any more; ``unknown``: nobody who
knows can be asked."""

OVER: tuple[Word, ...] = ("stopped", "cancelled", "failed", "lost", "done", "new")

STALE_SECONDS = 300.0
"""Without a sign of life for so long, and for ten times its seconds a step, a run nobody can ask about counts as lost."""

PENDING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
ALIVE = ("RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")


def scheduled(known: SlurmJob, mine: Progress | None, job: JobRecord) -> tuple[Word, str]:
    """The state of a run whose job the controller knows."""
    if known.state in PENDING:
        again = known.restarts > 0 or (mine is not None and mine.state == "requeued")
        return ("requeued" if again else "queued"), known.reason
    if known.state in ALIVE:
        if mine and mine.restarts == known.restarts and mine.state == "running":
            return "running", ""
        return "starting", ""
    why = ended_why(known)
    if mine and mine.state in ("stopped", "failed") and mine.restarts == known.restarts:
        why = mine.reason if mine.state == "stopped" else f"{mine.reason} ({why})"
        return ("cancelled" if known.state == "CANCELLED" else mine.state), why
    return ("cancelled" if known.state == "CANCELLED" else "failed"), why


def forgotten(mine: Progress | None, job: JobRecord) -> tuple[Word, str]:
    """The state of a run whose job the controller does not know any more."""
    gone = f"job {job.id} is not known to the scheduler any more"
    if mine is None:
        return "lost", gone
    if mine.state == "requeued":
        return "lost", f"{mine.reason}; {gone}"
    return _by_progress(mine)


def not_asked(mine: Progress | None, job: JobRecord) -> tuple[Word, str]:
    """The state of a run whose job nobody can be asked about."""
    if mine is None:
        return "unknown", f"job {job.id} was submitted, and has told nothing of itself"
    return _by_progress(mine)


def alone(told: Told) -> tuple[Word, str]:
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
    if alive == "unknown" and (silent := silence(progress)):
        return "lost", f"no sign of life for {silent / 60:.0f} minutes"
    return "running", ""


def silence(progress: Progress) -> float:
    """Seconds without a sign of life; 0 for no longer than a step or a part of a validation may take."""
    silent = time.time() - progress.updated
    return silent if silent > max(STALE_SECONDS, 10 * progress.seconds_per_step) else 0.0
