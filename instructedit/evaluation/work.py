"""Carries an evaluation out: what is asked is gathered and checked, then every portion that is missing is made.

Everything is looked at before the first edit. Knows settings, methods and a ledger; nothing about flags or tables.
"""

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from instructedit.base.model import Base
from instructedit.checkpoints import WEIGHTS, read_card
from instructedit.errors import InputError, MismatchError
from instructedit.evaluation.generated import BeforeCache, Generated, GeneratedText, check_room
from instructedit.evaluation.ledger import Ledger, Portion
from instructedit.evaluation.metrics import METRICS
from instructedit.evaluation.plan import MethodRow, Row, Settings, row_settings, settings_hash
from instructedit.evaluation.questions import questions_of
from instructedit.evaluation.runner import dress, evaluate
from instructedit.evaluation.selection import Selection, check_sizes, select
from instructedit.instructions.controls import FILLER, Which
from instructedit.instructions.pools import DEFAULT_POOLS, InstructionPool, load_pools, pool_for
from instructedit.metatrain import Stage
from instructedit.methods import build_method
from instructedit.methods.base import EditMethod
from instructedit.methods.hyper import HyperMethod
from instructedit.records import EditExample

Pools = Mapping[str, InstructionPool]


@dataclass(frozen=True)
class Work:
    """An evaluation, ready to be carried out; make one with ``Work.of``.

    Args:
        settings: what was asked for.
        rows: the rows of the table.
        selections: by task, the records asked.
        pools: by row, its instruction pools, where an instruction or a control is made of them.
        decided: by row and task, everything that decides the numbers.
    """

    settings: Settings
    rows: tuple[Row, ...]
    selections: Mapping[str, Selection]
    pools: Mapping[str, Pools]
    decided: Mapping[tuple[str, str], Mapping[str, Any]]

    @classmethod
    def of(cls, settings: Settings, rows: Sequence[Row], fingerprint: str) -> "Work":
        """Read records, pools and editor cards.

        Args:
            settings: what is asked for.
            rows: the rows of the table.
            fingerprint: the base's.

        Raises:
            InputError: a file is missing or malformed, a task has no pool, sizes do not divide the records, an editor
                was trained on a task that is held out.
            MismatchError: an editor was trained on another base.
        """
        selections = {task: select(settings, task) for task in settings.tasks}
        for selection in selections.values():
            check_sizes(rows, selection)
        pools = {row.name: _pools(row, settings) for row in rows if row.which not in (None, "empty")}
        editors = {
            row.source.editor: _weights(row.source, fingerprint, settings.held_out) for row in rows if row.source.editor
        }
        decided = {}
        for row in rows:
            for task, selection in selections.items():
                decided[row.name, task] = row_settings(
                    row,
                    settings,
                    fingerprint=fingerprint,
                    data=selection.sha256,
                    greedy=len(selection.greedy),
                    fluency=len(selection.fluency),
                    editor=editors[row.source.editor] if row.source.editor else None,
                    pool=pool_hash(row.which, pools.get(row.name), task),
                )
        return cls(settings, tuple(rows), selections, pools, decided)

    def portions(self, row: Row, task: str) -> list[Portion]:
        """Return a row's portions of one task, in order."""
        return [Portion(row.name, task, number) for number in range(len(self.selections[task].chunks(row)))]

    def all_portions(self) -> list[Portion]:
        """Return everything, task by task as a table has it."""
        return [portion for task in self.settings.tasks for row in self.rows for portion in self.portions(row, task)]

    def dressed(self, row: Row, examples: Sequence[EditExample]) -> list[EditExample]:
        """Put a row's instructions into examples."""
        return dress(examples, self.pools.get(row.name), row.which)

    def edits(self, portions: Sequence[Portion]) -> int:
        """Count the records of portions: each is one edit."""
        chunks = {row.name: {task: s.chunks(row) for task, s in self.selections.items()} for row in self.rows}
        return sum(len(chunks[portion.row][portion.task][portion.chunk]) for portion in portions)

    def generated(self, task: str) -> Generated:
        """Return what is generated on a task."""
        chosen = self.selections[task]
        return Generated(
            chosen.greedy, chosen.fluency, fluency_tokens=self.settings.fluency_tokens, seed=self.settings.seed
        )


