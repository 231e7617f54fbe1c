"""Whether a checkpoint belongs to a run, and what of Lightning's own state in it has to be restated. Pure functions."""

from collections.abc import Mapping
from typing import Any

from instructedit.errors import MismatchError

OURS = "instructedit"
"""The key of what a module adds to a checkpoint."""


def check_belongs(
    checkpoint: Mapping[str, Any], base: str, fingerprint: str, shapes: Mapping[str, tuple[int, ...]]
) -> None:
    """Check that a checkpoint belongs to this base and these sites.

    Args:
        checkpoint: its content.
        base: the name of the run's base, for the message.
        fingerprint: the base's.
        shapes: of every entry of the module's state dict.

    Raises:
        MismatchError: it does not.
    """
    found = str(checkpoint.get(OURS, {}).get("fingerprint"))
    if found != fingerprint:
        raise MismatchError(
            f"The checkpoint was made on another base than {base!r}: fingerprint {found[:12]}, not {fingerprint[:12]}. "
            f"Give the run a new name."
        )
    have = {key: tuple(value.shape) for key, value in checkpoint["state_dict"].items()}
    if have != shapes:
        different = sorted(key for key in have.keys() | shapes.keys() if have.get(key) != shapes.get(key))
        raise MismatchError(
            f"The checkpoint holds another editor: {', '.join(different[:3])} differ. Give the run a new name."
        )


def count_in_steps(checkpoint: Mapping[str, Any], before: int, now: int) -> None:
    """Restate Lightning's count of batches, in place, for another number of micro-batches a step.

    Args:
        checkpoint: its content.
        before: micro-batches a step when it was saved.
        now: micro-batches a step from here on.
    """
    progress = checkpoint["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for count in (progress["total"], progress["current"]) if now != before else ():
        # Saved before the batch counts as completed: one short of a whole number of steps.
        count.update({key: -(-value // before) * now for key, value in count.items() if key != "completed"})
        count["completed"] = count["processed"] - 1
