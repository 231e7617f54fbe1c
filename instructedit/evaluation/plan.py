"""The plan of an evaluation: which rows its table has, what decides their numbers, and in which portions they are made.

Settings come in as they were written; nothing is loaded here. Knows nothing about models, files of results or tables.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from instructedit.errors import InputError, unknown
from instructedit.instructions.controls import WHICH, Which
from instructedit.methods import METHODS, TRAINED, check_editor, check_options
from instructedit.tasks import TASKS

Editing = Literal["alone", "together", "sequence"]
OTHERS = "others"
"""The key of ``fluency`` for every task that is not named."""

NAMES = {"none": "Base", "ft-l": "FT-L", "calinet": "CaliNet", "grace": "GRACE", **TRAINED}
"""The row of a method that is given no name."""


@dataclass(frozen=True)
class MethodRow:
    """One method of an evaluation.

    Args:
        method: none, ft-l, calinet, grace, ke, mend, instructedit, or package.module:Class of your own.
        name: the row of the table; the method's usual name where there is none.
        editor: the folder of a trained editor, for ke, mend and instructedit.
        options: the method's own settings.
        instructions: seen, unseen and the controls wrong, shuffled, filler and empty, a row each; null for none, but
            for instructedit, which then has seen and unseen.
        batch: edits made at once; null for the evaluation's.
    """

    method: str
    name: str | None = None
    editor: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    instructions: list[Which] | None = None
    batch: int | None = None

    @property
    def label(self) -> str:
        """The name of its rows, before instructions and sizes are added."""
        return self.name or NAMES.get(self.method) or self.method.rpartition(":")[2]

    @property
    def asked_with(self) -> tuple[Which | None, ...]:
        """The instructions of its rows."""
        if self.instructions is None:
            return ("seen", "unseen") if self.method == "instructedit" else (None,)
        return tuple(self.instructions) or (None,)


@dataclass(frozen=True)
class Row:
    """One row of the table, for every task.

    Args:
        name: what the table calls it.
        source: the method behind it; several rows may share one.
        which: the instruction in front of its inputs.
        editing: how a chunk's requests are edited in.
        chunk: records in one portion: edits made at once or, where they are not alone, that share a base.
        options: the method's settings, defaults included where they are known.
    """

    name: str
    source: MethodRow
    which: Which | None
    editing: Editing
    chunk: int
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Settings:
    """What an evaluation asks; the flags of ``instructedit evaluate`` of the same names say more.

    Raises:
        InputError: a value is out of range, a row exists twice, a method or an option does not exist.
    """

    base: str
    tasks: tuple[str, ...]
    methods: tuple[MethodRow, ...]
    held_out: tuple[str, ...] = ()
    dtype: str = "float32"
    data: str = "data/prepared"
    records: int | None = None
    max_probes: int | None = None
    greedy: int = 0
    fluency: Mapping[str, int] = field(default_factory=dict)
    fluency_tokens: int = 100
    batch: int = 8
    editing: Editing = "alone"
    sizes: tuple[int, ...] = (1, 10, 100)
    instructions: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        advice = "Write it in the configuration (see configs/evaluate) or as a flag."
        for name, value in (("base", self.base), ("tasks", self.tasks), ("methods", self.methods)):
            if not value:
                raise InputError(f"The evaluation has no {name}. {advice}")
        for name, names in (("tasks", self.tasks), ("sizes", self.sizes)):
            if len(set(names)) != len(names):
                raise InputError(f"{name} names something twice: {', '.join(map(str, names))}. Name each once.")
        for task in self.held_out:
            if task not in self.tasks:
                raise unknown("held_out task", task, self.tasks, "held_out marks tasks of the list tasks.")
        for task in self.fluency:
            # A configuration's fluency stays as it is where a flag takes fewer tasks.
            if task not in (*self.tasks, *TASKS, OTHERS):
                raise unknown("task in fluency", task, {*self.tasks, *TASKS, OTHERS})
        self._check_numbers()

    def _check_numbers(self) -> None:
        least_1: dict[str, int | None] = {
            "records": self.records,
            "max_probes": self.max_probes,
            "batch": self.batch,
            "fluency_tokens": self.fluency_tokens,
            **{f"batch of {row.label}": row.batch for row in self.methods},
            **{f"sizes ({size})": size for size in self.sizes},
        }
        least_0 = {"greedy": self.greedy, **{f"fluency of {task}": n for task, n in self.fluency.items()}}
        for least, counts in ((1, least_1), (0, least_0)):
            for name, count in counts.items():
                if count is not None and count < least:
                    raise InputError(f"{name} is {count}. Set it to {least} or more.")
        if self.editing != "alone" and not self.sizes:
            raise InputError(
                f"editing is {self.editing} but sizes is empty. Give the numbers of edits, such as [1, 10]."
            )

    def fluency_of(self, task: str) -> int:
        """Return how many records of a task are continued for fluency."""
        return self.fluency.get(task, self.fluency.get(OTHERS, 0))


def make_rows(settings: Settings) -> list[Row]:
    """Return the table's rows in order; every method, option and editor folder has been looked at.

    Raises:
        InputError: something about a method is wrong, or two rows have one name.
    """
    rows: list[Row] = []
    for source in settings.methods:
        check_editor(source.method, source.editor)
        options = check_options(source.method, source.options)
        if source.method == "instructedit" and None in source.asked_with:
            raise InputError(
                f"{source.label} needs instructions: one or more of {', '.join(WHICH)}. "
                "Leave the key out for seen and unseen."
            )
        for which in source.asked_with:
            name = source.label if which is None else f"{source.label} ({which})"
            if settings.editing == "alone" or source.method == "none":
                # Nothing is edited in, so there is nothing to be many of.
                rows.append(Row(name, source, which, "alone", source.batch or settings.batch, options))
                continue
            how = "together" if settings.editing == "together" else "in sequence"
            for size in settings.sizes:
                rows.append(Row(f"{name}, {size} {how}", source, which, settings.editing, size, options))
    names = [row.name for row in rows]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"Two rows are called {twice!r}. Give one of the methods another name.")
    return rows


def find_row(wanted: str, rows: Sequence[Row], flag: str) -> Row:
    """Find a row by its name, capitals aside, or by its method's name where that names one row.

    Raises:
        InputError: there is none.
    """
    exact = [row for row in rows if row.name == wanted]
    folded = [row for row in rows if wanted.casefold() in (row.name.casefold(), row.source.method.casefold())]
    found = exact or folded
    if len(found) != 1:
        raise unknown(f"row in {flag}", wanted, [row.name for row in rows])
    return found[0]


def find_rows(wanted: Iterable[str], rows: Sequence[Row], flag: str) -> list[Row]:
    """Find several rows; the label of a method stands for all its rows.

    Raises:
        InputError: a name belongs to no row.
    """
    found: list[Row] = []
    for name in wanted:
        own = [row for row in rows if name.casefold() == row.source.label.casefold()]
        found += own or [find_row(name, rows, flag)]
    return [row for row in rows if row in found]


def row_settings(
    row: Row,
    settings: Settings,
    *,
    fingerprint: str,
    data: str,
    greedy: int,
    fluency: int,
    editor: str | None,
    pool: str | None,
) -> dict[str, Any]:
    """Return everything that decides a row's numbers on one task, as JSON values; see ``settings_hash``.

    Args:
        row: the row.
        settings: the evaluation's settings.
        fingerprint: the base's.
        data: hash of the records and probes asked.
        greedy: records that are generated greedily.
        fluency: records that are continued for fluency.
        editor: SHA-256 of the editor's weights.
        pool: hash of the task's instruction pool.
    """
    return {
        "method": METHODS.get(row.source.method, row.source.method),
        "options": dict(row.options),
        "editor": editor,
        "instructions": row.which,
        "pool": pool,
        "base": fingerprint,
        "dtype": settings.dtype,
        "data": data,
        "greedy": greedy,
        "fluency": fluency,
        "fluency_tokens": settings.fluency_tokens if fluency else None,
        "seed": settings.seed if fluency else None,
        "editing": row.editing,
        "chunk": row.chunk,
    }


def settings_hash(content: Any) -> str:
    """Hash JSON values to 16 hex digits, whatever the order of their keys."""
    text = json.dumps(content, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
