"""The line of a job's log that tells why it ended. Knows what this program, Python and SLURM's launcher write there."""

import re
from pathlib import Path

LOG_BYTES = 64 * 1024

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
