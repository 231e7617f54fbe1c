"""The command ``evaluate``: every method's edits of the same records, in one table; resumable at any moment.

Knows the order of the work and what is told. What decides a number is `instructedit.evaluation.plan`, what lies on
disk `instructedit.evaluation.ledger`.
"""

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from instructedit.errors import InputError, unknown
from instructedit.evaluation.plan import MethodRow, Row, Settings, find_row, find_rows, make_rows
from instructedit.provenance import Revision, revision, versions

if TYPE_CHECKING:
    from instructedit.evaluation.ledger import Ledger, Portion
    from instructedit.evaluation.work import Work

Names = list[str] | str
"""A list, or names separated by commas."""


def evaluate(
    name: str = "evaluation",
    base: str = "",
    dtype: Literal["bfloat16", "float32"] = "float32",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    data: str = "data/prepared",
    tasks: Names = "",
    held_out: Names = "",
    records: int | None = None,
    max_probes: int | None = None,
    greedy: int = 0,
    fluency: dict[str, int] = {},  # noqa: B006 - never changed; shown in --help
    fluency_tokens: int = 100,
    methods: Sequence[MethodRow] = (),
    batch: int = 8,
    editing: Literal["alone", "together", "sequence"] = "alone",
    sizes: list[int] = [1, 10, 100],  # noqa: B006 - never changed; shown in --help
    instructions: str | None = None,
    seed: int = 0,
    out: str | None = None,
    paper: Literal["gpt2-xl", "llama-2-7b"] | None = None,
    against: str | None = None,
    only: Names = "",
    only_tasks: Names = "",
    only_table: bool = False,
    allow_dirty: bool = False,
    allow_partial: bool = False,
    explain: str | None = None,
) -> None:
    """Edit the same records with every method, ask the same probes, and write one table.

    Finished portions are kept in OUT at once: stopped in any way, the same command goes on where it was. Flags are the
    keys of a configuration: instructedit evaluate --config configs/evaluate/demo.yaml

    Args:
        name: names the results folder where out is not given.
        base: the base: a Hub id, a folder, an alias such as smollm2-135m.
        dtype: the base's dtype in memory.
        device: where the base is; auto takes a GPU where there is one.
        data: the folder of prepared tasks.
        tasks: the tasks, whose test records are asked; a list, or names separated by commas.
        held_out: those of the tasks that no editor was trained on; marked in the table.
        records: records a task, chosen by a hash of their ids; null for all.
        max_probes: the most probes of each kind a record is asked, chosen by hash; null for all there are.
        greedy: records a task whose questions are also answered by greedy generation, chosen by hash.
        fluency: records a task that are continued for fluency; the key others is for tasks that are not named.
        fluency_tokens: the length of such a continuation.
        methods: the methods, each with its row's name, editor, options, instructions and batch.
        batch: edits made at once.
        editing: each request by itself; or several in one base, together or one after another in a sequence.
        sizes: the numbers of edits in one base, a row each, where they are not alone.
        instructions: the instruction pools, a YAML file or a folder; null for those an editor was trained with, and
            the shipped ones for a method without an editor.
        seed: of the sampling for fluency.
        out: the results folder; null for evaluations/NAME.
        paper: whose published numbers stand beside ours.
        against: the row that every other is compared with, record by record.
        only: rows to make now, by name; the others are left for another time.
        only_tasks: tasks to make now.
        only_table: make the table of what is there; nothing is edited.
        allow_dirty: go on although the code differs from its commit; rows and tables are marked.
        allow_partial: make a table although rows are missing; it is marked.
        explain: print what a metric is and how it is computed, and stop.
    """
    if explain is not None:
        from instructedit.evaluation.definitions import explain as explained

        print(explained(explain))
        return
    settings = Settings(
        base=base,
        tasks=_names(tasks),
        methods=tuple(methods),
        held_out=_names(held_out),
        dtype=dtype,
        data=data,
        records=records,
        max_probes=max_probes,
        greedy=greedy,
        fluency=fluency,
        fluency_tokens=fluency_tokens,
        batch=batch,
        editing=editing,
        sizes=tuple(sizes),
        instructions=instructions,
        seed=seed,
    )
    rows = make_rows(settings)
    wanted = _wanted(settings, rows, _names(only), _names(only_tasks))
    compared = find_row(against, rows, "--against").name if against is not None else None
    folder = Path(out or f"evaluations/{name}")
    code = revision()

    # Everything heavy comes with these.
    from instructedit.base.loading import base_fingerprint
    from instructedit.evaluation.conclusion import conclude
    from instructedit.evaluation.ledger import Ledger
    from instructedit.evaluation.work import Work

    work = Work.of(settings, rows, base_fingerprint(base))
    with Ledger.opened(folder) as ledger:
        for row in rows:
            for task in settings.tasks:
                ledger.check(row.name, task, work.decided[row.name, task])
        missing = [p for p in _in_order(work) if p not in ledger.rows and (p.row, p.task) in wanted]
        if missing and not only_table:
            _refuse_dirty(code, allow_dirty)
            try:
                _make(work, ledger, missing, code, device)
            except KeyboardInterrupt:
                again = shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])
                print(f"Stopped. Nothing finished is lost; the same command goes on: {again}", file=sys.stderr)
                raise
        conclude(
            work,
            ledger,
            title=name,
            paper=paper,
            against=compared,
            must=only_table,
            allow_dirty=allow_dirty,
            allow_partial=allow_partial,
        )


