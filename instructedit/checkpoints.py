"""Editor folders: a hypernetwork's weights and a card that says what it is and where it comes from.

``editor.safetensors`` holds parameters and moments, ``card.json`` is written for people too. The base
is named and fingerprinted, never saved, and another base is refused. Knows nothing about training.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from instructedit.base.model import Base
from instructedit.base.sites import Site
from instructedit.errors import InputError, MismatchError
from instructedit.hypernet.face import MetaEditor
from instructedit.hypernet.ke import KEConfig
from instructedit.hypernet.kinds import AnyConfig, EditorMethod, config_class, make_editor
from instructedit.instructions.pools import InstructionPool
from instructedit.provenance import revision, versions

WEIGHTS = "editor.safetensors"
CARD = "card.json"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EditorCard:
    """What an editor is, what it was trained on, and where it comes from.

    Args:
        method: InstructEdit has pools, MEND and KE have none.
        base: the base's name, as it was loaded.
        fingerprint: the base's fingerprint; the editor loads on no other.
        sites: the edited matrices.
        config: the hypernetwork's sizes and choices, of the method's own class.
        dtype: dtype of the base it was trained on, such as ``"torch.bfloat16"``; others load with a warning.
        tasks: the tasks it was trained on.
        pools: the instruction pools, which travel with the editor.
        data: hashes of the training data, by task.
        commit: the code's commit; empty outside a repository.
        dirty: whether the code had changed since that commit.
        steps: optimiser steps.
        versions: of Python and the packages.
        results: whatever was measured; JSON values.
    """

    method: EditorMethod
    base: str
    fingerprint: str
    sites: tuple[Site, ...]
    config: AnyConfig
    dtype: str = ""
    tasks: tuple[str, ...] = ()
    pools: Mapping[str, InstructionPool] | None = None
    data: Mapping[str, str] = field(default_factory=dict)
    commit: str = ""
    dirty: bool = False
    steps: int = 0
    versions: Mapping[str, str] = field(default_factory=dict)
    results: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        editor: MetaEditor,
        base: Base,
        *,
        tasks: Sequence[str],
        pools: Mapping[str, InstructionPool] | None,
        data: Mapping[str, str] | None = None,
        steps: int = 0,
        results: Mapping[str, Any] | None = None,
    ) -> "EditorCard":
        """Describe an editor; commit and versions are those of this process."""
        code = revision()
        without: EditorMethod = "KE" if isinstance(editor.config, KEConfig) else "MEND"
        return cls(
            method=without if pools is None else "InstructEdit",
            base=base.name,
            fingerprint=base.fingerprint,
            sites=editor.sites,
            config=editor.config,
            dtype=str(base.dtype),
            tasks=tuple(tasks),
            pools=pools,
            data=data or {},
            commit=code.commit,
            dirty=code.dirty,
            steps=steps,
            versions=versions(),
            results=results or {},
        )


def save_editor(folder: Path, editor: MetaEditor, card: EditorCard) -> None:
    """Write an editor folder; a folder that is there already has its two files replaced.

    Each file is written under a temporary name and renamed. The card comes last and holds the
    weights' hash, so that a folder whose writing was cut short is noticed when it is loaded.

    Raises:
        InputError: the folder cannot be written.
    """
    folder = Path(folder)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in editor.state_dict().items()}

    def write_weights(path: Path) -> None:
        save_file(tensors, path)

    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / WEIGHTS, write_weights)
        content = {**asdict(card), "weights_sha256": _sha256(folder / WEIGHTS)}
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        _replace(folder / CARD, lambda path: path.write_text(text, encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"Cannot write the editor to {folder}: {error}. Choose a folder that can be written."
        ) from error


def read_card(folder: Path) -> EditorCard:
    """Read an editor folder's card alone; the weights are not touched.

    Raises:
        InputError: there is no card, or it is malformed.
    """
    return _parse(Path(folder) / CARD)[0]


def weights_hash(folder: Path) -> str:
    """Return the SHA-256 of an editor's weights as its card has it, 64 hex digits; the weights are not touched.

    Raises:
        InputError: there is no card, or it is malformed.
    """
    return _parse(Path(folder) / CARD)[1]


def load_editor(folder: Path, base: Base) -> tuple[MetaEditor, EditorCard]:
    """Load an editor onto the base it was trained on; it comes back in fp32 on the base's device.

    Raises:
        MismatchError: the base is another one than the card names.
        InputError: a file is missing, malformed, or does not belong to the other.
    """
    folder = Path(folder)
    card, weights_hash = _parse(folder / CARD)
    if card.fingerprint != base.fingerprint:
        raise MismatchError(
            f"The editor in {folder} was trained on base {card.base!r} (fingerprint {card.fingerprint[:12]}), but this "
            f"is base {base.name!r} (fingerprint {base.fingerprint[:12]}). Load it on the base it was trained on."
        )
    weights = folder / WEIGHTS
    advice = "Export the editor again."
    try:
        if _sha256(weights) != weights_hash:
            raise InputError(f"{weights} is not the file its {CARD} describes: it is damaged or was replaced. {advice}")
        tensors = load_file(weights)
    except OSError as error:
        raise InputError(f"Cannot read {weights}: {error.strerror}. {advice}") from error
    except SafetensorError as error:
        raise InputError(f"{weights} is not a safetensors file: {error}. {advice}") from error
    if card.dtype and card.dtype != str(base.dtype):
        logger.warning("%s was trained on a base in %s and is loaded on one in %s.", folder, card.dtype, base.dtype)
    editor = make_editor(base, card.sites, card.config)
    _check(editor.state_dict(), tensors, weights)
    editor.load_state_dict(tensors)
    return editor.to(base.device), card


def _check(wanted: Mapping[str, Tensor], found: Mapping[str, Tensor], where: Path) -> None:
    """Compare names, shapes and dtypes, all of them, before anything is loaded."""
    for name in sorted({*wanted, *found}):
        a, b = wanted.get(name), found.get(name)
        if a is None or b is None or a.shape != b.shape or a.dtype != b.dtype:
            told = ["none" if t is None else f"{tuple(t.shape)} {t.dtype}" for t in (a, b)]
            raise InputError(f"{where} does not fit its {CARD}: {name} should be {told[0]} and is {told[1]}.")


def _parse(path: Path) -> tuple[EditorCard, str]:
    if not path.is_file():
        raise InputError(f"No editor at {path.parent}: there is no {CARD}. Name a folder that `instructedit fit` made.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        weights_hash = content.pop("weights_sha256")
        pools = content.pop("pools")
        card = EditorCard(
            sites=tuple(Site(**site) for site in content.pop("sites")),
            config=config_class(content["method"])(**content.pop("config")),
            tasks=tuple(content.pop("tasks")),
            pools=None if pools is None else {name: _pool(pool) for name, pool in pools.items()},
            **content,
        )
    except InputError:
        raise
    except KeyError as error:
        raise InputError(f"{path} is malformed: it has no {error}. Export the editor again.") from error
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is malformed: {error}. Export the editor again.") from error
    return card, weights_hash


def _pool(content: dict[str, Any]) -> InstructionPool:
    return InstructionPool(content["task"], content["label"], tuple(content["descriptions"]))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` make a temporary file beside ``path``, then rename it."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        # mkstemp makes files that nobody else may read; an editor is meant to be shared.
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
