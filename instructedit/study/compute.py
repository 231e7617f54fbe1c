"""What a study has taken, and what made it: hours, threads, commits and versions, summed over the records of its runs.

Knows the records that ``study.runner`` keeps; not what came of the runs. Names no machine.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from instructedit.study.results import Results

ALIKE = ("data", "pool", "base")
"""Hashes of what is asked of a row on a task: records and probes, its instruction pool, and the base."""


@dataclass(frozen=True)
class Made:
    """What the runs that are done were made with.

    Args:
        training_hours: wall hours of trainings times their processes.
        evaluation_hours: wall hours of evaluations.
        trainings: how many trainings these are.
        edits: edits of all trainings together.
        machines: kinds of device and numbers of threads, each once.
        commits: the commits of the code, in the order of the plan.
        dirty: whether any part was made by code that differs from its commit.
        versions: per package the versions there were.
        mixed: the tasks on which runs were not asked the same, each with what differs.
    """

    training_hours: float
    evaluation_hours: float
    trainings: int
    edits: int
    machines: tuple[str, ...]
    commits: tuple[str, ...]
    dirty: bool
    versions: Mapping[str, tuple[str, ...]]
    mixed: tuple[str, ...]


def what_made(results: Results) -> Made:
    """Sum up the records of all runs that are done."""
    trainings: list[Mapping[str, Any]] = []
    evaluations: list[Mapping[str, Any]] = []
    for name in results.done:
        record = results.record(name)
        trainings += [record["training"]] if record.get("training") else []
        evaluations += [record["evaluation"]] if record.get("evaluation") else []
    starts = [start for part in (*trainings, *evaluations) for start in _starts(part)]
    versions: dict[str, dict[str, None]] = {}
    for start in starts:
        for package, version in start.get("versions", {}).items():
            versions.setdefault(str(package), {})[str(version)] = None
    return Made(
        training_hours=sum(float(part.get("seconds", 0.0)) for part in trainings) / 3600,
        evaluation_hours=sum(_seconds(part.get("seconds", 0.0)) for part in evaluations) / 3600,
        trainings=len(trainings),
        edits=sum(int(part.get("edits", 0)) for part in trainings),
        machines=_once(_machine(start) for start in starts if start.get("threads") or start.get("device")),
        commits=_once(str(start["commit"])[:12] for start in starts if start.get("commit")),
        dirty=any(bool(start.get("dirty")) for start in starts),
        versions={package: tuple(found) for package, found in versions.items()},
        mixed=_mixed(evaluations),
    )


def _mixed(evaluations: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Tell where rows differ in what is asked; records and base over all rows, pools over those of one name."""
    found: dict[tuple[str, str, str], set[str]] = {}
    for part in evaluations:
        for row, tasks in part.get("asked", {}).items():
            for task, told in tasks.items():
                for key in ALIKE:
                    found.setdefault((task, key, row if key == "pool" else ""), set()).add(str(told[key]))
    return _once(f"{task}: {key}" for (task, key, _), hashes in found.items() if len(hashes) > 1)


def _starts(part: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The starts of a training or evaluation, or the one that its record itself describes."""
    around = {key: part[key] for key in ("threads", "device") if part.get(key)}
    return [{**around, **start} for start in part.get("starts") or [part]]


def _seconds(content: Any) -> float:
    """Seconds by row and task, or their sum."""
    return sum(map(_seconds, content.values())) if isinstance(content, Mapping) else float(content)


def _machine(start: Mapping[str, Any]) -> str:
    threads = int(start.get("threads") or 0)
    device = str(start.get("device") or "cpu")
    return f"{device}, {threads} thread{'s' * (threads != 1)}" if threads else device


def _once(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(values))
