"""Whether a process of this machine is still the one it was: a process id is given to another one some day.

Knows Linux's ``/proc``; elsewhere only whether there is a process of that id at all.
"""

import os
from pathlib import Path
from typing import Literal

_PROC = Path("/proc")


def mark(pid: int) -> str:
    """What tells a process from all others: the system's boot, the space its id is of, and when it was started.

    Empty where that cannot be known, or there is no such process.
    """
    started = _started(pid)
    return f"{_space()} {started}" if started else ""


def is_alive(pid: int, marked: str = "", told: float = 0.0) -> Literal["yes", "no", "unknown"]:
    """Whether the process that wrote something still runs.

    Args:
        pid: its id.
        marked: its ``mark``; empty where it left none.
        told: when it wrote, seconds since the epoch: a process that was started later is another one.
    """
    space, _, started = marked.rpartition(" ")
    if started and space != _space():
        return "unknown"  # of before the machine started anew, of another one of its name, or of a container
    if not _exists(pid):
        return "no"
    found = _started(pid)
    if found is None:  # hidden from others, or no /proc
        return "yes"
    if started:
        return "yes" if found == started else "no"
    return "no" if not found or told and _since(found) > told + 1 else "yes"


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _space() -> str:
    """This boot of the machine, and the space of process ids, which a container has its own of."""
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink(_PROC / 'self/ns/pid')}"
    except OSError:
        return "-"


def _started(pid: int) -> str | None:
    """When a process was started, in the system's ticks since its boot; empty for one that has ended; None: hidden."""
    try:
        # Behind the program's name, which may hold anything: its state, then its numbers, the 20th of them this one.
        fields = (_PROC / str(pid) / "stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return "" if len(fields) < 20 or fields[0] in "ZX" else fields[19]


def _since(ticks: str) -> float:
    """A number of ticks since boot as seconds since the epoch."""
    lines = (_PROC / "stat").read_text().splitlines()
    boot = next((line.split()[1] for line in lines if line.startswith("btime ")), "0")
    return int(boot) + int(ticks) / os.sysconf("SC_CLK_TCK")
