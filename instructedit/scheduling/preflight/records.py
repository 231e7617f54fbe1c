"""Preflight: are the tasks prepared, is there a pool for each, and does every method have its editor?"""

import json
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from instructedit.data.samplers import MultiTaskSampler
from instructedit.errors import InputError, unknown
from instructedit.instructions.pools import DEFAULT_POOLS, load_pools, pool_for
from instructedit.methods import METHODS, TRAINED
from instructedit.scheduling.preflight.work import Finding, Work
from instructedit.tasks import TASKS
from instructedit.tasks.prepared import PreparedSplit

SPLITS: dict[str, tuple[PreparedSplit, ...]] = {"validate": ("validation",), "test": ("test",), "evaluate": ("test",)}
"""What a command reads of the tasks; any other reads all."""

UNKNOWN_SIZE = 1000
"""Stands for the records of a task that has no card: what is checked does not depend on how many there are."""


def check_records(work: Work) -> Iterator[Finding]:
    """Look at the tasks' folders and cards; no table is opened."""
    if work.kind == "training":
        yield from _of_training(work)
    elif work.kind == "evaluation":
        folder, tasks = Path(work.get("data")), work.names("tasks")
        if not tasks:
            yield Finding("error", "The evaluation has no tasks. Name some: tasks: [recent, counterfact].")
        yield from _not_prepared(work, folder, tasks, (), "tasks")
        yield from _editors(work)
        yield from _pools(work.get("instructions"), tasks if _instructed(work) else [])
    elif work.kind == "preparation" and work.offline:
        yield from _download(work)


# --- training --------------------------------------------------------------------------------------------------------
def _of_training(work: Work) -> Iterator[Finding]:
    folder, tasks, held_out = Path(work.get("data.folder")), work.names("data.tasks"), work.names("data.held_out")
    if not tasks or len(set(tasks)) != len(tasks):
        told = ", ".join(tasks) or "empty"
        yield Finding("error", f"data.tasks is {told}: name at least one prepared task, each once.")
        return
    found = list(_not_prepared(work, folder, tasks, held_out, "data.tasks and data.held_out"))
    yield from found
    if work.get("model.method") == "InstructEdit":
        yield from _pools(work.get("data.instructions"), [*tasks, *held_out])
    if work.command == "fit" and not found:
        counts = {task: _records(folder, task, "train") or UNKNOWN_SIZE for task in tasks}
        settings = [work.get(f"data.{key}") for key in ("balance", "temperature", "caps")]
        sampler = MultiTaskSampler(counts, int(work.get("data.batch")), int(work.get("seed_everything")), *settings)
        sampler.local_batch(0, 0, max(1, work.ranks))  # refuses a batch the ranks cannot share


def _not_prepared(
    work: Work, folder: Path, tasks: Sequence[str], held_out: Sequence[str], key: str
) -> Iterator[Finding]:
    """Tell which tasks or splits are missing or empty."""
    if work.is_made(folder):
        return
    wanted = {task: SPLITS.get(work.command, ("train", "validation", "test")) for task in tasks}
    if "test" in SPLITS.get(work.command, ("test",)):
        wanted |= {task: ("test",) for task in held_out if task not in wanted}
    lacking = {task: [s for s in splits if not _is_there(folder, task, s)] for task, splits in wanted.items()}
    missing = [task for task, splits in lacking.items() if splits]
    if missing:
        there = sorted(path.name for path in folder.glob("[!.]*") if (path / "test" / "state.json").is_file())
        yield Finding(
            "error",
            f"Not prepared in {folder}: {', '.join(missing)} (there: {', '.join(there) or 'nothing'}). Make them in "
            f"one command: {_prepare(folder, list(wanted))}",
        )
        return
    for task, splits in wanted.items():
        for split in splits:
            if _records(folder, task, split) == 0:
                yield Finding(
                    "error",
                    f"The {split} split of task {task!r} in {folder} is empty. Prepare the task with records for it "
                    f"(instructedit prepare --validation 0.1), or leave it out of {key}.",
                )


