"""A place for jobs: tiny bases, prepared tasks, a configuration, one thread a process."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from instructedit.base import SiteSpec, find_sites, load_base
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from lightning_modules.callbacks.checkpoints import read_checkpoint
from tests.lightning_modules.conftest import gpt2_folder, llama_folder, prepared, write_experiment
from tests.processes.jobs import Job

__all__ = ["gpt2_folder", "llama_folder", "prepared"]

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@pytest.fixture(scope="session", autouse=True)
def one_thread(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Processes with several threads each would slow each other down; caches stay out of the home folder."""
    changed = dict.fromkeys(THREADS, "1") | {"INSTRUCTEDIT_CACHE": str(tmp_path_factory.mktemp("cache"))}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    yield
    for name, value in before.items():
        if value is None:
            del os.environ[name]
        else:
            os.environ[name] = value


class Place:
    """Where the jobs of a test lie.

    Args:
        folder: of configurations, runs and logs.
        data: the prepared tasks.
        base: the base's folder.
    """

    def __init__(self, folder: Path, data: Path, base: Path) -> None:
        self.folder, self.data, self.base = folder, data, base

    def path(self, name: str) -> Path:
        """A run's directory."""
        return self.folder / "runs" / name

    def start(
        self, name: str, strategy: str = "auto", ranks: int = 1, *flags: object, patch: str | None = None, **told: Any
    ) -> Job:
        """Start a run, or go on with it; ``told`` is for the patch, or a change of the configuration."""
        changes = {key: told.pop(key) for key in list(told) if "__" in key}
        settings = {"trainer__max_steps": 20, "validation__every_n_steps": 20, "checkpoint__every_n_steps": 4}
        write = {"model__base": str(self.base), **settings, **changes}
        config = write_experiment(self.folder, self.data, self.base, name, **write)
        limits = {"max_steps": write["trainer__max_steps"]}
        argv = ["--config", str(config), "--trainer.strategy", strategy, "--processes.zero_3_persistence", "0"]
        argv += ["--trainer.max_steps", str(limits["max_steps"]), *map(str, flags)]
        logs = self.folder / "logs" / name
        place = f"tests.processes.patches:{patch}" if patch else None
        return Job(argv, ranks, logs, place, {key: str(value) for key, value in told.items()})


@pytest.fixture
def place(tmp_path: Path, prepared: Path, llama_folder: Path) -> Place:
    return Place(tmp_path, prepared, llama_folder)


def last(path: Path) -> dict[str, Any]:
    """The last checkpoint of a run."""
    return read_checkpoint(path / "checkpoints" / "last.ckpt", verify=True)


def first_weights(base: Path) -> dict[str, torch.Tensor]:
    """The hypernetwork every run starts with, under its names in a checkpoint."""
    torch.manual_seed(0)
    editor = HyperEditor(find_sites(load_base(str(base)), SiteSpec(last_blocks=2)), EditorConfig(rank=8))
    return {f"editor.{name}": value.detach() for name, value in editor.named_parameters()}


def check_close(one: dict[str, Any], other: dict[str, Any], start: dict[str, torch.Tensor], bound: float) -> str:
    """Check that two checkpoints are closer than ``bound`` of the way from the start; Adam's moments, of their size.

    Returns:
        How far the first has travelled, and how far apart they are.
    """
    moved = {name: one["state_dict"][name] - value for name, value in start.items()}
    assert all(change.any() for change in moved.values()), "every part of the hypernetwork moves"
    travelled = torch.cat([change.flatten() for change in moved.values()]).norm()
    apart = torch.cat([(other["state_dict"][name] - one["state_dict"][name]).flatten() for name in moved]).norm()
    assert apart <= bound * travelled
    for part in ("state_dict", "exp_avg", "exp_avg_sq"):  # the state dict has the running moments too
        a, b = vector(one, part), vector(other, part)
        assert (a - b).norm() <= bound * a.norm(), part
    return f"travelled {travelled:.4f}, apart {apart:.2e}"


def vector(content: dict[str, Any], part: str = "state_dict") -> torch.Tensor:
    """All learned numbers of a checkpoint, or all of one of Adam's moments, as one vector."""
    if part == "state_dict":
        values = [value for name, value in content[part].items() if not name.endswith("count")]
    else:
        (adam,) = content["optimizer_states"]
        values = [adam["state"][key][part] for key in sorted(adam["state"])]
    return torch.cat([value.double().flatten() for value in values])
