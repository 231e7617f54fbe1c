"""The run directory ``<folder>/<name>``: what a run is, fixed at its first start, and where everything of it lies.

Knows files only; nothing about models or Lightning.
"""

import errno
import json
import logging
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml
from filelock import FileLock, Timeout

from instructedit.errors import InputError, MismatchError
from instructedit.provenance import revision, versions

log = logging.getLogger(__name__)

SCIENCE = ("model.", "data.", "seed_everything", "trainer.max_steps", "trainer.gradient_clip")
"""Settings a run cannot change when it goes on ..."""

FREE = (
    *(f"model.store.{name}" for name in ("rows_per_pass", "pad_to_tokens", "share_prefixes")),
    *(f"model.store.{name}" for name in ("memory_mib", "folder", "disk_gib")),
    "model.placement",
    "model.trunk_device",
    "model.max_bad_steps",
    "data.folder",
    "data.micro_batch",
    "data.micro_tokens",
    "data.eval_batch",
    "data.num_workers",
)
"""... but for these, which say where and in which portions the same is computed."""

LOCK_SECONDS = 20.0

NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
"""What a file system without locks answers, NFS without its lock daemon for instance."""

ABSENT = "absent"
"""How a setting that only one of two configurations has is told."""

DATA = "data_sha256"


