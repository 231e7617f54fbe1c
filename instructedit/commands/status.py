"""The command ``status``: what runs are doing, from their directories and, where there is one, from the scheduler.

Knows how it is shown; what is so, `instructedit.runs.state` finds out.
"""

import dataclasses
import time
from collections.abc import Sequence
from json import dumps
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from instructedit.errors import InputError
from instructedit.runs.progress import Progress
from instructedit.runs.state import RunState, find_runs, state_of
from instructedit.runs.words import Word
from instructedit.terminal import quoted

STYLES: dict[Word, str] = {
    "running": "green",
    "done": "bold green",
    "failed": "bold red",
    "lost": "bold red",
    "cancelled": "yellow",
    "stopped": "yellow",
}

SHOWN_METRICS = ("val/score", "train/loss")
"""In the table of several runs; a single run shows all it has told."""


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
    if every <= 0:
        raise InputError(f"--every is {every}. Give a number of seconds above 0.")
    paths = find_runs(runs, Path(folder))
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)

    def look() -> list[RunState]:
        return [state_of(path) for path in paths]

    if not follow:
        _show(look(), console, json)
        return
    states = look()
    if json or not console.is_terminal:
        _show(states, console, json)
        while not all(state.over for state in states):
            time.sleep(every)
            states = look()
            _show(states, console, json)
        return
    with Live(_shown(states), console=console, auto_refresh=False) as live:
        while not all(state.over for state in states):
            time.sleep(every)
            states = look()
            live.update(_shown(states), refresh=True)


def _show(states: Sequence[RunState], console: Console, json: bool) -> None:
    if json:
        print(dumps([as_object(state) for state in states]), flush=True)
    else:
        console.print(_shown(states))


def as_object(state: RunState) -> dict[str, object]:
    """A state as JSON holds it; times in seconds, texts as they are."""
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
        "progress": dataclasses.asdict(progress) if progress else None,
        "others": [{"job": job.id, "command": job.command, "state": word} for job, word in state.others],
    }


def _shown(states: Sequence[RunState]) -> RenderableType:
    return _one(states[0]) if len(states) == 1 else _table(states)


def _table(states: Sequence[RunState]) -> RenderableType:
    """Several runs, a line each; what has gone wrong stands below."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("run", "state", "step", "edits/s", "left", *SHOWN_METRICS, "saved", "job", "nodes"):
        right = name in ("step", "edits/s", "left", "saved", *SHOWN_METRICS)
        table.add_column(name, justify="right" if right else "left", no_wrap=name != "nodes")
    for state in states:
        progress = state.progress
        values = [_number(progress.metrics.get(name) if progress else None) for name in SHOWN_METRICS]
        table.add_row(
            Text(str(state.path)),
            _word(state),
            f"{progress.step}/{progress.max_steps}" if progress else "",
            f"{progress.edits_per_second:.1f}" if progress and progress.edits_per_second else "",
            _left(state),
            *values,
            str(progress.saved_step) if progress else "",
            state.job.id if state.job else "",
            Text(state.nodes),
        )
    told = [
        Text(f"{state.path}: {': '.join(part for part in (state.why, state.error) if part)}")
        for state in states
        if state.over and (state.why or state.error)
    ]
    return Group(table, *told)


def _one(state: RunState) -> RenderableType:
    """One run, a line for each thing known."""
    progress, job = state.progress, state.job
    rows: list[tuple[str, str | Text]] = [("run", Text(str(state.path))), ("state", _word(state))]
    if state.why:
        rows.append(("because" if state.over else "waits for", state.why))
    if state.error:
        rows.append(("last error", state.error))
    if progress:
        rows += _progress_rows(state, progress)
    if state.nodes:
        rows.append(("nodes", f"{state.nodes}, {_ranks(progress.ranks)}" if progress else state.nodes))
    if job:
        rows.append(("job", f"{job.id}, submitted {job.submitted}"))
        rows.append(("log", str(state.path / job.log)))
    for other, word in state.others:
        rows.append((other.command, f"job {other.id}: {word}; {state.path / other.log}"))
    if state.word == "done":
        rows += [("table", str(state.path / "results" / "table.md")), ("editor", str(state.path / "editor"))]
    if state.word in ("failed", "stopped", "cancelled", "lost"):
        rows.append(
            ("to go on", f"instructedit submit --resume {quoted(state.path)}" if job else "run the same command again")
        )
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    for name, value in rows:
        grid.add_row(Text(name, style="dim"), value if isinstance(value, Text) else Text(value))
    return grid


def _progress_rows(state: RunState, progress: Progress) -> list[tuple[str, str]]:
    share = 100 * progress.step / progress.max_steps
    phase = f", {progress.phase}" if state.word == "running" else ""
    rows = [("step", f"{progress.step} of {progress.max_steps} ({share:.0f} %){phase}")]
    if progress.seconds_per_step:
        rate = f"{progress.edits_per_second:.1f} edits/s, {progress.tokens_per_second:.0f} tokens/s, "
        rows.append(("rate", f"{rate}{progress.seconds_per_step:.2f} s a step"))
    if _left(state):
        rows.append(("left", _left(state)))
    if progress.memory_gib:
        rows.append(("memory", f"{progress.memory_gib:.1f} GiB at most"))
    rows.append(("device hours", f"{progress.device_seconds / 3600:.2f} over all starts"))
    rows.append(("checkpoint", f"step {progress.saved_step}, {state.path / 'checkpoints' / 'last.ckpt'}"))
    for name, value in progress.metrics.items():
        rows.append((name, _number(value)))
    rows.append(("heard from", f"{_duration(max(0.0, time.time() - progress.updated))} ago"))
    return rows


def _ranks(n: int) -> str:
    return "1 rank" if n == 1 else f"{n} ranks"


def _word(state: RunState) -> Text:
    word: str = state.word
    if state.requeues and state.word != "done":
        limit = f" of {state.job.max_requeues}" if state.job else ""
        word += f" (requeue {state.requeues}{limit})"
    if state.word == "running" and state.progress and state.progress.phase != "training":
        word += f", {state.progress.phase}"
    return Text(word, style=STYLES.get(state.word, ""))


def _left(state: RunState) -> str:
    seconds = state.progress.remaining_seconds if state.progress and not state.over else None
    return "" if seconds is None else _duration(seconds)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _duration(seconds: float) -> str:
    """A time as people say it.

    >>> _duration(59), _duration(3700), _duration(200000)
    ('59 s', '1 h 01 min', '2 d 07 h')
    """
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    if whole < 60:
        return f"{whole} s"
    if hours < 1:
        return f"{minutes} min"
    if hours < 48:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{hours // 24} d {hours % 24:02d} h"
