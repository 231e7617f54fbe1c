"""``instructedit prepare --trunk``: fill the trunk store of a run before the run, in one process or in several.

Imports nothing heavy by itself: the signal handlers are in place before torch is imported.
"""

import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from instructedit import signals
from instructedit.errors import InputError

if TYPE_CHECKING:
    from instructedit.base import TrunkStore
    from lightning_modules.edit_datamodule import EditDataModule
    from lightning_modules.editor_module import EditorModule
    from lightning_modules.trunk_inputs import DistinctInputs

INPUTS_AT_ONCE = 20_000
"""Inputs handed to the trunk in one call: blocks that are read from disk are read once for many passes of a call."""

ENTRY_BYTES = 250
"""What a pack holds of a state besides its numbers, about: its name, place and checksum."""

LINE_SECONDS = 30.0
"""Seconds between two lines where there is no terminal."""


def fill(argv: Sequence[str]) -> None:
    """Fill the trunk store of a run with all that the run will ask of it; nothing is written to the run's directory.

    A signal (SIGTERM, SIGUSR1, Ctrl-C) writes what is computed and ends it with exit status 0; the same command goes
    on.

    Args:
        argv: the flags of ``fit``, and ``--steps`` and ``--part``; see ``instructedit prepare --trunk --help``.

    Raises:
        InputError: bad input of any kind, or the folder cannot take what is to be computed.
    """
    signals.install()
    from lightning_modules.parser import EditorCLI

    class FillCLI(EditorCLI):
        def add_arguments_to_parser(self, parser: Any) -> None:
            super().add_arguments_to_parser(parser)
            steps = "Only what the first so many optimiser steps ask; else all steps, the validations and the test."
            parser.add_argument("--steps", type=int | None, default=None, help=steps)
            part = "i/n: the i-th of n parts, counted from 1; n processes then fill one folder."
            parser.add_argument("--part", type=str, default="1/1", help=part)

    cli = FillCLI("prepare --trunk", argv)
    module, data = cli.model, cli.datamodule
    if not module.placed.store.folder:
        raise InputError("The run keeps no states on disk. Set model.store.folder, for instance to data/trunk-states.")
    part = _part(cli.config.part)
    steps = _steps(cli.config.steps, cli.trainer.max_steps)
    module.placed.in_one_process()
    data.load_pools(module.method)
    base = module.build(cli.trainer.strategy.root_device)
    data.build(base, module.method)
    data.check(base)
    inputs = _inputs(module, data, steps, evaluated=cli.config.steps is None)
    if not signals.requested():
        store = module.stage.store
        _compute(store, _missing(store, inputs, base.d_model, part))
        where = store.packs.folder if store.packs else ""
    if signals.requested():
        print(f"stopped by {signals.requested()}; run the same command again to go on", flush=True)
        return
    print(f"done: the states are in {where}", flush=True)
    print("`instructedit fit` reads them; give it the same --config files and flags, but for --steps and --part.")


def _part(text: str) -> tuple[int, int]:
    i, _, n = text.partition("/")
    if not (i.isdecimal() and n.isdecimal() and 1 <= int(i) <= int(n)):
        raise InputError(f"--part is {text!r}. Give it as i/n, such as 2/4 for the second of four parts.")
    return int(i), int(n)


def _steps(asked: int | None, max_steps: int) -> int:
    if max_steps < 1:
        raise InputError(f"trainer.max_steps is {max_steps}. Set it to 1 or more.")
    if asked is not None and not 1 <= asked <= max_steps:
        raise InputError(f"--steps is {asked}. Give 1 to {max_steps}, which is trainer.max_steps, or leave it out.")
    return asked or max_steps


