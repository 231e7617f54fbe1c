"""One edit as one safetensors file, and back.

The file holds the edit's tensors, its kind and settings, and the fingerprint of the base it belongs to; it
is refused on any other. Kinds are a closed table: nothing a file names is ever imported or run. Knows nothing about
how an edit was made.
"""

import json
import logging
import os
import tempfile
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from instructedit.base.model import Base
from instructedit.errors import InputError, MismatchError, unknown
from instructedit.methods.base import Edit

log = logging.getLogger(__name__)

EDITS: dict[str, str] = {
    "HyperEdit": "instructedit.methods.hyper:HyperEdit",
    "DenseEdit": "instructedit.methods.dense:DenseEdit",
    "SlotEdit": "instructedit.methods.calinet:SlotEdit",
    "CodebookEdit": "instructedit.methods.lookup:CodebookEdit",
}
"""Kind -> "module:class" of the edits that can be saved."""


@runtime_checkable
class SavedEdit(Edit, Protocol):
    """An edit that is made of tensors."""

    def tensors(self) -> dict[str, Tensor]:
        """Everything the edit computes with, by name."""
        ...

    def settings(self) -> dict[str, Any]:
        """What it needs besides, as JSON values."""
        ...

    @classmethod
    def from_tensors(cls, base: Base, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """Make the edit again."""
        ...


def save_edit(path: Path | str, edit: Edit, base: Base) -> None:
    """Write an edit to one file, whole or not at all.

    Raises:
        InputError: this kind of edit has nothing to save, or the file cannot be written.
    """
    path, kind = Path(path), type(edit).__name__
    if kind not in EDITS or not isinstance(edit, SavedEdit):
        raise InputError(f"An edit of kind {kind!r} cannot be saved. Kinds that can: {', '.join(sorted(EDITS))}.")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in edit.tensors().items()}
    told = {
        "kind": kind,
        "base": base.name,
        "fingerprint": base.fingerprint,
        "dtype": str(base.dtype),
        "settings": json.dumps(edit.settings(), sort_keys=True),
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
        os.close(handle)
        try:
            save_file(tensors, temporary, metadata=told)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        finally:
            Path(temporary).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"Cannot write the edit to {path}: {error.strerror}. Choose another file.") from error


def load_edit(path: Path | str, base: Base) -> Edit:
    """Read an edit back, on the base's device.

    Raises:
        MismatchError: it was made for another base.
        InputError: the file is missing or is not an edit.
    """
    advice = "Name a file that save_edit made."
    try:
        with safe_open(path, "pt", device=str(base.device)) as file:
            told = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except OSError as error:
        raise InputError(f"Cannot read the edit {path}: {error}. {advice}") from error
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file: {error}. {advice}") from error
    if not {"kind", "fingerprint", "base", "settings"} <= told.keys():
        raise InputError(f"{path} is a safetensors file but no edit. {advice}")
    if told["fingerprint"] != base.fingerprint:
        raise MismatchError(
            f"The edit in {path} was made for base {told['base']!r} (fingerprint {told['fingerprint'][:12]}), but this "
            f"is base {base.name!r} (fingerprint {base.fingerprint[:12]}). Load it on the base it was made for."
        )
    if told.get("dtype", str(base.dtype)) != str(base.dtype):
        # A GRACE key, for one, is an activation: rounded otherwise it may be too far from itself to fire.
        log.warning("%s was made on a base in %s and is loaded on one in %s.", path, told["dtype"], base.dtype)
    if told["kind"] not in EDITS:
        raise unknown("kind of edit", told["kind"], EDITS)
    module, _, name = EDITS[told["kind"]].partition(":")
    try:
        found: Edit = getattr(import_module(module), name).from_tensors(base, tensors, json.loads(told["settings"]))
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is malformed: {error!r}. Make the edit again.") from error
    return found
