"""The results of an evaluation on disk, a portion at a time, so that a kill at any moment loses one portion at most.

``rows.jsonl`` holds numbers and ids, one line an outcome. ``texts.jsonl`` holds generated and source texts: it is
for looking at on this machine and never to be committed or passed on, as the source's licence may not allow it.
``run.json`` says how the rows were made and what they took. Knows outcomes; nothing about how they are measured.
"""

import json
import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from instructedit.errors import InputError
from instructedit.evaluation.plan import settings_hash
from instructedit.json_lines import add, as_lines, read_lines, replace
from instructedit.records import Outcome

ROWS, TEXTS, RUN, LOCK = "rows.jsonl", "texts.jsonl", "run.json", ".lock"

OUTCOME_FIELDS = tuple(field.name for field in fields(Outcome))

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Portion:
    """One portion of the work: a chunk of one row's records of one task."""

    row: str
    task: str
    chunk: int


class Ledger:
    """The results folder of one evaluation; open it with ``opened``.

    Attributes:
        rows: every line of ``rows.jsonl`` whose portion is complete, as plain data, by portion.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.rows: dict[Portion, list[dict[str, Any]]] = {}
        self._run: dict[str, Any] = {}

    @classmethod
    @contextmanager
    def opened(cls, folder: Path) -> Iterator["Ledger"]:
        """Open a results folder for this process alone, dropping what a killed one left incomplete.

        Raises:
            InputError: another process writes there, or the folder cannot be written.
        """
        folder = Path(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = FileLock(folder / LOCK)
            lock.acquire(timeout=0)
        except Timeout as error:
            raise InputError(
                f"Another evaluation is writing to {folder}. Wait for it, or choose another --out."
            ) from error
        except OSError as error:
            raise InputError(f"Cannot write to {folder}: {error.strerror}. Choose another --out.") from error
        try:
            ignored = folder / ".gitignore"
            if not ignored.exists():
                ignored.write_text(f"{TEXTS}\n{LOCK}\n")
            ledger = cls(folder)
            ledger._recover()
            yield ledger
        finally:
            lock.release()

    @property
    def run(self) -> Mapping[str, Any]:
        """What ``run.json`` holds; empty before the first portion."""
        return self._run

    def outcomes(self, portions: Iterable[Portion]) -> list[Outcome]:
        """Return the outcomes of portions that are there, in their order."""
        found = [row for portion in portions for row in self.rows.get(portion, ())]
        return [Outcome(**{name: row[name] for name in OUTCOME_FIELDS}) for row in found]

    def check(self, row: str, task: str, settings: Mapping[str, Any]) -> None:
        """Refuse rows that were made with other settings than the present ones.

        Raises:
            InputError: names the settings that differ.
        """
        wanted = settings_hash(settings)
        own = [lines for portion, lines in self.rows.items() if (portion.row, portion.task) == (row, task)]
        if all(line["config"] == wanted for lines in own for line in lines):
            return
        before = self._run.get("settings", {}).get(row, {}).get(task, {})
        differ = [
            f"{key} ({_short(before.get(key))}, now {_short(settings.get(key))})"
            for key in sorted({*before, *settings})
            if before.get(key) != json.loads(json.dumps(settings.get(key), default=str))
        ]
        raise InputError(
            f"The results in {self.folder} were made with other settings for {row} on {task}: "
            f"{', '.join(differ) or 'which ones is not known'}. Choose another --out, or delete {self.folder / ROWS}."
        )

    def append(
        self,
        portion: Portion,
        outcomes: Sequence[Outcome],
        stamp: Mapping[str, Any],
        texts: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Add a portion that is finished: its texts first, then its rows in one write, so that these settle it.

        Args:
            portion: which.
            outcomes: of all its records.
            stamp: fields that every row gets besides.
            texts: lines of ``texts.jsonl``.
        """
        place = {"row": portion.row, "task": portion.task, "chunk": portion.chunk}
        add(self.folder / TEXTS, as_lines({**text, **place} for text in texts))
        end = {"chunk": portion.chunk, "chunk_rows": len(outcomes)}
        rows = [{**asdict(outcome), **stamp, **end} for outcome in outcomes]
        add(self.folder / ROWS, as_lines(rows))
        self.rows[portion] = rows

    def note(self, changes: Mapping[str, Any]) -> None:
        """Replace entries of ``run.json``, whole or not at all."""
        self._run |= changes
        replace(self.folder / RUN, (json.dumps(self._run, indent=2, default=str) + "\n").encode())

    def _recover(self) -> None:
        try:
            self._run = json.loads((self.folder / RUN).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            self._run = {}
        found, damaged = read_lines(self.folder / ROWS)
        portions: defaultdict[Portion, list[dict[str, Any]]] = defaultdict(list)
        for row in found:
            if {*OUTCOME_FIELDS, "chunk", "chunk_rows", "config"} <= row.keys():
                portions[Portion(row["method"], row["task"], row["chunk"])].append(row)
        self.rows = {portion: rows for portion, rows in portions.items() if len(rows) == rows[0]["chunk_rows"]}
        kept = [row for rows in self.rows.values() for row in rows]
        if damaged or len(kept) < len(found):
            log.warning("%s: a stopped process left %d rows incomplete; dropped.", self.folder, len(found) - len(kept))
            replace(self.folder / ROWS, as_lines(kept))
        texts, damaged = read_lines(self.folder / TEXTS)
        whole = [t for t in texts if Portion(t.get("row", ""), t.get("task", ""), t.get("chunk", -1)) in self.rows]
        if damaged or len(whole) < len(texts):
            replace(self.folder / TEXTS, as_lines(whole))


def _short(value: Any) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= 40 else text[:37] + "..."
