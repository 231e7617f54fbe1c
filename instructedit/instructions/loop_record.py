"""The run directory of a loop: every ask, answer, rejection, trial and round as one JSON line, kept at once.

A loop that is started again reads its lines instead of asking and training again, so that it comes to the same
place whenever it was killed. Knows lines and settings; nothing of what a loop does with them.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from instructedit.errors import InputError, MismatchError
from instructedit.json_lines import add, as_lines, read_lines, replace
from instructedit.provenance import revision, versions
from instructedit.runs.directory import changed_keys

EVENTS, RUN, LOCK = "events.jsonl", "run.json", ".lock"

log = logging.getLogger(__name__)


class LoopRecord:
    """One loop's lines; open it with ``opened``.

    A line has a ``kind`` (ask, failure, screened, trial, round, end), the numbers that place it, and when it was made.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._lines: list[dict[str, Any]] = []

    @classmethod
    @contextmanager
    def opened(cls, folder: Path, settings: Mapping[str, Any]) -> Iterator["LoopRecord"]:
        """Open a run directory for this process alone, dropping a line that a killed one left incomplete.

        Args:
            folder: the directory; made where it is not there.
            settings: what a loop that goes on must have in common with the one that began.

        Raises:
            MismatchError: the directory holds a loop of other settings; names them.
            InputError: another process works there, or it cannot be written.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / LOCK)
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(f"Another process works in {folder}. Wait for it, or choose another --out.") from error
        except OSError as error:
            raise InputError(f"Cannot write to {folder}: {error.strerror}. Choose another --out.") from error
        try:
            record = cls(folder)
            record._begin({name: json.dumps(value, sort_keys=True) for name, value in settings.items()})
            yield record
        finally:
            lock.release()

    @property
    def lines(self) -> tuple[dict[str, Any], ...]:
        """Every line, oldest first."""
        return tuple(self._lines)

    def find(self, kind: str, **place: Any) -> dict[str, Any] | None:
        """Return the line of a kind at a place, such as ``round=1, ask=2``; None where there is none."""
        for line in self._lines:
            if line["kind"] == kind and all(line.get(name) == value for name, value in place.items()):
                return line
        return None

    def all(self, kind: str, **place: Any) -> list[dict[str, Any]]:
        """Return all lines of a kind at a place."""
        return [
            line
            for line in self._lines
            if line["kind"] == kind and all(line.get(name) == value for name, value in place.items())
        ]

    def keep(self, kind: str, **content: Any) -> dict[str, Any]:
        """Add a line; it is on disk when this returns."""
        line = {"kind": kind, **content, "at": now()}
        try:
            add(self.folder / EVENTS, as_lines([line]))
        except OSError as error:
            raise InputError(
                f"Cannot write to {self.folder}: {error.strerror}. Mend that; the same command then goes on."
            ) from error
        self._lines.append(line)
        return line

    def keep_once(self, kind: str, place: Mapping[str, Any], **content: Any) -> None:
        """Add a line where its place has none yet: what follows from other lines is not written twice."""
        if self.find(kind, **place) is None:
            self.keep(kind, **place, **content)

    @property
    def run(self) -> dict[str, Any]:
        """What run.json holds: settings and starts."""
        try:
            content: dict[str, Any] = json.loads((self.folder / RUN).read_text(encoding="utf-8"))
            return content
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise InputError(f"{self.folder / RUN} is not JSON ({error}). Choose another --out.") from error

    def _begin(self, settings: Mapping[str, str]) -> None:
        self._lines, damaged = read_lines(self.folder / EVENTS)
        if damaged:
            log.warning("%s: a killed process left a line incomplete; dropped.", self.folder / EVENTS)
            replace(self.folder / EVENTS, as_lines(self._lines))
        known = self.run
        if self._lines and (told := changed_keys(known.get("settings", {}), settings)):
            raise MismatchError(
                f"The loop in {self.folder} was begun with other settings: {told}. Choose another --out, or go on with "
                "the old ones."
            )
        code = revision()
        start = {"at": now(), "commit": code.commit, "dirty": code.dirty, "versions": versions()}
        content = {"settings": dict(settings), "starts": [*(known.get("starts", []) if self._lines else []), start]}
        replace(self.folder / RUN, (json.dumps(content, indent=2) + "\n").encode())


def now() -> str:
    """The time, UTC, ISO 8601 to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")
