"""One edit as one safetensors file, and back.

The file holds the edit's tensors, its kind and settings, and the fingerprint of the base it belongs to; it
is refused on any other. Kinds are a closed table: nothing a file names is ever imported or run. Knows nothing about
how an edit was made.
"""

import json
import logging
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True)
class SavedHeader:
    """What a saved edit's file says of it; reading it touches no tensor.

    Args:
        kind: a name of ``EDITS``, or one that a newer version has.
        base: the name of the base it was made for.
        fingerprint: that base's.
        dtype: that base's, such as ``"torch.float32"``; empty in old files.
        settings: what the edit needs besides its tensors, JSON values.
        about: where it comes from, JSON values: ``requests`` and ``editor``, see ``editing.edit``; empty where the
            file does not say.
    """

    kind: str
    base: str
    fingerprint: str
    dtype: str
    settings: Mapping[str, Any]
    about: Mapping[str, Any]


def save_edit(path: Path | str, edit: Edit, base: Base, about: Mapping[str, Any] | None = None) -> None:
    """Write an edit to one file, whole or not at all.

    Args:
        path: the file; one that is there is replaced.
        edit: the edit.
        base: the base it was made for.
        about: where it comes from, JSON values; see ``SavedHeader``.

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
    if about is not None:
        told["about"] = json.dumps(about, ensure_ascii=False)
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


def read_header(path: Path | str) -> SavedHeader:
    """Read what a saved edit's file says of it.

    Raises:
        InputError: the file is missing, is not an edit, or is malformed.
    """
    with _opened(path) as file:
        return _header(path, file.metadata() or {})


def load_edit(path: Path | str, base: Base) -> Edit:
    """Read an edit back, on the base's device.

    Raises:
        MismatchError: it was made for another base.
        InputError: the file is missing or is not an edit.
    """
    with _opened(path, str(base.device)) as file:
        told = _header(path, file.metadata() or {})
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    if told.fingerprint != base.fingerprint:
        raise MismatchError(
            f"The edit in {path} was made for base {told.base!r} (fingerprint {told.fingerprint[:12]}), but this "
            f"is base {base.name!r} (fingerprint {base.fingerprint[:12]}). Load it on the base it was made for."
        )
    if told.dtype and told.dtype != str(base.dtype):
        # A GRACE key, for one, is an activation: rounded otherwise it may be too far from itself to fire.
        log.warning("%s was made on a base in %s and is loaded on one in %s.", path, told.dtype, base.dtype)
    if told.kind not in EDITS:
        raise unknown("kind of edit", told.kind, EDITS)
    module, _, name = EDITS[told.kind].partition(":")
    try:
        found: Edit = getattr(import_module(module), name).from_tensors(base, tensors, told.settings)
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"{path} is malformed: {error!r}. Make the edit again.") from error
    return found


_ADVICE = "Name a file that save_edit or `instructedit edit` made."


@contextmanager
def _opened(path: Path | str, device: str = "cpu") -> Iterator[Any]:
    """Open a safetensors file; what goes wrong in the block too becomes one line."""
    try:
        with safe_open(path, "pt", device=device) as file:
            yield file
    except OSError as error:
        raise InputError(f"Cannot read the edit {path}: {error}. {_ADVICE}") from error
    except SafetensorError as error:
        raise InputError(f"{path} is not a safetensors file: {error}. {_ADVICE}") from error


def _header(path: Path | str, told: Mapping[str, str]) -> SavedHeader:
    if not {"kind", "fingerprint", "base", "settings"} <= told.keys():
        raise InputError(f"{path} is a safetensors file but no edit. {_ADVICE}")
    try:
        settings, about = json.loads(told["settings"]), json.loads(told.get("about", "{}"))
    except ValueError as error:
        raise InputError(f"{path} is malformed: {error!r}. Make the edit again.") from error
    if not isinstance(settings, dict) or not isinstance(about, dict):
        raise InputError(f"{path} is malformed: its settings or what it is about are no objects. Make the edit again.")
    return SavedHeader(told["kind"], told["base"], told["fingerprint"], told.get("dtype", ""), settings, about)