def _names(given: Names) -> tuple[str, ...]:
    parts = given.split(",") if isinstance(given, str) else given
    return tuple(part.strip() for part in parts if part.strip())


def _wanted(
    settings: Settings, rows: Sequence[Row], only: Sequence[str], only_tasks: Sequence[str]
) -> set[tuple[str, str]]:
    """Return row and task of what is to be made now."""
    for task in only_tasks:
        if task not in settings.tasks:
            raise unknown("task in --only_tasks", task, settings.tasks)
    chosen = find_rows(_joined(only, rows), rows, "--only") if only else rows
    return {(row.name, task) for row in chosen for task in only_tasks or settings.tasks}


def _joined(only: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Put names together again that a comma inside them has cut, such as "MEND, 10 together"."""
    names, left = {row.name for row in rows}, list(only)
    found = []
    while left:
        pair = ", ".join(left[:2])
        size = 2 if pair in names else 1
        found.append(pair if size == 2 else left[0])
        del left[:size]
    return found


def _in_order(work: "Work") -> list["Portion"]:
    """Return all portions row by row, so that one method is worked with at a time."""
    return [portion for row in work.rows for task in work.settings.tasks for portion in work.portions(row, task)]


def _refuse_dirty(code: Revision, allowed: bool) -> None:
    if code.dirty and not allowed:
        raise InputError(
            f"The code differs from its commit {code.commit[:12]}, so nobody could make these rows again. Commit your "
            "changes, or mark rows and tables with --allow_dirty true."
        )


def _make(work: "Work", ledger: "Ledger", missing: Sequence["Portion"], code: Revision, device: str) -> None:
    """Load the base and make the missing portions."""
    import torch

    from instructedit.base.loading import load_base
    from instructedit.evaluation.progress import EditProgress
    from instructedit.evaluation.work import carry_out

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: there is no GPU here. Choose cpu or auto.")
    where = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    dtype: torch.dtype = getattr(torch, work.settings.dtype)
    base = load_base(work.settings.base, dtype, where)
    start: dict[str, Any] = {"commit": code.commit, "dirty": code.dirty, "versions": versions(), "device": where}
    start |= {"threads": torch.get_num_threads(), "edits": 0, "seconds": 0.0}
    starts = [*ledger.run.get("starts", []), start]
    seconds: dict[str, dict[str, float]] = ledger.run.get("seconds", {})
    decided: dict[str, dict[str, Any]] = ledger.run.get("settings", {})
    for (row, task), settings in work.decided.items():
        decided.setdefault(row, {})[task] = settings
    ledger.note({"base": work.settings.base, "settings": decided, "asked": dataclasses.asdict(work.settings)})
    everything = work.all_portions()
    done = [portion for portion in everything if portion in ledger.rows]
    with EditProgress(work.edits(done) + work.edits(missing), work.edits(done)) as progress:

        def finished(portion: "Portion", edits: int, took: float) -> None:
            own = seconds.setdefault(portion.row, {})
            own[portion.task] = round(own.get(portion.task, 0.0) + took, 3)
            start["edits"] += edits
            start["seconds"] = round(start["seconds"] + took, 3)
            ledger.note({"starts": starts, "seconds": seconds})
            progress.advance(portion.row, portion.task, edits)

        carry_out(work, ledger, base, missing, {"commit": code.commit, "dirty": code.dirty}, finished)
