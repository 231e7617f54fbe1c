"""The jobs a run was given to: ``slurm/jobs.jsonl`` in its directory, a line for each submission, newest last.

Knows one small file, nothing of a scheduler.
"""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = "slurm"
"""In a run directory: scripts, submitted configurations, logs and the list of jobs."""

FILE = f"{FOLDER}/jobs.jsonl"


@dataclass(frozen=True)
class JobRecord:
    """One submission.

    Args:
        id: the scheduler's id: ``12``, or ``12_3`` for a task of an array.
        command: the program's command, for instance ``fit``.
        submitted: when, UTC, ISO 8601.
        script: the submitted script, relative to the run directory.
        log: where its output goes, relative to the run directory.
        max_requeues: how often it may be started again.
        after: the jobs that had to end well before it.
    """

    id: str
    command: str
    submitted: str
    script: str
    log: str
    max_requeues: int = 0
    after: Sequence[str] = ()


def add_job(run: Path, job: JobRecord) -> None:
    """Append a submission to a run's list.

    Raises:
        OSError: the directory cannot be written.
    """
    path = run / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(dataclasses.asdict(job)) + "\n")


def read_jobs(run: Path) -> list[JobRecord]:
    """Return a run's submissions, oldest first; lines that cannot be read are left out."""
    try:
        lines = (run / FILE).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    jobs = []
    for line in lines:
        try:
            content = json.loads(line)
            job = JobRecord(**content | {"after": tuple(content.get("after", ()))})
        except (ValueError, TypeError, AttributeError, RecursionError):
            continue
        if isinstance(job.max_requeues, int) and all(isinstance(text, str) for text in _texts(job)):
            jobs.append(job)
    return jobs


def _texts(job: JobRecord) -> tuple[str, ...]:
    return (job.id, job.command, job.submitted, job.script, job.log, *job.after)
