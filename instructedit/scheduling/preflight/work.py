"""What the preflight's checks look at: the command, its settings with their defaults, and where it will run."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from instructedit.instructions.pools import DEFAULT_POOLS
from instructedit.scheduling.preflight.room import Room

TRAINING: dict[str, Any] = {
    "seed_everything": 0,
    "ckpt_path": None,
    "run.wandb": "disabled",
    "model.base": None,
    "model.dtype": "float32",
    "model.method": "InstructEdit",
    "model.sites.last_blocks": 3,
    "model.sites.matrices": None,
    "model.sites.names": None,
    "model.editor.rank": 1920,
    "model.editor.n_blocks": 2,
    "model.ke": None,
    "model.placement": "replicated",
    "model.trunk_device": "accelerator",
    "model.warmup_steps": 0,
    "model.store.folder": None,
    "model.store.disk_gib": 100.0,
    "data.folder": "data/prepared",
    "data.tasks": None,
    "data.held_out": None,
    "data.instructions": DEFAULT_POOLS,
    "data.balance": "equal",
    "data.temperature": 2.0,
    "data.caps": None,
    "data.batch": 8,
    "data.micro_batch": None,
    "data.mix.rephrases": 1,
    "data.mix.locality": 2,
    "data.mix.avoid": 1,
    "trainer.accelerator": "auto",
    "trainer.devices": "auto",
    "trainer.num_nodes": 1,
    "trainer.strategy": "auto",
    "trainer.max_steps": -1,
    "trainer.log_every_n_steps": 1,
    "trainer.gradient_clip_algorithm": None,
    "checkpoint.keep": 2,
}
"""Defaults of fit, validate, test and ``prepare --trunk``; the tests hold them against the parser's."""

KE = {"hidden": 128, "condition": 1024, "head": 128}
"""Defaults of ``model.ke``, a section that may be left out."""

EVALUATION: dict[str, Any] = {
    "base": "",
    "dtype": "float32",
    "device": "auto",
    "data": "data/prepared",
    "tasks": "",
    "methods": (),
    "instructions": None,
}
"""Defaults of evaluate; the tests hold them against its signature."""

PREPARATION: dict[str, Any] = {"source": "hub", "tasks": "recent,counterfact,convsent,zsre", "out": "data/prepared"}
"""Defaults of prepare."""


@dataclass(frozen=True)
class Finding:
    """What is wrong, in one line: what it is, what was found, what to do.

    Args:
        level: ``error`` for what will fail; ``warning`` for what may, or for what will not do what was meant.
        message: the line.
    """

    level: Literal["error", "warning"]
    message: str


@dataclass(frozen=True)
class Work:
    """A command that is to be submitted; the arguments of ``preflight``."""

    command: str
    config: Mapping[str, Any]
    run: Path | None
    offline: bool
    gpu_memory_gib: float | None
    ranks: int
    made: tuple[Path, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    elsewhere: bool = False
    room: Room = field(default_factory=Room)

    @property
    def kind(self) -> Literal["training", "evaluation", "preparation", "other"]:
        """Which settings it has."""
        if self.command in ("fit", "validate", "test") or isinstance(self.config.get("model"), Mapping):
            return "training"
        kinds: dict[str, Literal["evaluation", "preparation"]] = {"evaluate": "evaluation", "prepare": "preparation"}
        return kinds.get(self.command, "other")

    def get(self, key: str) -> Any:
        """A setting by its full name, for instance ``model.store.folder``; its default where it was left out."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        defaults = {"training": TRAINING, "evaluation": EVALUATION, "preparation": PREPARATION, "other": {}}[self.kind]
        return defaults[key] if value is None else value

    def names(self, key: str) -> list[str]:
        """A setting that lists names, as a list or separated by commas."""
        value = self.get(key) or ()
        parts = value.split(",") if isinstance(value, str) else value
        return [str(part).strip() for part in parts if str(part).strip()]

    def hub_cache(self) -> Path:
        """The Hub's cache as the job will find it: its package reads the environment only once, before we could."""
        from huggingface_hub import constants

        given = self.environment
        for name, inside in (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub")):
            if given.get(name):
                return Path(given[name]).expanduser() / inside
            if os.environ.get(name):
                break  # the shell's own wins over what follows, and is in the package's word
        else:
            for name, inside in (("XDG_CACHE_HOME", "huggingface/hub"), ("HOME", ".cache/huggingface/hub")):
                if given.get(name):
                    return Path(given[name]) / inside
        return Path(constants.HF_HUB_CACHE)

    def is_made(self, path: Path | str | None) -> bool:
        """Whether an earlier job of the chain will have written a path, or something inside or around it."""
        if path is None:
            return False
        asked = Path(path).resolve()
        made = [other.resolve() for other in self.made]
        return any(asked == other or asked in other.parents or other in asked.parents for other in made)

    def is_written(self, path: Path | str) -> bool:
        """Whether an earlier job of the chain will have written just this path, or the folder it is in."""
        asked = Path(path).resolve()
        return any(asked == other or other in asked.parents for other in (made.resolve() for made in self.made))
