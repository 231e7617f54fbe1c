"""The preflight of whole submissions: each step and each of its tasks, with one disk for all of them."""

import sys
from collections.abc import Sequence
from contextlib import chdir

from instructedit.errors import InputError
from instructedit.scheduling import preflight
from instructedit.scheduling.plan import Step


def look(steps: Sequence[Step], dry: bool = False) -> list[str]:
    """Look at what each command needs; return the warnings.

    Args:
        steps: in their order.
        dry: whether nothing may be written or started for it.

    Raises:
        InputError: something will fail.
    """
    warnings: list[str] = []
    room = None
    for step in steps:
        profile = step.profile
        # A step that goes on may have another profile, and with it another way to ask.
        if room is None or room.command != profile.free_space_command:
            room = preflight.Room(profile.free_space_command, dry)
        for task in step.tasks:
            if task.settings is None:
                continue
            with chdir(step.folder):
                findings = preflight.preflight(
                    step.command,
                    task.settings.known,
                    task.run or step.home,
                    offline=profile.offline,
                    gpu_memory_gib=profile.gpu_memory_gib if step.resources.gpus_per_node else None,
                    ranks=step.resources.nodes * step.resources.tasks_per_node,
                    made=step.made,
                    environment=profile.environment,
                    elsewhere=profile.container is not None or profile.python not in (None, sys.executable),
                    room=room,
                )
            errors = [finding.message for finding in findings if finding.level == "error"]
            if errors:
                more = f" (and {len(errors) - 1} more: {' '.join(errors[1:])})" if len(errors) > 1 else ""
                where = f"{task.run.name}: " if step.group and task.run else ""
                raise InputError(f"{where}{errors[0]}{more} (--no-preflight submits in spite of it.)")
            warnings += [f"warning: {finding.message}" for finding in findings]
    return list(dict.fromkeys(warnings))  # the points of a group have most in common
