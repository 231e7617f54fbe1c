"""The preflight of ``submit``: what a job would fail at after hours in a queue, told before it is handed in.

Knows the settings as they were written and this machine's files; asks the Hub at most one question. Loads no torch, and
runs in well under a second where the Hub need not be asked. What it cannot see from here it leaves to the job.
"""

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from instructedit.errors import InputError
from instructedit.scheduling.preflight.bases import check_base
from instructedit.scheduling.preflight.devices import check_memory
from instructedit.scheduling.preflight.disk import check_disk
from instructedit.scheduling.preflight.records import check_records
from instructedit.scheduling.preflight.room import Room
from instructedit.scheduling.preflight.training import check_launch, check_run, check_training, check_wandb
from instructedit.scheduling.preflight.work import Finding, Work

__all__ = ["Finding", "Room", "preflight"]

CHECKS: tuple[Callable[[Work], Iterator[Finding]], ...] = (
    check_training,
    check_launch,
    check_run,
    check_wandb,
    check_base,
    check_records,
    check_memory,
    check_disk,
)


def preflight(
    command: str,
    config: Mapping[str, Any],
    run: Path | None,
    *,
    offline: bool,
    gpu_memory_gib: float | None,
    ranks: int,
    free_space_command: str | None = None,
    made: Collection[Path] = (),
    environment: Mapping[str, str] | None = None,
    elsewhere: bool = False,
    room: Room | None = None,
) -> list[Finding]:
    """Tell what a command would fail at later, as far as it can be seen now; writes nothing that stays.

    Args:
        command: the program's command, for instance ``fit``.
        config: its settings as nested mappings; what is left out has its default.
        run: the directory it is going to write in; None for a command that has none.
        offline: whether the compute nodes reach no internet.
        gpu_memory_gib: memory of one GPU, in GiB; None is not known, and nothing is said about it.
        ranks: how many processes are started.
        free_space_command: a shell command of the site that prints the free space in GiB, where there are quotas; it
            runs in the nearest folder of ``run`` that exists.
        made: files and folders that earlier jobs of a chain will have written.
        environment: variables that the job has in place of this process's.
        elsewhere: whether another Python runs it, in a container for instance, whose packages are not seen from here.
        room: the free space, where several runs share it; in place of one of its own.

    Returns:
        The findings, errors first; each is one line. None means that nothing was found.
    """
    own = dict(environment or {})
    work = Work(
        command,
        config,
        run,
        offline or own.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"),
        gpu_memory_gib,
        ranks,
        tuple(map(Path, made)),
        environment=own,
        elsewhere=elsewhere,
        room=room or Room(free_space_command),
    )
    found: list[Finding] = []
    for check in CHECKS:
        try:
            with _variables(own):
                found += check(work)
        except InputError as error:
            found.append(Finding("error", str(error)))
        except (OSError, TypeError, ValueError, KeyError, AttributeError) as error:
            # A value of a kind that no check expects is the program's to refuse; the others are still looked at.
            told = f"{check.__name__.replace('_', ' ')}: {type(error).__name__}: {error}"
            found.append(Finding("warning", f"The preflight could not look at everything ({told}). The job will."))
    unique = dict.fromkeys(Finding(finding.level, " ".join(finding.message.split())) for finding in found)
    return sorted(unique, key=lambda finding: finding.level != "error")


@contextmanager
def _variables(given: Mapping[str, str]) -> Iterator[None]:
    """Let this process have the job's variables for a moment."""
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
