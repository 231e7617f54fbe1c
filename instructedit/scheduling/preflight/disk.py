"""Preflight: can the run be written where it is to lie, and is there room for it?"""

from collections.abc import Iterator
from pathlib import Path

from instructedit.base.config_sizes import ConfigSizes
from instructedit.base.sizes import FP32
from instructedit.errors import InputError
from instructedit.scheduling.preflight.bases import base_config
from instructedit.scheduling.preflight.devices import training_sizes
from instructedit.scheduling.preflight.room import GIB, existing, statvfs
from instructedit.scheduling.preflight.work import Finding, Work

COPIES = 3
"""Of each parameter in a checkpoint: the weight and Adam's two moments."""


def check_disk(work: Work) -> Iterator[Finding]:
    """Try to write, and compare what a training leaves behind with the free space."""
    faults = (
        [work.room.unwritable(work.run / part) for part in ("", "checkpoints", "slurm")] if work.run is not None else []
    )
    fault = next(filter(None, faults), "")
    if fault:
        advice = "Choose another run.folder, or ask for the right to write there."
        yield Finding("error", f"The run directory {work.run} cannot be written: {fault}. {advice}")
    store = work.get("model.store.folder") if work.kind == "training" else None
    if store and not Path(store).is_dir() and (told := work.room.unwritable(Path(store))):
        # One that is there need not be writable: it may have been filled by somebody else.
        yield Finding("error", f"model.store.folder {store} cannot be made: {told}. Choose another folder.")
        store = None
    if work.run is not None and work.command == "fit" and not fault:
        yield from _room(work, work.run, Path(store) if store else None)


def _room(work: Work, run: Path, store: Path | None) -> Iterator[Finding]:
    free, where, fault = work.room.free(run)
    if fault:
        yield Finding("warning", fault)
    needed, told = _run_bytes(work)
    # What a run that goes on has written already is replaced, not added to.
    needed = max(0, needed - _size(run / "checkpoints") - _size(run / "editor"))
    taken = work.room.taken(run)
    work.room.take(run, needed)
    if needed > free - taken:
        others = f", the runs submitted with it {_gib(taken)} GiB" if taken else ""
        yield Finding(
            "error",
            f"The run will need {_gib(needed)} GiB on disk ({told}){others}, and {_gib(free)} GiB are free {where}. "
            f"Make room, set checkpoint.keep to 1, or put run.folder elsewhere.",
        )
        return
    if store is None:
        return
    left = free - taken - needed if work.room.same(store, run) else statvfs(existing(store))
    limit = float(work.get("model.store.disk_gib")) - _size(store) / GIB
    if limit * GIB > left:
        yield Finding(
            "warning",
            f"The trunk store {store} may grow by {limit:.1f} GiB (model.store.disk_gib), and "
            f"{_gib(max(0, left))} GiB are free for it. Set model.store.disk_gib lower, or put the folder elsewhere.",
        )


def _run_bytes(work: Work) -> tuple[int, str]:
    """What a training leaves behind and needs in passing, and that in words; 0 where the base is not known."""
    content = base_config(work)
    if content is None:
        return 0, ""
    try:
        parameters = training_sizes(work, ConfigSizes.of(content))[1].parameters
    except InputError:
        return 0, ""
    each = COPIES * FP32 * parameters
    files = int(work.get("checkpoint.keep")) + 2
    told = f"{files} checkpoints of {_gib(each)} GiB: the newest, the best one and one being written; and the editor"
    return files * each + FP32 * parameters, told


def _size(folder: Path) -> int:
    """Bytes of all files in a folder; those of two names once."""
    found = [file.stat() for file in folder.rglob("*") if file.is_file()] if folder.is_dir() else []
    return sum({(stat.st_dev, stat.st_ino): stat.st_size for stat in found}.values())


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / GIB:.1f}"
