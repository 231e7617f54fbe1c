"""How a study runs the commands of this program: as processes of their own, or in this one."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

from instructedit.errors import InputError
from instructedit.scheduling import ENDED

Call = Callable[[Sequence[str]], None]
"""Runs one command line of this program; raises where it did not end well."""


class NotDone(Exception):
    """A command ended before its work did.

    Args:
        told: what and why, one line.
        status: the exit status that the whole should end with.
        stopped: whether somebody stopped it, so that nothing else is to be begun.
    """

    def __init__(self, told: str, status: int, stopped: bool = False) -> None:
        super().__init__(told)
        self.status = status
        self.stopped = stopped


def in_processes(threads: int | None = None) -> Call:
    """Run each command as a process of its own, which is told of a signal too, so that it saves what it has.

    Args:
        threads: of each process; None leaves it to the environment.
    """

    def call(words: Sequence[str]) -> None:
        # In a job, the study's end is this process's to tell, not that of a part.
        environment = {name: value for name, value in os.environ.items() if name != ENDED}
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        with _passing_signals_on() as told:
            process = subprocess.Popen([sys.executable, "-m", "instructedit", *words], env=environment)
            told.append(process)
            while True:
                try:
                    status = process.wait()
                    break
                except KeyboardInterrupt:  # the child has it from the terminal, too
                    told.append(None)
        if len(told) > 1:
            raise NotDone(f"`instructedit {words[0]}` was stopped.", 130, stopped=True)
        if status:
            raise NotDone(f"`instructedit {words[0]}` ended with status {status}.", status if status > 0 else 1)

    return call


def in_this_process(words: Sequence[str]) -> None:
    """Run a command in this process: saves the seconds of its imports, which is most of a tiny run."""
    from argparse import ArgumentError

    from instructedit.cli import run

    try:
        run(list(words))
    except (InputError, ArgumentError) as error:
        raise NotDone(f"`instructedit {words[0]}`: {error}", 2) from error
    except SystemExit as error:
        if error.code not in (0, None):
            status = error.code if isinstance(error.code, int) else 1
            raise NotDone(f"`instructedit {words[0]}` ended with status {status}.", status) from error


@contextmanager
def _passing_signals_on() -> Iterator[list[Any]]:
    """Hand SIGTERM and SIGUSR1 to the child; the list holds it, and None behind it once a signal came."""
    told: list[Any] = []

    def handler(number: int, _frame: FrameType | None) -> None:
        if told and told[0].poll() is None:
            told[0].send_signal(number)
        told.append(None)

    names = [name for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), handler) for name in names}
    try:
        yield told
    finally:
        for name, kept in before.items():
            signal.signal(getattr(signal, name), kept)
