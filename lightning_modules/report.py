"""The end of a run: the editor folder, the test table, and where everything lies.

Takes the best checkpoint where there is one, else the last.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from instructedit.checkpoints import EditorCard, read_card, save_editor
from instructedit.errors import InputError
from instructedit.evaluation.formats import to_rich
from instructedit.evaluation.progress import EditProgress
from instructedit.evaluation.report import numbers, write_tables
from instructedit.evaluation.runner import dress, evaluate
from instructedit.evaluation.sizes import VALIDATION_EDITS, EditSize, edit_sizes, size_quantiles
from instructedit.evaluation.tables import to_jsonl
from instructedit.methods.base import EditMethod
from instructedit.methods.hyper import HyperMethod
from instructedit.methods.none import NoEdit
from instructedit.records import EditExample, Outcome
from instructedit.runs.directory import DATA, RunDirectory, write_whole
from instructedit.terminal import quoted
from lightning_modules.callbacks.checkpoints import BEST, find_checkpoint, read_checkpoint
from lightning_modules.callbacks.validation import shared_outcomes, stop_if_asked, validation_examples
from lightning_modules.edit_datamodule import EditDataModule
from lightning_modules.editor_module import EditorModule

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Report:
    """What a run has come to.

    Args:
        editor: the exported editor's folder.
        card: what is written on it.
        outcomes: one per test record, row of the table and metric.
        step: the optimiser step of the checkpoint that was tested.
    """

    editor: Path
    card: EditorCard
    outcomes: Sequence[Outcome]
    step: int


def load_checkpoint(module: EditorModule, run: RunDirectory, path: str | None = None) -> int:
    """Put a checkpoint's hypernetwork into the module.

    The module's editor is then whole on this rank, whichever strategy trained it.

    Args:
        module: the module, built.
        run: the run's directory.
        path: a file, ``last`` or ``best``; None takes best where there is one that can be read, else last.

    Returns:
        The optimiser step it was saved at.

    Raises:
        InputError: there is none, or it cannot be read.
        MismatchError: it belongs to another base or other sites.
    """
    best = run.checkpoints / BEST
    if path not in (None, "last", "best"):
        file = Path(path)
    elif path == "best" or (path is None and _whole(best)):
        file = best
    else:
        found = find_checkpoint(run.checkpoints)
        if found is None:
            raise InputError(f"The run in {run.path} has no checkpoint. Train it first: instructedit fit.")
        file = found
    content = read_checkpoint(file, verify=True)
    module.check_checkpoint(content)
    module.start_over()
    module.load_state_dict(content["state_dict"])
    return int(content["global_step"])


def _whole(best: Path) -> bool:
    """Whether the best checkpoint is there and can be read; says so where it is and cannot."""
    if not best.exists():
        return False
    try:
        read_checkpoint(best, verify=True)
    except InputError as error:
        log.warning("%s Taking the last one in its place.", error)
        return False
    return True


def finish(
    module: EditorModule,
    data: EditDataModule,
    run: RunDirectory,
    step: int,
    rank: int = 0,
    world_size: int = 1,
    on_progress: Callable[[], None] | None = None,
) -> Report | None:
    """Export the editor, test it, write and print the table; ranks share the records, rank zero writes.

    Args:
        module: the module, with a checkpoint's weights.
        data: its records.
        run: where to.
        step: the checkpoint's.
        rank: this process's.
        world_size: how many there are.
        on_progress: called after each record that was asked.

    Returns:
        The same on rank zero, None on the others.

    Raises:
        Stopped: a signal came; the editor folder is there, the results are not.
    """
    if rank > 0:
        validation_sizes(module, data, rank, world_size, on_progress)
        test_outcomes(module, data, rank, world_size, on_progress)
        return None
    known = run.read()
    code = run.trained_by(step)
    parts: dict[str, Any] = {"tasks": data.tasks, "pools": data.pools, "data": known.get(DATA), "steps": step}
    # The code that trained, not what is checked out by now.
    card = replace(EditorCard.of(module.editor, module.stage.base, **parts), **code)
    usual = _usual(run.editor, step)
    save_editor(run.editor, module.editor, replace(card, results=usual))
    sizes = validation_sizes(module, data, rank, world_size, on_progress)
    outcomes = test_outcomes(module, data, rank, world_size, on_progress)
    stamp: dict[str, str | int | bool] = {"run": run.path.name, "step": step}
    stamp |= {"commit": code["commit"], "dirty": code["dirty"]}
    to_jsonl(run.results / "test.jsonl", outcomes, stamp)
    tables = write_tables(run.results, outcomes, stamp=stamp, held_out=data.held_out)
    results = {**stamp, **numbers(tables)}
    write_whole(run.results / "test.json", json.dumps(results, indent=2) + "\n")
    # What `instructedit edit` holds an edit against, to warn of one that is far outside.
    card = replace(card, results=results | ({VALIDATION_EDITS: size_quantiles(sizes)} if sizes else usual))
    save_editor(run.editor, module.editor, card)
    console = table_console()
    console.print(to_rich(replace(tables[0], title=f"{run.path.name}, step {step}: test")))
    lies = {
        "editor": run.editor,
        "table (also exact match, and what Base gets wrong)": run.results / "table.md",
        "numbers per record": run.results / "test.jsonl",
        "training metrics": run.metrics,
        "checkpoints": run.checkpoints,
        "configuration": run.config,
        "edit a fact with it": f"instructedit edit --editor {quoted(str(run.editor))} --prompt TEXT --target TEXT",
    }
    width = max(map(len, lies))
    console.print("\n".join(f"{name:<{width}}  {told}" for name, told in lies.items()), soft_wrap=True, highlight=False)
    return Report(run.editor, card, outcomes, step)


def _usual(editor: Path, step: int) -> dict[str, Any]:
    """What an exported editor's card says of its validation edits, if it is of this step."""
    try:
        known = read_card(editor)
    except InputError:
        return {}
    found = known.results.get(VALIDATION_EDITS) if known.steps == step else None
    return {VALIDATION_EDITS: found} if found else {}


