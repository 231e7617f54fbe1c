"""Prepared tasks on disk: one Arrow table a split, written and read as EditExamples.

Knows the layout ``<folder>/<task>/<split>/`` and nothing about where the examples came from.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from instructedit.errors import InputError
from instructedit.records import EditExample, EditRequest, Probe
from instructedit.terminal import quoted

if TYPE_CHECKING:
    import datasets

PreparedSplit = Literal["train", "validation", "test"]
SPLITS: tuple[PreparedSplit, ...] = get_args(PreparedSplit)

REQUEST_TEXTS = ("id", "task", "subject", "prompt", "target", "old_answer")
PROBE_TEXTS = ("kind", "prompt", "target", "source")


def write_prepared(
    folder: Path, task: str, splits: Mapping[PreparedSplit, Sequence[EditExample]], files: Mapping[str, str]
) -> Path:
    """Write all three splits of a task and the text files beside them, replacing what was there.

    `stage_prepared`, then `swap_prepared`, for one task.

    Returns:
        The task's folder.
    """
    stage_prepared(folder, task, splits, files)
    swap_prepared(folder, [task])
    return folder / task


def stage_prepared(
    folder: Path, task: str, splits: Mapping[PreparedSplit, Sequence[EditExample]], files: Mapping[str, str]
) -> None:
    """Write a task below a hidden name, where no reader looks, for `swap_prepared` to put in its place.

    The same examples give the same bytes.

    Args:
        folder: the folder of all prepared tasks.
        task: the task's name, which becomes the folder's name.
        splits: the examples of each split; a split that is not given is written empty.
        files: further files by name, such as ``{"card.json": "..."}``.
    """
    partial = _partial(folder, task)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    with _no_progress_bars():
        for split in SPLITS:
            # One shard always: an empty split otherwise has none, and cannot be loaded again.
            table = _table(splits.get(split, ()), fingerprint=f"{task}-{split}")
            table.save_to_disk(str(partial / split), num_shards=1)
    for name, text in files.items():
        (partial / name).write_text(text, encoding="utf-8")


def swap_prepared(folder: Path, tasks: Sequence[str]) -> None:
    """Put staged tasks in their places by renames alone.

    All old folders leave before the first new one comes: a kill in between may leave a task missing, which its reader
    says, but never an old task beside a new one, whose splits were not kept apart from each other.

    Args:
        folder: the folder of all prepared tasks.
        tasks: the tasks, each staged before.
    """
    for task in tasks:
        shutil.rmtree(_old(folder, task), ignore_errors=True)
    for task in tasks:
        if (folder / task).exists():
            (folder / task).rename(_old(folder, task))
    for task in tasks:
        _partial(folder, task).rename(folder / task)
    for task in tasks:
        shutil.rmtree(_old(folder, task), ignore_errors=True)


def _partial(folder: Path, task: str) -> Path:
    return folder / f".{task}.partial"


def _old(folder: Path, task: str) -> Path:
    return folder / f".{task}.old"


def read_prepared(folder: Path | str, task: str, split: PreparedSplit) -> list[EditExample]:
    """Read the examples of one split of a prepared task, in the order they were written.

    An empty split is an empty list: who needs records says so.

    Raises:
        InputError: there is no such folder, task or split; the message names what exists.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(
            f"No folder of prepared tasks at {folder}. Make it: instructedit prepare --out {quoted(folder)}."
        )
    if not (folder / task / split / "state.json").is_file():
        exist = sorted(path.parent.parent.name + "/" + path.parent.name for path in folder.glob("[!.]*/*/state.json"))
        raise InputError(
            f"No prepared split {task}/{split} in {folder} (there: {', '.join(exist) or 'nothing'}). "
            f"Make it: instructedit prepare --out {quoted(folder)} --tasks {quoted(task)}."
        )
    import datasets

    try:
        table = datasets.load_from_disk(str(folder / task / split))
        return [_example(row) for row in table]
    except (OSError, ValueError, KeyError, TypeError, datasets.exceptions.DatasetsError) as error:
        raise InputError(
            f"The prepared split {folder / task / split} cannot be read ({error}). "
            f"Make it again: instructedit prepare --out {quoted(folder)} --tasks {quoted(task)}."
        ) from error


@contextmanager
def _no_progress_bars() -> Iterator[None]:
    import datasets

    shown = datasets.are_progress_bars_disabled() is False
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def _table(examples: Sequence[EditExample], fingerprint: str) -> "datasets.Dataset":
    import datasets
    import pyarrow as pa

    text, texts = pa.string(), pa.list_(pa.string())
    schema = pa.schema(
        [(name, text) for name in REQUEST_TEXTS]
        + [
            ("more_targets", texts),
            ("avoid", texts),
            ("slots", pa.list_(pa.struct([("name", text), ("value", text)]))),
            ("probes", pa.list_(pa.struct([(name, text) for name in PROBE_TEXTS] + [("aliases", texts)]))),
        ]
    )
    table = pa.Table.from_pylist([as_row(example) for example in examples], schema=schema)
    # A fingerprint of our own: the library's would differ from run to run and change the bytes on disk.
    return datasets.Dataset(datasets.table.InMemoryTable(table), fingerprint=fingerprint)


def as_row(example: EditExample) -> dict[str, Any]:
    """An example as the plain data of its table row."""
    request = example.request
    return {
        **{name: getattr(request, name) for name in REQUEST_TEXTS},
        "more_targets": list(request.more_targets),
        "avoid": list(request.avoid),
        "slots": [{"name": name, "value": request.slots[name]} for name in sorted(request.slots)],
        "probes": [
            {**{name: getattr(probe, name) for name in PROBE_TEXTS}, "aliases": list(probe.aliases)}
            for probe in example.probes
        ],
    }


def _example(row: Mapping[str, Any]) -> EditExample:
    request = EditRequest(
        **{name: row[name] for name in REQUEST_TEXTS},
        more_targets=tuple(row["more_targets"]),
        avoid=tuple(row["avoid"]),
        slots={slot["name"]: slot["value"] for slot in row["slots"]},
    )
    probes = tuple(
        Probe(**{name: probe[name] for name in PROBE_TEXTS}, aliases=tuple(probe["aliases"])) for probe in row["probes"]
    )
    return EditExample(request, probes)