def _prepare(folder: Path, tasks: Sequence[str]) -> str:
    """The command that makes these tasks; one of a user's own gets a place for its file."""
    names = ",".join(task if task in TASKS else f"jsonl:{task}=FILE.jsonl" for task in tasks)
    source = " --source demo" if all(task.startswith("demo-") for task in tasks) else ""
    return f"instructedit prepare{source} --out {shlex.quote(str(folder))} --tasks {shlex.quote(names)}"


def _is_there(folder: Path, task: str, split: PreparedSplit) -> bool:
    return (folder / task / split / "state.json").is_file()


def _records(folder: Path, task: str, split: PreparedSplit) -> int | None:
    """Records of a split by the task's card; None where it has none."""
    try:
        card = json.loads((folder / task / "card.json").read_text(encoding="utf-8"))
        return int(card["splits"][split]["records"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


# --- evaluation ------------------------------------------------------------------------------------------------------
def _methods(work: Work) -> list[Mapping[str, Any]]:
    return [method for method in work.get("methods") or () if isinstance(method, Mapping)]


def _instructed(work: Work) -> bool:
    """Whether some method needs the pools of the settings: an editor brings its own where none are named."""
    named = work.get("instructions") is not None
    return any(method.get("instructions") and (named or not method.get("editor")) for method in _methods(work))


def _editors(work: Work) -> Iterator[Finding]:
    for method in _methods(work):
        kind, editor = str(method.get("method")), method.get("editor")
        if kind not in METHODS and ":" not in kind:
            yield Finding("error", str(unknown("method", kind, METHODS, "Your own is written package.module:Class.")))
        elif kind in TRAINED and not editor:
            yield Finding(
                "error", f"Method {kind!r} needs a trained editor: set editor to a folder that `instructedit fit` made."
            )
        elif kind in TRAINED and not work.is_written(str(editor)):
            yield from _editor(work, kind, Path(str(editor)))


def _editor(work: Work, kind: str, folder: Path) -> Iterator[Finding]:
    """Look at an editor's card; what its weights are, the evaluation sees."""
    try:
        card = json.loads((folder / "card.json").read_text(encoding="utf-8"))
        method = card["method"]
    except OSError:
        point = next((made for made in work.made if made.resolve().parent == folder.resolve().parent), None)
        if point is not None:
            way = f"{folder.parent} is a group, and its runs have the editors: name one, such as {point / folder.name}."
        else:
            way = (
                "Name a folder that `instructedit fit` made, or train it first; `instructedit submit -- fit ... --then "
                "evaluate ...` does both."
            )
        yield Finding("error", f"No editor at {folder} for method {kind!r}. {way}")
        return
    except (ValueError, KeyError, TypeError):
        yield Finding("error", f"{folder / 'card.json'} is no editor's card. Export the editor again.")
        return
    if method != TRAINED[kind]:
        told = f"The editor in {folder} is a {method}, not a {TRAINED[kind]}. Name another editor or method."
        yield Finding("error", told)


# --- both ------------------------------------------------------------------------------------------------------------
def _pools(source: str | None, tasks: Sequence[str]) -> Iterator[Finding]:
    if not tasks:
        return
    try:
        pools = load_pools(source or DEFAULT_POOLS)
        for task in tasks:
            pool_for(pools, task)
    except InputError as error:
        yield Finding("error", str(error))


def _download(work: Work) -> Iterator[Finding]:
    """A download on nodes without internet."""
    from instructedit.tasks.hub import DEFAULT_REPOSITORY

    source = str(work.get("source"))
    read = [task for task in work.names("tasks") if not task.startswith(("demo-", "jsonl:"))]
    if not read or not (source == "hub" or source.startswith("hub:")):
        return
    repository = source.removeprefix("hub").removeprefix(":") or DEFAULT_REPOSITORY
    from huggingface_hub.file_download import repo_folder_name

    cached = work.hub_cache() / repo_folder_name(repo_id=repository, repo_type="dataset") / "snapshots"
    if not cached.is_dir():
        yield Finding(
            "error",
            f"prepare would fetch {repository} from the Hub, and the compute nodes have no internet. Run it here, "
            f"without submit: it needs no GPU.",
        )
