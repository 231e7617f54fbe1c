"""What a saved edit says of its requests and its editor, as JSON values. Knows no tensors and no files."""

import math
from collections.abc import Mapping
from typing import Any

from instructedit.checkpoints import EditorCard
from instructedit.evaluation.sizes import VALIDATION_EDITS
from instructedit.records import EditRequest

_TEXTS = ("prompt", "target", "task", "instruction", "subject", "id", "old_answer")
_ALWAYS = ("prompt", "target", "task", "instruction")


def told_of(request: EditRequest, norm: float = math.nan) -> dict[str, Any]:
    """Return a request as JSON values; what is empty is left out, but for prompt, target, task and instruction.

    Args:
        request: with the instruction that was used.
        norm: the Frobenius norm of its update; NaN where it is not known.
    """
    told: dict[str, Any] = {name: getattr(request, name) for name in _TEXTS}
    told |= {"more_targets": list(request.more_targets), "slots": dict(request.slots)}
    told = {name: value for name, value in told.items() if value or name in _ALWAYS}
    return told if math.isnan(norm) else {**told, "update_norm": norm}


def request_from(told: Mapping[str, Any]) -> EditRequest:
    """Make a request again from what ``told_of`` returned.

    Raises:
        KeyError: it has no prompt or no target.
        TypeError: a value is of another type.
    """
    texts = {name: told.get(name, "") for name in _TEXTS} | {"prompt": told["prompt"], "target": told["target"]}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError("a request's text is no text")
    return EditRequest(**texts, more_targets=tuple(told.get("more_targets", ())), slots=dict(told.get("slots", {})))


def told_of_editor(card: EditorCard, weights_sha256: str) -> dict[str, Any]:
    """Return what an edit says of its editor, JSON values."""
    told: dict[str, Any] = {
        "method": card.method,
        "base": card.base,
        "base_fingerprint": card.fingerprint,
        "dtype": card.dtype,
        "commit": card.commit,
        "dirty": card.dirty,
        "steps": card.steps,
        "weights_sha256": weights_sha256,
        "tasks": list(card.tasks),
    }
    usual = card.results.get(VALIDATION_EDITS)
    return told | ({VALIDATION_EDITS: usual} if usual else {})