def validation_sizes(
    module: EditorModule,
    data: EditDataModule,
    rank: int = 0,
    world_size: int = 1,
    on_progress: Callable[[], None] | None = None,
) -> list[EditSize]:
    """Say how large the editor's edits of the validation records are; ranks share them and all get all.

    None where the data has no validation records: a table needs the test records alone.

    Raises:
        Stopped: a signal came on any rank.
    """
    try:
        examples = [example for found in validation_examples(data).values() for example in found]
    except InputError as error:
        log.warning("What is usual for the editor's edits is not measured for its card. %s", error)
        return []
    stage = module.evaluation_stage
    editor = HyperMethod(module.editor, stage, module.method, data.pools)
    place, parts = (0, 1) if module.placed.in_step else (rank, world_size)
    mine = examples[place::parts]

    def measure() -> list[EditSize]:
        with _watched(module, "validation", len(mine), rank, on_progress) as advance:
            return edit_sizes(editor, stage, mine, data.eval_batch, advance)

    return shared_outcomes(measure, parts)


def test_outcomes(
    module: EditorModule,
    data: EditDataModule,
    rank: int = 0,
    world_size: int = 1,
    on_progress: Callable[[], None] | None = None,
) -> list[Outcome]:
    """Ask every test record of Base and of the editor, with seen and with unseen instructions where it takes any.

    Every rank asks its share; all of them get all outcomes, in the same order on any number of ranks.

    Raises:
        Stopped: a signal came on any rank.
    """
    examples = [example for found in data.test().values() for example in found]
    stage = module.evaluation_stage
    editor = HyperMethod(module.editor, stage, module.method, data.pools)
    rows: list[tuple[str, EditMethod, list[EditExample]]] = [("Base", NoEdit(), examples)]
    if data.pools is None:
        rows.append((module.method, editor, examples))
    else:
        rows.append((f"{module.method} (seen)", editor, dress(examples, data.pools, "seen")))
        rows.append((f"{module.method} (unseen)", editor, dress(examples, data.pools, "unseen")))

    place, parts = (0, 1) if module.placed.in_step else (rank, world_size)

    def measure() -> list[Outcome]:
        outcomes: list[Outcome] = []
        with _watched(module, "test", len(rows) * len(examples[place::parts]), rank, on_progress) as advance:
            for name, method, asked in rows:
                mine = asked[place::parts]
                outcomes += evaluate(method, stage, mine, name=name, batch=data.eval_batch, on_progress=advance)
        return outcomes

    outcomes = shared_outcomes(measure, parts)
    names = {name: place for place, (name, _, _) in enumerate(rows)}
    records = {(example.request.task, example.request.id): place for place, example in enumerate(examples)}
    # Sorting keeps the order of one record's outcomes.
    return sorted(outcomes, key=lambda outcome: (names[outcome.method], records[outcome.task, outcome.id]))


@contextmanager
def _watched(
    module: EditorModule, title: str, total: int, rank: int, on_progress: Callable[[], None] | None
) -> Iterator[Callable[[int], None]]:
    """Show how far a measurement is; what is yielded is told of each part of it, and stops it where a signal came."""
    progress = EditProgress(total, unit="records") if rank == 0 else None
    with progress or nullcontext():

        def advance(n: int) -> None:
            stop_if_asked(module)
            if progress:
                progress.advance(title, module.method, n)
            if on_progress:
                on_progress()

        yield advance


def table_console() -> Console:
    """A console wide enough for a table where it is written to a file or a pipe."""
    console = Console()
    return console if console.is_terminal else Console(width=110)
