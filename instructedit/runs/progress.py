"""How far a run is: ``progress.json``, which the training rewrites every few seconds and anyone may read.

Knows one small file. A process that is killed leaves the last one it wrote: who reads it looks at its age too.
"""

import dataclasses
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from instructedit.runs.directory import write_whole

FILE = "progress.json"

State = Literal["running", "requeued", "stopped", "done", "failed"]
"""``stopped``: saved on a signal, nobody starts it again; ``requeued``: saved, the scheduler starts it again."""


@dataclass(frozen=True)
class Progress:
    """What the latest start of a run has told.

    Args:
        state: what it was doing.
        step: optimiser steps done, of the whole run.
        max_steps: optimiser steps of a finished run.
        began: the step this start went on from.
        saved_step: the step of the newest checkpoint.
        phase: of a running one: ``training``, ``validation`` or ``test``.
        reason: why it stopped, was requeued or failed; one line.
        seconds_per_step: of this start, validations left out; 0 before its first step.
        edits_per_second: the same, by the global batch.
        tokens_per_second: the same, in tokens of all rows.
        memory_gib: the most an accelerator (on the CPU: a process) of rank zero has held, GiB.
        device_seconds: wall seconds times ranks, added up over all starts.
        metrics: the latest values by name, as in metrics.csv.
        updated: when this was written, seconds since the epoch.
        host: the name of rank zero's machine.
        pid: rank zero's process there.
        process: what tells that process from a later one of its id, see `processes.mark`; empty where it is not known.
        job: the scheduler's id of the job, empty without one.
        restarts: how often the scheduler had restarted it.
        nodes: the scheduler's list of nodes, empty without one.
        ranks: how many processes train.
    """

    state: State
    step: int
    max_steps: int
    began: int = 0
    saved_step: int = 0
    phase: Literal["training", "validation", "test"] = "training"
    reason: str = ""
    seconds_per_step: float = 0.0
    edits_per_second: float = 0.0
    tokens_per_second: float = 0.0
    memory_gib: float = 0.0
    device_seconds: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)
    updated: float = 0.0
    host: str = ""
    pid: int = 0
    process: str = ""
    job: str = ""
    restarts: int = 0
    nodes: str = ""
    ranks: int = 1

    @property
    def remaining_seconds(self) -> float | None:
        """Time to the last step at this start's rate; None before its first step."""
        return (self.max_steps - self.step) * self.seconds_per_step if self.seconds_per_step else None


def write_progress(run: Path, progress: Progress) -> None:
    """Replace a run's ``progress.json``, stamped with the time.

    Raises:
        OSError: the directory cannot be written.
    """
    now = dataclasses.replace(progress, updated=time.time())
    write_whole(run / FILE, json.dumps(dataclasses.asdict(now), indent=2) + "\n")


def read_progress(run: Path) -> Progress | None:
    """Return what a run has told last; None where it has told nothing that can be read."""
    return look_for_progress(run)[0]


def look_for_progress(run: Path) -> tuple[Progress | None, str]:
    """Return what a run has told last, and what is wrong with its file; empty where nothing is, or there is none."""
    try:
        content = json.loads((run / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None, ""
    except OSError as error:
        return None, f"{FILE} cannot be read: {error.strerror}"
    except (ValueError, RecursionError):
        return None, f"{FILE} is damaged: it is not JSON"
    wrong = _wrong(content)
    if wrong:
        return None, f"{FILE} is damaged: {wrong}"
    known = {field.name for field in dataclasses.fields(Progress)}
    return Progress(**{name: value for name, value in content.items() if name in known}), ""


_LEAST = {"max_steps": 1, "ranks": 1}
_MOST = 2**53
"""Whole numbers and seconds beyond this are none that a run writes."""


def _wrong(content: Any) -> str:
    """What in a file's content no run writes; empty for nothing."""
    if not isinstance(content, dict):
        return "it holds no fields"
    for field in dataclasses.fields(Progress):
        if field.name not in content:
            if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
                return f"{field.name} is missing"
            continue
        if not _fits(field, content[field.name]):
            return f"{field.name} is {repr(content[field.name])[:40]}"
    return ""


def _fits(field: "dataclasses.Field[Any]", value: Any) -> bool:
    if field.name == "state":
        return value in get_args(State)
    if field.name == "metrics":
        return isinstance(value, dict) and all(_is_number(metric) for metric in value.values())
    if field.default == "":
        return isinstance(value, str)
    if field.name == "phase":
        return value in ("training", "validation", "test")
    whole = field.name in ("step", "max_steps") or isinstance(field.default, int)
    kinds = int if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and _LEAST.get(field.name, 0) <= value < _MOST


def _is_number(value: Any) -> bool:
    """Any number that fits one; a metric may be infinite or not a number."""
    return isinstance(value, float) or isinstance(value, int) and not isinstance(value, bool) and abs(value) < _MOST
