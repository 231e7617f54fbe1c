"""The command ``prepare``: from public files or a user's own to prepared tasks on disk.

Knows the order of the work. What a record means, the tasks know; what lies on disk, `instructedit.tasks.prepared`.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from instructedit.errors import InputError
from instructedit.records import EditExample
from instructedit.tasks import load_task
from instructedit.tasks.base import FileTask, Reject, SourceSplit, Task
from instructedit.tasks.card import card_text, make_card
from instructedit.tasks.convsent import ConvSent
from instructedit.tasks.hub import fetch
from instructedit.tasks.jsonl import Jsonl
from instructedit.tasks.prepared import SPLITS, stage_prepared, swap_prepared
from instructedit.tasks.separation import Separated, cut_validation, keep_apart, limit_probes
from instructedit.tasks.zsre import ZsRE

Read = dict[SourceSplit, list[EditExample | Reject]]
SHOWN_REJECTS = 3
OWN_OPTIONS = ("completions", "extra", "test_share")


def prepare(
    source: str = "hub",
    out: str = "data/prepared",
    tasks: str = "recent,counterfact,convsent,zsre",
    max_rejects: float = 0.01,
    validation: float = 0.1,
    max_probes: int = 4,
    completions: int = 2,
    zsre_all: bool = False,
    test_share: float = 0.2,
) -> None:
    """Read, check and store the tasks' records, with a data card and a file of rejects beside each.

    Each task becomes OUT/TASK/{train,validation,test}, card.json, card.md and rejects.jsonl. Tasks that are used
    together are best prepared together: texts that score one of them are kept out of the training of all. They take
    the places of an earlier call's together, when all are complete.

    Args:
        source: the folder of KnowEdit's files, or "hub" ("hub:OWNER/NAME") to download just the files needed. Not used
            by the demo tasks and by jsonl tasks.
        out: the folder of prepared tasks; a task's folder of an earlier call is replaced.
        tasks: the tasks' names, separated by commas; jsonl:NAME=FILE.jsonl for a file of your own.
        max_rejects: the share of malformed records of a task above which nothing is written.
        validation: the share of training records that becomes validation, by a stable hash.
        max_probes: the most probes of each kind a record keeps, chosen by a stable hash.
        completions: the target texts of one convsent request.
        zsre_all: add the records of ZsRE-test-all.json to zsre's test set.
        test_share: the share of a jsonl task's lines without a split of their own that is tested, by a stable hash.
    """
    _check(max_rejects, validation, max_probes, completions, test_share)
    loaded = [_with_options(load_task(name), completions, zsre_all, test_share) for name in _names(tasks)]
    for number, task in enumerate(loaded):
        if task.name in [other.name for other in loaded[:number]]:
            raise InputError(f"Task {task.name!r} is named twice in --tasks {tasks}.")
    folder = _source_folder(source, loaded)
    target = Path(out)

    rejects: dict[str, list[Reject]] = {}
    separated: dict[str, Separated] = {}
    for task in _progress(loaded):
        read: Read = {split: list(task.read(folder, split)) for split in ("train", "test")}
        rejects[task.name] = [item for items in read.values() for item in items if isinstance(item, Reject)]
        examples = {
            split: [limit_probes(item, max_probes) for item in items if isinstance(item, EditExample)]
            for split, items in read.items()
        }
        _refuse_bad_source(task, examples["train"] + examples["test"], rejects[task.name], max_rejects, target)
        separated[task.name] = cut_validation(examples["train"], examples["test"], validation)
    keep_apart(separated)

    options = {
        "validation": validation,
        "max_probes": max_probes,
        "prepared_together": sorted(separated),
    }
    cards: list[dict[str, Any]] = []
    for task in loaded:
        own = options | {name: getattr(task, name) for name in OWN_OPTIONS if hasattr(task, name)}
        card = make_card(task, folder, rejects[task.name], separated[task.name], own)
        files = {
            "card.json": json.dumps(card, indent=2, ensure_ascii=False) + "\n",
            "card.md": card_text(card),
            "rejects.jsonl": _reject_lines(rejects[task.name], separated[task.name]),
        }
        stage_prepared(target, task.name, separated[task.name].splits, files)
        cards.append(card)
    swap_prepared(target, [task.name for task in loaded])
    for card in cards:
        _early_rejects(target, card["task"]).unlink(missing_ok=True)
        _report(target / card["task"], card)


def _check(max_rejects: float, validation: float, max_probes: int, completions: int, test_share: float) -> None:
    if not 0 <= max_rejects <= 1:
        raise InputError(f"--max_rejects is a share between 0 and 1, not {max_rejects}.")
    if not 0 <= validation < 1:
        raise InputError(f"--validation is a share from 0 to below 1, not {validation}.")
    if max_probes < 1:
        raise InputError(f"--max_probes must be at least 1, not {max_probes}.")
    if completions < 1:
        raise InputError(f"--completions must be at least 1, not {completions}.")
    if not 0 <= test_share <= 1:
        raise InputError(f"--test-share is a share between 0 and 1, not {test_share}.")


def _names(tasks: str) -> list[str]:
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise InputError("--tasks names no task. Give names separated by commas, such as recent,zsre.")
    return names


def _with_options(task: Task, completions: int, zsre_all: bool, test_share: float) -> Task:
    if isinstance(task, Jsonl):
        return replace(task, test_share=test_share)
    if isinstance(task, ConvSent):
        return replace(task, completions=completions)
    if isinstance(task, ZsRE):
        return replace(task, extra=zsre_all)
    return task


def _source_folder(source: str, tasks: Sequence[Task]) -> Path:
    """Where the files lie; downloaded first where the source is the Hub and a task reads files."""
    reading = [task for task in tasks if isinstance(task, FileTask) and not isinstance(task, Jsonl)]
    if source == "hub" or source.startswith("hub:"):
        return fetch(source, [files for task in reading for files in task.sources.values()]) if reading else Path()
    folder = Path(source)
    if reading and not folder.is_dir():
        raise InputError(f"No folder {source}. Give the folder of KnowEdit's files with --source, or --source hub.")
    return folder


def _refuse_bad_source(
    task: Task, examples: Sequence[EditExample], rejects: Sequence[Reject], most: float, out: Path
) -> None:
    malformed = [reject for reject in rejects if reject.fault == "malformed"]
    # The records behind the examples: convsent makes two of each.
    records = len(examples) // (2 if task.family == "convsent" else 1)
    records += sum(reject.fault != "probe" for reject in rejects)
    if malformed and len(malformed) > most * records:
        path = _early_rejects(out, task.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(_reject_lines(rejects, None), encoding="utf-8")
        first = "; ".join(f"{bad.file} record {bad.index}: {bad.reason}" for bad in malformed[:SHOWN_REJECTS])
        raise InputError(
            f"Task {task.name}: {len(malformed)} of {records} records are malformed, more than --max_rejects {most} "
            f"allows ({first}). All are in {path}. Mend the source or raise --max_rejects."
        )
    if not examples:
        raise InputError(f"Task {task.name}: no usable record in the source.")


def _early_rejects(out: Path, task: str) -> Path:
    return out / f"{task}.rejects.jsonl"


def _reject_lines(rejects: Sequence[Reject], separated: Separated | None) -> str:
    rows: list[dict[str, Any]] = [
        {"file": reject.file, "index": reject.index, "fault": reject.fault, "reason": reject.reason}
        for reject in rejects
    ]
    if separated is not None:
        rows += [{"id": id, "fault": "unusable", "reason": reason} for id, reason in separated.records]
        rows += [{"id": id, "fault": "probe", "reason": reason} for id, reason in separated.probes]
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _progress(tasks: Sequence[Task]) -> Any:
    from rich.console import Console
    from rich.progress import track

    return track(tasks, description="Reading tasks", console=Console(stderr=True), transient=True)


def _report(folder: Path, card: dict[str, Any]) -> None:
    counts = ", ".join(f"{card['splits'][split]['records']} {split}" for split in SPLITS)
    left_out = ", ".join(f"{sum(reasons.values())} {what}" for what, reasons in card["left_out"].items())
    print(f"{card['task']}: {counts}; left out: {left_out}. Card: {folder / 'card.md'}")
