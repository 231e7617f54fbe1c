"""Uploads what runs have kept offline to Weights & Biases, with that package's own ``wandb sync``.

A run writes a folder ``wandb/offline-run-*`` at each of its starts, all under one id: they are sent in their order, so
that the later ones go on where the earlier ones end. ``wandb sync`` leaves a mark beside what it has sent.
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console

from instructedit.comparison.local import SILENT_SECONDS
from instructedit.comparison.wandb_access import require_access
from instructedit.errors import InputError
from instructedit.runs.progress import read_progress

MARK = ".synced"
"""What ``wandb sync`` appends to a file's name when it has sent it."""


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
    # What is still written cannot be sent yet: it would count as sent, and its rest would never be.
    going_on = {run for run, files in kept.items() if files and _is_training(run)}
    kept = {run: files[:-1] if run in going_on else files for run, files in kept.items()}
    waiting = {run: [file for file in files if not _sent(file)] for run, files in kept.items()}
    # An online start sends what the server lacks out of metrics.csv, also what lies in these files: sent from here too,
    # W&B would number those steps anew behind the others, and the older summary would win.
    mixed = [run for run, files in waiting.items() if files and _was_online(run)]
    waiting = {run: files for run, files in waiting.items() if run not in mixed}
    console = Console(soft_wrap=True, highlight=False, markup=False)
    if any(waiting.values()):
        require_access()
    for run, files in waiting.items():
        already = len(kept[run]) - len(files)
        if run in going_on:
            console.print(f"{run}: its latest start still trains, and is sent when it has ended")
        if not kept[run]:
            if run not in going_on:
                console.print(f"{run}: nothing was kept offline")
        elif not files:
            console.print(f"{run}: all {already} starts were sent before")
        else:
            _send(files)
            sent = sum(map(_sent, files))
            console.print(f"{run}: {sent} of {len(files)} starts sent" + (f", {already} before" if already else ""))
    left = [run for run, files in waiting.items() if not all(map(_sent, files))]
    if left:
        raise InputError(
            f"Not all was sent of {', '.join(map(str, left))}: what `wandb sync` said stands above. Run the same "
            "again; what was sent is not sent twice."
        )
    if mixed:
        raise InputError(
            f"Not sent: {', '.join(map(str, mixed))}, with online starts beside offline ones; sending both would "
            "repeat steps. An online start sends what is missing: run its `instructedit fit` again with "
            "--run.wandb online."
        )


def offline_files(run: Path) -> list[Path]:
    """The files a run has kept offline, oldest first: their folders are named by the time they began."""
    return sorted((run / "wandb").glob("offline-run-*/*.wandb"))


def _was_online(run: Path) -> bool:
    """Whether a start of a run has spoken with the server itself."""
    return any((run / "wandb").glob("run-*/*.wandb"))


def _is_training(run: Path) -> bool:
    progress = read_progress(run)
    return progress is not None and progress.state == "running" and time.time() - progress.updated < SILENT_SECONDS


def _sent(file: Path) -> bool:
    return file.with_name(file.name + MARK).exists()


def _send(files: Sequence[Path]) -> None:
    """Send one run's files; all at once, so that the program itself puts those of one id behind each other."""
    command = [sys.executable, "-m", "wandb", "sync", *(str(file.parent.resolve()) for file in files)]
    subprocess.run(command, stdin=subprocess.DEVNULL, check=False)
