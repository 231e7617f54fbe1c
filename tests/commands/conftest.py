"""A place to evaluate in: a tiny base on disk, two editors, three prepared tasks, and the command in this process."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from instructedit.base import load_base
from instructedit.checkpoints import EditorCard, save_editor
from instructedit.instructions.pools import load_pools
from instructedit.provenance import Revision
from instructedit.tasks.prepared import write_prepared
from tests.conftest import tiny_llama
from tests.core import editor_on
from tests.lightning_modules.conftest import example, run, saved

CLEAN = Revision("c" * 40, dirty=False)
OUT = Path("evaluations/small")

Evaluate = Callable[..., int]


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, two editors and three prepared tasks of five test records."""
    folder = tmp_path_factory.mktemp("place")
    for task in ("recent", "convsent", "zsre"):
        write_prepared(folder / "prepared", task, {"test": [example(task, "test", n) for n in range(5)]}, {})
    base = load_base(str(saved(tiny_llama(), folder / "base")))
    editor, _ = editor_on(base, 2e-3)
    for name, pools in (("mend", None), ("instructedit", load_pools())):
        save_editor(folder / name, editor, EditorCard.of(editor, base, tasks=["recent"], pools=pools))
    saved(tiny_llama(1), folder / "other")
    return folder


def settings(place: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "small",
        "base": str(place / "base"),
        "data": str(place / "prepared"),
        "tasks": ["recent"],
        "held_out": [],
        "records": 4,
        "max_probes": 1,
        "greedy": 2,
        "fluency": {"convsent": 2, "others": 1},
        "fluency_tokens": 6,
        "batch": 2,
        "methods": [
            {"method": "none"},
            {"method": "mend", "editor": str(place / "mend")},
            {"method": "instructedit", "editor": str(place / "instructedit")},
        ],
    } | changes


@pytest.fixture
def evaluate(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evaluate:
    """Run the command in a folder of its own: flags, and keys that change the configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTRUCTEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("INSTRUCTEDIT_DEBUG", raising=False)
    monkeypatch.setattr("instructedit.commands.evaluate.revision", lambda: CLEAN)

    def call(*flags: object, **changes: Any) -> int:
        config = tmp_path / "config.yaml"
        config.write_text(yaml.safe_dump(settings(place, **changes)))
        return run("evaluate", "--config", config, *flags)

    return call
