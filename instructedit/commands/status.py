"""The command ``status``: what runs are doing, from their directories and, where there is one, from the scheduler.

Knows what is asked for and how often; what is so, `instructedit.runs.state` finds out, and how it looks,
`instructedit.runs.display` knows.
"""

import dataclasses
import sys
import time
from collections.abc import Sequence
from json import dumps
from pathlib import Path

from rich.console import Console
from rich.live import Live

from instructedit.errors import InputError
from instructedit.runs.display import display
from instructedit.runs.state import RunState, find_runs, states_of
from instructedit.terminal import shown


def status(
    runs: Sequence[str] = (),
    folder: str = "runs",
    follow: bool = False,
    every: float = 10.0,
    json: bool = False,
) -> None:
    """Tell what runs are doing: state, step, rate, time left, metrics, checkpoint, nodes, and why one has failed.

    Run directories are read, and SLURM is asked where it is installed. Without names: all runs in the folder.

    Args:
        runs: run directories, names in the folder of all runs, or groups of runs.
        folder: the folder of all runs.
        follow: show it again and again until nothing of it goes on; Ctrl-C ends it.
        every: seconds between two looks.
        json: print a list of objects instead, for programs.
    """
    if not every > 0:
        raise InputError(f"--every is {every}. Give a number of seconds above 0.")
    left_out: list[str] = []
    paths = find_runs(runs, Path(folder), left_out)
    for line in left_out:
        print(shown(line), file=sys.stderr)
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)

    def look() -> tuple[list[RunState], str]:
        states, away = states_of(paths)
        return states, f"SLURM does not answer: {away.rstrip('.')}; told from the run directory alone." if away else ""

    states, note = look()
    if json or not console.is_terminal or not follow:
        _show(states, note, console, json)
        while follow and not all(state.over for state in states):
            time.sleep(every)
            states, note = look()
            _show(states, note, console, json)
        return
    with Live(display(states, note), console=console, auto_refresh=False) as live:
        while not all(state.over for state in states):
            time.sleep(every)
            states, note = look()
            live.update(display(states, note), refresh=True)


def _show(states: Sequence[RunState], note: str, console: Console, json: bool) -> None:
    if json:
        print(dumps([as_object(state, note) for state in states]), flush=True)
    else:
        console.print(display(states, note))


def as_object(state: RunState, note: str = "") -> dict[str, object]:
    """A state as JSON holds it; times in seconds, texts as they are.

    Args:
        state: the run's.
        note: what is to be told of all runs.
    """
    progress = state.progress
    return {
        "run": str(state.path),
        "state": state.word,
        "why": state.why,
        "error": state.error,
        "job": state.job.id if state.job else None,
        "requeues": state.requeues,
        "max_requeues": state.job.max_requeues if state.job else None,
        "nodes": state.nodes,
        "remaining_seconds": progress.remaining_seconds if progress and not state.over else None,
        "silent_seconds": state.silent or None,
        "progress": dataclasses.asdict(progress) if progress else None,
        "others": [{"job": job.id, "command": job.command, "state": word} for job, word in state.others],
        "notes": [*state.notes, *([note] if note else [])],
    }
