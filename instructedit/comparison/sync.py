"""Uploads what runs have kept offline to Weights & Biases, with that package's own ``wandb sync``.

A run writes a folder ``wandb/offline-run-*`` at each of its starts, all under one id: they are sent in their order, so
that the later ones go on where the earlier ones end. ``wandb sync`` leaves marks beside what it has begun with and what
it has sent. It would send a file it was broken off at again from its first step on, so that is not left to it.
"""

import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from instructedit.comparison.local import SILENT_SECONDS
from instructedit.comparison.wandb_access import require_access
from instructedit.comparison.wandb_files import UnknownFormat, begun, mend_file, sent
from instructedit.errors import InputError
from instructedit.runs.directory import RunDirectory
from instructedit.runs.processes import is_alive
from instructedit.runs.progress import read_progress
from instructedit.terminal import shown

QUIET_SECONDS = 3.0
"""wandb's own process outlives a killed training by a moment: a file written later than this ago is waited for."""

ONLINE = "An online start sends what is missing: run its `instructedit fit` again with --run.wandb online."


@dataclass(frozen=True)
class _Upload:
    """What of a run is to be sent.

    Args:
        run: the run directory.
        kept: all it has kept offline and nobody writes any more, oldest first.
        training: whether its latest start, left out above, still trains.
    """

    run: Path
    kept: Sequence[Path]
    training: bool

    @property
    def waiting(self) -> list[Path]:
        """The files that were not sent."""
        return [file for file in self.kept if file.exists() and not sent(file)]


def sync_runs(runs: Sequence[Path]) -> None:
    """Send every run's offline folders that were not sent, and tell what came of it.

    Args:
        runs: run directories.

    Raises:
        InputError: there is no key, no way to the server, nothing was kept offline, or something could not be sent, as
            of a run that was online too.
    """
    if find_spec("wandb") is None:
        raise InputError("--sync needs the package wandb. Run `pip install 'instructedit[wandb]'`.")
    kept = {run: offline_files(run) for run in runs}
    if not any(kept.values()):
        raise InputError(
            f"Nothing was kept offline in {', '.join(map(str, runs[:3]))}: no folder wandb/offline-run-* there. "
            "Train with --run.wandb=offline to have one."
        )
    # An online start sends what the server lacks out of metrics.csv, also what lies in these files: sent from here too,
    # W&B would number those steps anew behind the others, and the older summary would win.
    mixed = [run for run, files in kept.items() if _was_online(run) and not all(map(sent, files))]
    uploads = [_upload(run, files) for run, files in kept.items() if run not in mixed]
    if any(upload.waiting for upload in uploads):
        require_access()
    console = Console(soft_wrap=True, highlight=False, markup=False)
    wrong = []
    for upload in uploads:
        try:
            console.print(f"{shown(upload.run)}: {_sent_now(upload)}")
        except InputError as error:
            wrong.append(str(error))
    if mixed:
        wrong.append(
            f"Not sent: {', '.join(map(str, mixed))}, with online starts beside offline ones; sending both would "
            f"repeat steps. {ONLINE}"
        )
    if wrong:
        raise InputError(" ".join(wrong))


def offline_files(run: Path) -> list[Path]:
    """The files a run has kept offline, oldest first: their folders are named by the time they began."""
    return sorted((run / "wandb").glob("offline-run-*/*.wandb"))


def _was_online(run: Path) -> bool:
    """Whether a start of a run has spoken with the server itself."""
    return any((run / "wandb").glob("run-*/*.wandb"))


def _upload(run: Path, files: Sequence[Path]) -> _Upload:
    """What of a run's files can be sent: what is still written would count as sent, and its rest would never be."""
    training = bool(files) and _is_training(run)
    return _Upload(run, files[:-1] if training else files, training)


def _is_training(run: Path) -> bool:
    progress = read_progress(run)
    if progress is None or progress.state != "running":
        return False
    if progress.host == platform.node() and is_alive(progress.pid, progress.process, progress.updated) == "no":
        return False
    return time.time() - progress.updated < max(SILENT_SECONDS, 10 * progress.seconds_per_step)


def _sent_now(upload: _Upload) -> str:
    """Send what waits of a run, and tell that in words.

    Raises:
        InputError: not all could be sent.
    """
    later = "; its latest start still trains, and is sent when it has ended" if upload.training else ""
    if upload.waiting and not upload.training:  # a start that trains has done it
        _mend(upload)
    files, already = upload.waiting, sum(map(sent, upload.kept))
    broken = [file for file in files if begun(file)]
    if broken:
        raise InputError(
            f"Not sent: {upload.run}, of which an upload was broken off; once more, it would repeat the steps W&B has "
            f"({broken[0].parent.name}). {ONLINE}"
        )
    if not files:
        return (f"all {already} starts were sent before" if already else "nothing was kept offline") + later
    # All at once, so that the program itself puts those of one id behind each other.
    command = [sys.executable, "-m", "wandb", "sync", *(str(file.parent.resolve()) for file in files)]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
    done = sum(map(sent, files))
    told = f"{done} of {len(files)} starts sent" + (f", {already} before" if already else "") + later
    if done < len(files):
        again = ONLINE if any(begun(file) and not sent(file) for file in files) else "Run the same again."
        raise InputError(f"Not all was sent of {upload.run} ({told}): what `wandb sync` said stands above. {again}")
    return told


def _mend(upload: _Upload) -> None:
    """Cut off the torn ends that killed starts have left, and see to it that no start writes meanwhile.

    Raises:
        InputError: a process trains in the run directory, or it cannot be written.
    """
    directory = RunDirectory(upload.run)
    directory.lock(seconds=0)
    try:
        while any(0 <= time.time() - file.stat().st_mtime < QUIET_SECONDS for file in upload.waiting):
            time.sleep(QUIET_SECONDS / 10)
        for file in upload.waiting:
            try:
                mend_file(file)
            except UnknownFormat:
                continue  # `wandb sync` tells what it makes of it
    except OSError as error:
        raise InputError(
            f"Cannot write to {upload.run / 'wandb'}: {error.strerror}. Nothing of it was sent."
        ) from error
    finally:
        directory.unlock()
