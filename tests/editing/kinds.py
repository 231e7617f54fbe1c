"""Editor folders of every kind for a tiny base: what the tests of using an editor load."""

from pathlib import Path
from typing import Any

import pytest

from instructedit.base import Base, load_base
from instructedit.checkpoints import EditorCard, save_editor
from instructedit.instructions.pools import load_pools
from tests.conftest import byte_tokenizer, tiny_gpt2
from tests.core import editor_on, ke_on

KINDS = ("MEND", "KE", "InstructEdit")

USUAL = {
    "validation_edits": {
        "records": 12,
        "update_norm": {"min": 0.1, "q50": 0.5, "q95": 1000.0, "max": 1000.0},
        "locality_kl": {"min": 0.0, "q50": 0.1, "q95": 1000.0, "max": 1000.0},
    }
}
"""What a card says validation saw; so large that nothing is flagged."""


def saved_editor(
    folder: Path, base: Base, kind: str = "InstructEdit", alpha: float = 0.1, results: dict[str, Any] | None = None
) -> Path:
    """Write an editor nobody has trained, with steps large enough to change answers."""
    editor, _ = ke_on(base) if kind == "KE" else editor_on(base, alpha=alpha)
    pools = load_pools() if kind == "InstructEdit" else None
    told = USUAL if results is None else results
    card = EditorCard.of(editor, base, tasks=["counterfact", "convsent"], pools=pools, steps=3, results=told)
    save_editor(folder, editor, card)
    return folder


def base_and_editor(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write a tiny base and an editor of it into a folder, which becomes the working directory."""
    monkeypatch.setenv("INSTRUCTEDIT_CACHE", str(folder / "cache"))
    monkeypatch.chdir(folder)
    tiny_gpt2().save_pretrained("base")
    byte_tokenizer().save_pretrained("base")
    saved_editor(folder / "editor", load_base("./base"))
    return folder
