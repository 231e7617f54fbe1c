"""A place to try descriptions in: a tiny base on disk, one prepared task, and the command line in this process."""

from pathlib import Path

import pytest
import yaml

from instructedit.instructions.client import KEY_VARIABLE
from instructedit.instructions.trial_settings import TrialSettings
from instructedit.tasks.prepared import write_prepared
from tests.conftest import tiny_gpt2
from tests.lightning_modules.conftest import example, saved

SIZES = {"train": 16, "validation": 5, "test": 3}

TRIAL = {
    "base": "base",
    "data": "prepared",
    "last_blocks": 2,
    "rank": 8,
    "alpha_init": 1e-2,
    "lr": 3e-3,
    "warmup_steps": 1,
    "steps": 2,
    "batch": 2,
    "records": 3,
    "seeds": 2,
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: base, prepared tasks, and config.yaml for the command."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INSTRUCTEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv(KEY_VARIABLE, raising=False)
    monkeypatch.delenv("INSTRUCTEDIT_DEBUG", raising=False)
    saved(tiny_gpt2(), tmp_path / "base")
    for task in ("counterfact", "recent", "convsent", "zsre"):
        splits = {
            split: [example(task, split, n) for n in range(size)]
            for split, size in SIZES.items()
            if task != "zsre" or split == "test"
        }
        write_prepared(Path("prepared"), task, splits, {})  # type: ignore[arg-type]
    Path("config.yaml").write_text(yaml.safe_dump({"trial": TRIAL, "retries": 0}))
    return tmp_path


@pytest.fixture
def trial() -> TrialSettings:
    return TrialSettings(**TRIAL)  # type: ignore[arg-type]