@dataclass(frozen=True)
class RunConfig:
    """Where a run lies and where its metrics go.

    Args:
        name: the run's name; the same name goes on with the same run.
        folder: the folder of all runs.
        wandb: whether Weights & Biases gets the metrics too; ``online`` without a key becomes offline.
        wandb_project: the project there.
        wandb_entity: the team or user there; null for the one the key belongs to.
        wandb_group: groups runs there, a sweep's for instance.
        wandb_tags: labels there.
        wandb_results: whether the test table's rows go there too, as a table.
        wandb_editor: whether the exported editor goes there too, as an artifact.
    """

    name: str = ""
    folder: str = "runs"
    wandb: Literal["disabled", "offline", "online"] = "disabled"
    wandb_project: str = "instructedit"
    wandb_entity: str | None = None
    wandb_group: str | None = None
    wandb_tags: list[str] = field(default_factory=list)
    wandb_results: bool = False
    wandb_editor: bool = False

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
        path: the run directory; made by ``begin``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.record = path / "run.json"
        self.checkpoints = path / "checkpoints"
        self.editor = path / "editor"
        self.metrics = path / "metrics.csv"
        self.results = path / "results"
        self._lock = FileLock(path / "run.lock")

    @property
    def started(self) -> bool:
        """Whether anything was trained in it; before that, its configuration may still change."""
        return any(self.checkpoints.glob("*.ckpt"))

    def check(self, resolved: str) -> None:
        """Refuse another configuration than the one the run was trained with. Writes nothing.

        Args:
            resolved: the whole configuration as YAML.

        Raises:
            MismatchError: the directory holds a run of another configuration; names the keys.
            InputError: its config.yaml cannot be read.
        """
        if not (self.config.exists() and self.started):
            return
        before, now = (_science(_parsed(text, self.config)) for text in (self.config.read_text(), resolved))
        told = changed_keys(before, now)
        if told:
            raise MismatchError(
                f"The run directory {self.path} belongs to another configuration: {told}. "
                f"Choose another --run.name, or remove the directory."
            )

    def read(self) -> dict[str, Any]:
        """What run.json holds; empty before the first start."""
        try:
            content: dict[str, Any] = json.loads(self.record.read_text())
            return content
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise InputError(f"{self.record} is not JSON: {error}. Remove it, or the run directory.") from error

    def check_facts(self, fingerprint: str, data: Mapping[str, str]) -> None:
        """Refuse another base or other records than the run was trained on. Writes nothing.

        Args:
            fingerprint: the base's.
            data: SHA-256 of the splits in use by ``task/split``; a split the run does not know is not compared.

        Raises:
            MismatchError: the base or the records changed under the run.
        """
        if not self.started:
            return
        known = self.read()
        hashes = known.get(DATA, {})
        other = [split for split, content in data.items() if hashes.get(split, content) != content]
        if known.get("fingerprint", fingerprint) != fingerprint:
            what = f"another base: its fingerprint differs from {self.record.name}"
        elif other:
            what = f"other data: {', '.join(other)} differ from {self.record.name}"
        else:
            return
        raise MismatchError(
            f"The run in {self.path} was started with {what}. Choose another --run.name, or restore what it was."
        )

    def lock(self, seconds: float = LOCK_SECONDS) -> None:
        """Keep other processes from training in this directory until ``unlock``, or the end of this process.

        Args:
            seconds: how long to wait for one that is about to end, as before a requeue.

        Raises:
            InputError: another process trains in it, or the directory cannot be written.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=seconds)
        except Timeout as error:
            raise InputError(
                f"Another process is training in {self.path}. Wait for it to end, or give this run another --run.name."
            ) from error
        except (NotImplementedError, OSError) as error:
            if isinstance(error, NotImplementedError) or error.errno in NO_LOCKS:
                log.warning("%s: the file system knows no locks; let one job at a time train there.", self.path)
                return
            raise InputError(f"Cannot write to the run directory {self.path}: {error.strerror}.") from error

    def unlock(self) -> None:
        """Let others train in it."""
        self._lock.release()

    def announce(self) -> str:
        """Note the run before its first start: make its W&B id now, or return the one it has.

        Raises:
            InputError: the directory cannot be written, or its run.json cannot be read.
        """
        known = self.read()
        if "wandb_id" not in known:
            known["wandb_id"] = secrets.token_hex(4)
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                write_whole(self.record, json.dumps(known, indent=2) + "\n")
            except OSError as error:
                raise InputError(f"Cannot write to the run directory {self.path}: {error.strerror}.") from error
        return str(known["wandb_id"])

    def begin(
        self, resolved: str, fingerprint: str, data: Mapping[str, str], step: int, write: bool = True
    ) -> dict[str, Any]:
        """Write config.yaml and add a start to run.json; everything has been checked.

        Args:
            resolved: the whole configuration as YAML.
            fingerprint: the base's.
            data: SHA-256 of every split by ``task/split``.
            step: the optimiser step this start goes on from.
            write: whether this process writes; one of all ranks does.

        Returns:
            What run.json holds: wandb_id, fingerprint, data_sha256, and starts, each with commit, dirty,
            versions and step. The first start comes first, for as long as anything it trained is there.

        Raises:
            InputError: the directory cannot be written.
        """
        known, code = self.read(), revision()
        start = {"commit": code.commit, "dirty": code.dirty, "versions": versions(), "step": step}
        starts = [*(_starts(known) if self.started else []), start]
        record = {"wandb_id": known.get("wandb_id") or secrets.token_hex(4), "fingerprint": fingerprint}
        record |= {DATA: dict(data), "starts": starts}
        if write:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                write_whole(self.config, resolved)
                write_whole(self.record, json.dumps(record, indent=2) + "\n")
            except OSError as error:
                raise InputError(f"Cannot write to the run directory {self.path}: {error.strerror}.") from error
        return record

    def trained_by(self, step: int) -> dict[str, Any]:
        """Tell which code trained the weights of a step: commit, dirty and versions, for cards and results.

        Several commits are listed, oldest first, and count as dirty: no single commit makes the weights again.
        """
        starts = [start for start in _starts(self.read()) if start["step"] < step]
        commits = list(dict.fromkeys(start["commit"] for start in starts))
        return {
            "commit": ", ".join(commits),
            "dirty": len(commits) > 1 or any(start["dirty"] for start in starts),
            "versions": starts[-1]["versions"] if starts else {},
        }


def _starts(known: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The starts in a run.json; one from before they were listed tells of the latest only."""
    if "commit" in known:
        return [{key: known[key] for key in ("commit", "dirty", "versions")} | {"step": 0}]
    return list(known.get("starts", []))


def write_whole(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
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


def science(resolved: str) -> dict[str, str]:
    """What of a whole configuration, as YAML, must stay the same: flat names and texts."""
    return _science(yaml.safe_load(resolved))


def changed_keys(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Tell which of these settings differ, with both values; empty where none does."""
    changed = [key for key in sorted({**before, **now}) if before.get(key, ABSENT) != now.get(key, ABSENT)]
    # A setting that is offered since and was left null: a run from before it goes on.
    changed = [key for key in changed if {before.get(key, ABSENT), now.get(key, ABSENT)} != {ABSENT, repr(None)}]
    return ", ".join(f"{key} ({before.get(key, ABSENT)}, now {now.get(key, ABSENT)})" for key in changed)


def _science(config: Any) -> dict[str, str]:
    """What must stay the same, as text, under flat names: a mapping in a list's or number's place differs too."""
    return {key: repr(value) for key, value in _flat(config) if key.startswith(SCIENCE) and not key.startswith(FREE)}
