"""What a task is: something that reads source files into examples and rejects.

Knows nothing about any particular file, about Arrow tables or about models.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from instructedit.records import EditExample

SourceSplit = Literal["train", "test"]
"""What the public files tell apart; validation is cut from train by ``prepare``."""

Fault = Literal["malformed", "unusable", "probe"]
"""Malformed: the record breaks its format; these count towards ``prepare --max-rejects``. Unusable: well
formed, but no edit can be made or scored with it (it repeats another, its target is the old answer).
Probe: the record stays, one of its probes was left out."""


@dataclass(frozen=True)
class Reject:
    """A record, or one probe of it, that was set aside.

    Args:
        file: the source file, relative to the source folder where it lies below it.
        index: the record's position in that file, counted from 0.
        reason: one clause saying why; cards count rejects by it, so it holds no record's own text.
        fault: how bad it is, see `Fault`.
    """

    file: str
    index: int
    reason: str
    fault: Fault = "malformed"


@dataclass(frozen=True)
class SourceFile:
    """One file of a task's source under the names it goes by, the preferred one first.

    Args:
        candidates: paths relative to the source folder; the first that exists is the file.
        required: whether its absence is an error for who reads the split it belongs to.
    """

    candidates: tuple[str, ...]
    required: bool = True

    def find(self, source: Path) -> Path | None:
        """Return the first candidate below ``source`` or ``source/benchmark`` (the Hub's level), or None."""
        for candidate in self.candidates:
            for path in (source / candidate, source / "benchmark" / candidate):
                if path.is_file():
                    return path
        return None


class Task(Protocol):
    """A named source of editing examples.

    It may also have ``notes``, a tuple of sentences: what a reader of its data card must know about the records.
    """

    @property
    def name(self) -> str:
        """What ``--tasks`` calls it and what its prepared folder is called."""
        ...

    @property
    def family(self) -> str:
        """The kind of edits it holds (recent, counterfact, convsent, zsre, jsonl); it selects the metrics."""
        ...

    @property
    def licence(self) -> str:
        """The licence of the texts, for the data card."""
        ...

    def read(self, source: Path, split: SourceSplit) -> Iterator[EditExample | Reject]:
        """Yield the split's examples and what was set aside, in file order.

        A held-out task yields nothing for ``"train"``. The ids of a split's requests are unique.

        Raises:
            InputError: a file is missing or is not what its name promises.
        """
        ...


@runtime_checkable
class FileTask(Protocol):
    """What a task adds that reads files, so that ``prepare`` can fetch, hash and describe them."""

    @property
    def sources(self) -> Mapping[SourceSplit, tuple[SourceFile, ...]]:
        """The files behind each split."""
        ...
