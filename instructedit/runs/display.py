"""What `status` shows of runs on a terminal: a table of several, all that is known of one.

Knows how it looks; what is so, `state` finds out. Texts of a run may hold anything and are shown as plain text.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from instructedit.runs.progress import Progress
from instructedit.runs.state import RunState
from instructedit.runs.words import Word
from instructedit.terminal import quoted, shown

STYLES: dict[Word, str] = {
    "running": "green",
    "done": "bold green",
    "failed": "bold red",
    "lost": "bold red",
    "cancelled": "yellow",
    "stopped": "yellow",
    "unknown": "yellow",
}

GAP = 2
"""Between two columns of the table."""

STATE_WIDTH = 24
"""A longer state goes on in the next line."""


def display(states: Sequence[RunState], note: str = "") -> RenderableType:
    """Make what is shown of runs.

    Args:
        states: the runs.
        note: what is to be told of all of them; empty for nothing.
    """
    notes = [Text(shown(note), style="yellow")] if note else []
    return Group(*notes, _one(states[0]) if len(states) == 1 else RunTable(states))


@dataclass(frozen=True)
class Column:
    """One column of the table.

    Args:
        name: its head.
        text: what a run has there.
        right: whether it holds numbers.
    """

    name: str
    text: Callable[[RunState], str]
    right: bool = True


def _of_progress(tell: Callable[[Progress], str]) -> Callable[[RunState], str]:
    return lambda state: tell(state.progress) if state.progress else ""


COLUMNS = (
    Column("step", _of_progress(lambda told: f"{told.step}/{told.max_steps}")),
    Column("left", lambda state: _left(state)),
    Column("val/score", _of_progress(lambda told: _number(told.metrics.get("val/score")))),
    Column("edits/s", _of_progress(lambda told: f"{told.edits_per_second:.1f}" if told.edits_per_second else "")),
    Column("train/loss", _of_progress(lambda told: _number(told.metrics.get("train/loss")))),
    Column("saved", _of_progress(lambda told: str(told.saved_step))),
    Column("job", lambda state: state.job.id if state.job else "", right=False),
    Column("nodes", lambda state: state.nodes, right=False),
)
"""Beside the run and its state, in their order."""

DROPPED = ("nodes", "saved", "train/loss", "edits/s", "job", "left", "val/score", "step")
"""Where the terminal is narrow: these leave, the first ones first."""


class RunTable:
    """Several runs, a line each, as wide as the terminal; what has gone wrong stands below.

    A run's name is never cut: it goes on in the next line, and other columns leave before that.

    Args:
        states: the runs.
    """

    def __init__(self, states: Sequence[RunState]) -> None:
        self.states = states
        self.folder = _common([state.path for state in states])
        self.names = [shown(os.path.relpath(state.path, self.folder) if self.folder else state.path) for state in states]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Fit it to the width there is."""
        if self.folder:
            yield Text(f"in {shown(self.folder)}:", style="dim", overflow="fold")
        words = [_word(state) for state in self.states]
        least = min(max(map(len, self.names)), max(24, options.max_width // 3))
        state = min(max(map(len, words)), STATE_WIDTH)
        columns = self._columns(options.max_width - max(least, 3) - max(state, 5) - GAP)
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, GAP - 1, 0, 0))
        table.add_column("run", overflow="fold", min_width=least)
        table.add_column("state", overflow="fold", max_width=max(STATE_WIDTH, 5))
        for column in columns:
            table.add_column(column.name, justify="right" if column.right else "left", no_wrap=True)
        for name, word, each in zip(self.names, words, self.states, strict=True):
            table.add_row(Text(name), word, *(Text(shown(column.text(each))) for column in columns))
        yield table
        for name, each in zip(self.names, self.states, strict=True):
            for line in _below(each):
                yield Text(f"{name}: {shown(line)}", overflow="fold")

    def _columns(self, room: int) -> list[Column]:
        """The columns that have something in them and fit, beside the run and its state."""
        texts = {column.name: [column.text(state) for state in self.states] for column in COLUMNS}
        widths = {name: max(len(name), *map(len, of)) + GAP for name, of in texts.items() if any(of)}
        for name in DROPPED:
            if sum(widths.values()) > room:
                widths.pop(name, None)
        return [column for column in COLUMNS if column.name in widths]


def _common(paths: Sequence[Path]) -> str:
    """The folder all of these lie in, as it was written; empty where there is none to speak of."""
    parents = [path.parent.parts for path in paths]
    first = parents[0]
    length = next((n for n in range(len(first), 0, -1) if all(parts[:n] == first[:n] for parts in parents)), 0)
    return str(Path(*first[:length])) if length else ""


def _below(state: RunState) -> list[str]:
    """What a line of the table has no place for."""
    told = []
    if (state.over or state.word == "unknown") and (state.why or state.error):
        told.append(": ".join(part for part in (state.why, state.error) if part))
    return [*told, *state.notes]


def _one(state: RunState) -> RenderableType:
    """One run, a line for each thing known."""
    progress, job = state.progress, state.job
    rows: list[tuple[str, str | Text]] = [("run", str(state.path)), ("state", _word(state))]
    if state.why:
        rows.append(("waits for" if state.word in ("queued", "requeued") else "because", state.why))
    if state.error:
        rows.append(("last error", state.error))
    rows += [("note", note) for note in state.notes]
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
        again = f"instructedit submit --resume {quoted(state.path)}"
        rows.append(("to go on", again if job else "run the same command again"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in rows:
        grid.add_row(Text(shown(name), style="dim"), value if isinstance(value, Text) else Text(shown(value)))
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
        word += f" ({'' if word == 'requeued' else 'requeue '}{state.requeues}{limit})"
    if state.word == "running" and state.progress and state.progress.phase != "training":
        word += f", {state.progress.phase}"
    if state.silent:
        word += f", but silent for {_duration(state.silent)}"
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
