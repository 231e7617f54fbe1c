"""The run directory ``<folder>/<name>``: what a run is, fixed at its first start, and where everything of it lies.

Knows files only; nothing about models or Lightning.
"""

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

from instructedit.errors import InputError, MismatchError
from instructedit.provenance import revision, versions

SCIENCE = ("model.", "data.", "seed_everything", "trainer.max_steps", "trainer.gradient_clip")
"""Settings a run cannot change when it goes on ..."""

FREE = (
    "model.store.",
    "model.max_bad_steps",
    "data.folder",
    "data.micro_batch",
    "data.eval_batch",
    "data.num_workers",
)
"""... but for these, which say where and in which portions the same is computed."""


@dataclass(frozen=True)
class RunConfig:
    """Where a run lies and where its metrics go.

    Args:
        name: the run's name; the same name goes on with the same run.
        folder: the folder of all runs.
        wandb: whether Weights & Biases gets the metrics too; ``online`` without a key becomes offline.
        wandb_project: the project there.
    """

    name: str = ""
    folder: str = "runs"
    wandb: Literal["disabled", "offline", "online"] = "disabled"
    wandb_project: str = "instructedit"

    @property
    def path(self) -> Path:
        """The run directory.

        Raises:
            InputError: the run has no name, or one that is no folder's name.
        """
        if not self.name or self.name in (".", "..") or "/" in self.name:
            raise InputError(f"run.name is {self.name!r}. Give the run a plain name: --run.name NAME.")
        return Path(self.folder) / self.name


class RunDirectory:
    """One run's files.

    Args:
        path: the run directory; made by ``claim``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.record = path / "run.json"
        self.checkpoints = path / "checkpoints"
        self.editor = path / "editor"
        self.metrics = path / "metrics.csv"
        self.results = path / "results"

    @property
    def started(self) -> bool:
        """Whether anything was trained in it; before that, its configuration may still change."""
        return any(self.checkpoints.glob("*.ckpt"))

    def claim(self, resolved: str, write: bool = True) -> None:
        """Take the directory for a configuration, or go on in it with the same one.

        Args:
            resolved: the whole configuration as YAML.
            write: whether this process writes; one of all ranks does.

        Raises:
            MismatchError: the directory holds a run of another configuration; names the keys.
            InputError: its config.yaml cannot be read, or the directory cannot be made.
        """
        if self.config.exists() and self.started:
            before, now = (dict(_flat(_parsed(text, self.config))) for text in (self.config.read_text(), resolved))
            # A key only one side has came or went with a version of this program.
            changed = [key for key in before.keys() & now.keys() if _fixed(key) and before[key] != now[key]]
            if changed:
                told = ", ".join(f"{key} ({before[key]!r}, now {now[key]!r})" for key in sorted(changed))
                raise MismatchError(
                    f"The run directory {self.path} belongs to another configuration: {told}. "
                    f"Choose another --run.name, or remove the directory."
                )
        if write:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                _write(self.config, resolved)
            except OSError as error:
                raise InputError(f"Cannot write to the run directory {self.path}: {error.strerror}.") from error

    def read(self) -> dict[str, Any]:
        """What run.json holds; empty before the first start."""
        try:
            content: dict[str, Any] = json.loads(self.record.read_text())
            return content
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise InputError(f"{self.record} is not JSON: {error}. Remove it, or the run directory.") from error

    def note(self, fingerprint: str, data: Mapping[str, str], write: bool = True) -> dict[str, Any]:
        """Record base and data at the first start, and check them at every later one.

        Returns:
            What run.json holds: wandb_id, fingerprint, data, and of the latest start commit, dirty, versions.

        Raises:
            MismatchError: the base or the records changed under the run.
        """
        known = self.read()
        for key, now in (("fingerprint", fingerprint), ("data", dict(data))):
            if self.started and key in known and known[key] != now:
                raise MismatchError(
                    f"The run in {self.path} was started with another {'base' if key == 'fingerprint' else 'data'}: "
                    f"its {key} differs from {self.record.name}. Choose another --run.name, or restore what it was."
                )
        code = revision()
        known = {"wandb_id": secrets.token_hex(4), **known, "fingerprint": fingerprint, "data": dict(data)}
        known |= {"commit": code.commit, "dirty": code.dirty, "versions": versions()}
        if write:
            _write(self.record, json.dumps(known, indent=2) + "\n")
        return known


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _parsed(text: str, path: Path) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"{path} is not YAML: {error}. Remove the run directory or restore the file.") from error


def _flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}{key}.")
    else:
        yield prefix.removesuffix("."), value


def _fixed(key: str) -> bool:
    return key.startswith(SCIENCE) and not key.startswith(FREE)