def carry_out(
    work: Work,
    ledger: Ledger,
    base: Base,
    missing: Sequence[Portion],
    stamp: Mapping[str, Any],
    on_portion: Callable[[Portion, int, float], None],
) -> None:
    """Make portions and add each to the ledger as it is finished.

    Args:
        work: the evaluation.
        ledger: where they go.
        base: the base.
        missing: the portions to make.
        stamp: fields that every row gets besides base, data and config.
        on_portion: called after each with its number of edits and the seconds it took.

    Raises:
        InputError: a method cannot be built or a text is too long, both before the first edit.
    """
    rows = [row for row in work.rows if any(portion.row == row.name for portion in missing)]
    methods = _build(rows, base)
    _check_texts(work, rows, base, missing)
    before = BeforeCache()
    for number, row in enumerate(rows):
        method, stage = methods[id(row.source)]
        if row.which == "empty" and isinstance(method, HyperMethod):
            method = method.bare()
        for portion in (portion for portion in missing if portion.row == row.name):
            start = time.perf_counter()
            selection = work.selections[portion.task]
            examples = work.dressed(row, selection.chunks(row)[portion.chunk])
            texts: list[GeneratedText] = []
            outcomes = evaluate(
                method,
                stage,
                examples,
                name=row.name,
                batch=len(examples),
                generated=work.generated(portion.task),
                editing=row.editing,
                before=before,
                on_text=texts.append,
            )
            decided = work.decided[row.name, portion.task]
            own = {"base": base.fingerprint[:16], "data": selection.sha256[:16], "config": settings_hash(decided)}
            ledger.append(portion, outcomes, {**own, **stamp}, [asdict(text) for text in texts])
            on_portion(portion, len(examples), time.perf_counter() - start)
        if all(row.source is not later.source for later in rows[number + 1 :]):
            # Its editor would stay in memory until the end.
            del method, methods[id(row.source)]


def _build(rows: Sequence[Row], base: Base) -> dict[int, tuple[EditMethod, Stage]]:
    methods: dict[int, tuple[EditMethod, Stage]] = {}
    for row in rows:
        source = row.source
        if id(source) not in methods:
            method = build_method(source.method, base, source.label, source.options, source.editor)
            methods[id(source)] = method, method.stage_for(base)
    return methods


def _check_texts(work: Work, rows: Sequence[Row], base: Base, missing: Sequence[Portion]) -> None:
    """Tokenise every text of rows that have something missing, each dressing once."""
    seen: set[tuple[object, ...]] = set()
    for row in rows:
        for task, selection in work.selections.items():
            key = (task, row.which, work.decided[row.name, task]["pool"])
            if key in seen or not any((portion.row, portion.task) == (row.name, task) for portion in missing):
                continue
            seen.add(key)
            for example in work.dressed(row, selection.examples):
                questions = list(questions_of(base, example, METRICS))
                check_room(base, example.request, questions, work.generated(task))


def _pools(row: Row, settings: Settings) -> Pools:
    """Return the pools of a row's instructions: those asked for, else its editor's own, else the shipped ones."""
    if settings.instructions is None and row.source.editor is not None:
        own = read_card(Path(row.source.editor)).pools
        if own is not None:
            return own
    return load_pools(settings.instructions or DEFAULT_POOLS)


def pool_hash(which: Which | None, pools: Pools | None, task: str) -> str | None:
    """Hash everything the texts in front of a task's inputs are made of, apart from the records; None for nothing."""
    if pools is None:
        return None
    own = asdict(pool_for(pools, task))
    if which == "wrong":
        return settings_hash([own, {name: asdict(pool) for name, pool in pools.items()}])
    return settings_hash([own, FILLER] if which == "filler" else own)


def _weights(source: MethodRow, fingerprint: str, held_out: Sequence[str]) -> str:
    """Return the SHA-256 of an editor's weights; an editor of another base is refused before a base is loaded.

    So is one that was trained on a task the table calls held out.
    """
    folder = Path(source.editor or "")
    card = read_card(folder)
    if card.fingerprint != fingerprint:
        raise MismatchError(
            f"{source.label}: the editor in {folder} was trained on base {card.base!r} (fingerprint "
            f"{card.fingerprint[:12]}), and this is base {fingerprint[:12]}. Name an editor of this base."
        )
    known = [task for task in held_out if task in card.tasks]
    if known:
        raise InputError(
            f"{source.label}: held_out names {', '.join(known)}, but the editor in {folder} was trained on it. Take "
            "it out of held_out, or name an editor that was trained without it."
        )
    try:
        with (folder / WEIGHTS).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]
    except OSError as error:
        raise InputError(f"Cannot read {folder / WEIGHTS}: {error.strerror}. Export the editor again.") from error