def _inputs(module: "EditorModule", data: "EditDataModule", steps: int, evaluated: bool) -> "DistinctInputs":
    """Collect all that the run will ask, or what it asks until a signal comes."""
    from lightning_modules.trunk_inputs import DistinctInputs, of_step, of_test, of_validation, of_warm_up

    found = DistinctInputs()
    found.add(of_warm_up(module, data))
    with _shown("looking through the steps", "steps", steps) as advance:
        for step in range(steps):
            if signals.requested():
                return found
            found.add(of_step(data, step))
            advance(1)
    if evaluated:
        found.add(of_validation(module, data))
        found.add(of_test(module, data))
    return found


def _missing(store: "TrunkStore", inputs: "DistinctInputs", width: int, part: tuple[int, int]) -> "DistinctInputs":
    """Say how much is to be done, and return what this part has to compute.

    Raises:
        InputError: the folder cannot take it.
    """
    from lightning_modules.trunk_inputs import DistinctInputs

    packs, missing = store.packs, DistinctInputs()
    assert packs is not None and store.folder is not None
    for portion in inputs.portions(INPUTS_AT_ONCE):
        missing.add(store.missing(portion))
    mine = missing.part(*part)
    size = missing.n_tokens * width * store.dtype.itemsize + len(missing) * ENTRY_BYTES
    used, limit, free = packs.used_bytes, packs.limit_bytes, shutil.disk_usage(store.folder).free
    print(f"distinct inputs  {len(inputs):,}, {inputs.n_tokens:,} tokens")
    print(f"already there    {len(inputs) - len(missing):,}")
    print(f"to compute       {len(missing):,}, {missing.n_tokens:,} tokens", end="")
    print(f"; part {part[0]}/{part[1]}: {len(mine):,}" if part[1] > 1 else "")
    print(f"to write         {_size(size)}, in {packs.folder}")
    print(f"disk             {_size(used)} of model.store.disk_gib {_size(limit)} used, {_size(free)} free", flush=True)
    advice = (
        "make room, choose another model.store.folder, keep the states in model.store.dtype bfloat16, or fill less "
    )
    advice += "with --steps"
    if used + size > limit:
        raise InputError(
            f"{store.folder} would grow to {_size(used + size)}, but model.store.disk_gib is {_size(limit)}. Raise it, "
            f"or {advice}. A training computes what is not there."
        )
    if size > free:
        raise InputError(f"{_size(size)} are to be written to {store.folder}, where {_size(free)} are free: {advice}.")
    return mine


def _compute(store: "TrunkStore", inputs: "DistinctInputs") -> None:
    """Compute and write, until a signal comes.

    Raises:
        InputError: the folder takes no more.
    """
    with _shown("computing", "tokens", inputs.n_tokens) as advance:
        for portion in inputs.portions(INPUTS_AT_ONCE):
            left = sum(map(len, portion))
            for tokens in store.fill(portion):
                advance(tokens)
                left -= tokens
                if signals.requested():
                    store.flush()
                    return
            advance(left)  # what another process has computed meanwhile
    store.flush()
    if store.packs and store.packs.stopped:
        raise InputError(f"{store.packs.stopped}.")


@contextmanager
def _shown(what: str, unit: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show progress with rate and remaining time on stderr: a bar on a terminal, else a line now and then."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(*columns, TextColumn("{task.fields[rate]}"), console=console, disable=not console.is_terminal)
    task = bar.add_task(what, total=total, rate="")
    start = line = time.monotonic()
    done = 0

    def advance(n: int) -> None:
        nonlocal done, line
        done += n
        now = time.monotonic()
        rate = done / max(now - start, 1e-9)
        bar.update(task, completed=done, rate=f"{rate:,.0f} {unit}/s")
        if not console.is_terminal and now - line > LINE_SECONDS:
            line = now
            left = (total - done) / rate if rate else 0.0
            text = f"{what}: {done:,}/{total:,} {unit}, {rate:,.0f} {unit}/s, {left / 60:.0f} minutes left"
            print(text, file=sys.stderr, flush=True)

    with bar:
        yield advance


def _size(size: float) -> str:
    return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.3g} MiB"
