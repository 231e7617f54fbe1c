"""Preflight: can the run be written where it is to lie, and is there room for it?"""

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from instructedit.base.config_sizes import ConfigSizes
from instructedit.base.sizes import FP32
from instructedit.errors import InputError
from instructedit.scheduling.preflight.bases import base_config
from instructedit.scheduling.preflight.devices import training_sizes
from instructedit.scheduling.preflight.work import Finding, Work

GIB = 2**30
SECONDS = 10.0
"""How long the site's own command may take."""

COPIES = 3
"""Of each parameter in a checkpoint: the weight and Adam's two moments."""


def check_disk(work: Work) -> Iterator[Finding]:
    """Try to write, and compare what a training leaves behind with the free space."""
    faults = [unwritable(work.run / part) for part in ("", "checkpoints", "slurm")] if work.run is not None else []
    fault = next(filter(None, faults), "")
    if fault:
        advice = "Choose another run.folder, or ask for the right to write there."
        yield Finding("error", f"The run directory {work.run} cannot be written: {fault}. {advice}")
    store = work.get("model.store.folder") if work.kind == "training" else None
    if store and not Path(store).is_dir() and (told := unwritable(Path(store))):
        # One that is there need not be writable: it may have been filled by somebody else.
        yield Finding("error", f"model.store.folder {store} cannot be made: {told}. Choose another folder.")
        store = None
    if work.run is not None and work.command == "fit" and not fault:
        yield from _room(work, work.run, Path(store) if store else None)


def _room(work: Work, run: Path, store: Path | None) -> Iterator[Finding]:
    free, where, fault = _free(work, run)
    if fault:
        yield Finding("warning", fault)
    needed, told = _run_bytes(work)
    # What a run that goes on has written already is replaced, not added to.
    needed = max(0, needed - _size(run / "checkpoints") - _size(run / "editor"))
    if needed > free:
        yield Finding(
            "error",
            f"The run will need {_gib(needed)} GiB on disk ({told}), and {_gib(free)} GiB are free {where}. Make room, "
            f"set checkpoint.keep to 1, or put run.folder elsewhere.",
        )
        return
    if store is None:
        return
    there = _existing(store)
    same = work.free_space_command is not None or there.stat().st_dev == _existing(run).stat().st_dev
    left = free - needed if same else _statvfs(there)
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


def _free(work: Work, run: Path) -> tuple[int, str, str]:
    """Free bytes for the run, where that is, and what went wrong in asking."""
    there = _existing(run)
    if work.free_space_command is None:
        return _statvfs(there), f"in {there}", ""
    try:
        # The site's own line, out of its profile.
        done = subprocess.run(
            work.free_space_command, shell=True, cwd=there, capture_output=True, text=True, timeout=SECONDS
        )
        free = float(done.stdout.split()[0])
        if done.returncode or not free >= 0:
            raise ValueError
        return int(free * GIB), "by the profile's free_space_command", ""
    except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
        late = isinstance(error, subprocess.TimeoutExpired)
        what = f"did not answer in {SECONDS:.0f} s" if late else "printed no number of GiB"
        fault = f"free_space_command of the profile {what}, so that a quota is not known. Correct it."
        return _statvfs(there), f"in {there}", fault


def _statvfs(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _existing(path: Path) -> Path:
    """The nearest of a path and its parents that exists."""
    path = path.absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())


def _size(folder: Path) -> int:
    """Bytes of all files in a folder; those of two names once."""
    found = [file.stat() for file in folder.rglob("*") if file.is_file()] if folder.is_dir() else []
    return sum({(stat.st_dev, stat.st_ino): stat.st_size for stat in found}.values())


def unwritable(folder: Path) -> str:
    """Try to write in a folder, or to make it; tell what the system says, empty where it works. Nothing stays."""
    there = _existing(folder)
    try:
        if not there.is_dir():
            return f"{there} is a file"
        with tempfile.NamedTemporaryFile(dir=there, prefix=".preflight-") as file:
            file.write(b"x")
            file.flush()
    except OSError as error:
        return f"{there}: {error.strerror}"
    return ""


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / GIB:.1f}"
