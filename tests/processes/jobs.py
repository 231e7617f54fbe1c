"""Trainings in real processes, each forked from a server that has imported everything once: a start takes a moment.

The ranks talk over gloo as they would under any launcher that sets LOCAL_RANK.
"""

import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path

PRELOADED = ["lightning_modules.parser", "lightning_modules.report", "deepspeed"]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(PRELOADED)

WAIT_SECONDS = 150.0


class Job:
    """One start of ``instructedit fit`` on some ranks.

    Args:
        argv: what follows ``fit``.
        ranks: how many processes.
        folder: where each rank's output goes.
        patch: ``"module:function"``, called in each rank before the program, with ``patch_args``.
        patch_args: a mapping of texts.
    """

    def __init__(
        self,
        argv: list[str],
        ranks: int,
        folder: Path,
        patch: str | None = None,
        patch_args: Mapping[str, str] | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("*.log")))
        self.logs = [folder / f"{number:03d}-rank{rank}.log" for rank in range(ranks)]
        port = free_port()
        argv = [*argv, "--trainer.accelerator", "cpu", "--trainer.devices", str(ranks)]
        self.processes: list[BaseProcess] = []
        for rank, log in enumerate(self.logs):
            env = {"LOCAL_RANK": str(rank), "NODE_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            arguments = (argv, env if ranks > 1 else {}, log, patch, dict(patch_args or {}))
            self.processes.append(SERVER.Process(target=run_rank, args=arguments, daemon=True))
        for process in self.processes:
            process.start()

    @property
    def pids(self) -> list[int]:
        return [process.pid or 0 for process in self.processes]

    def output(self, rank: int = 0) -> str:
        return self.logs[rank].read_text(errors="replace") if self.logs[rank].exists() else ""

    def kill(self, number: signal.Signals, rank: int | None = None) -> None:
        """Send a signal to one rank, or to all of them."""
        for process in self.processes if rank is None else [self.processes[rank]]:
            if process.is_alive():
                os.kill(process.pid or 0, number)

    def settled(self, seconds: float = 5.0) -> list[int | None]:
        """Give the ranks some time to end, and return the statuses of those that have."""
        end = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
        return [None if code is None else _as_shell(code) for code in (p.exitcode for p in self.processes)]

    def wait(self, seconds: float = WAIT_SECONDS) -> list[int]:
        """Wait for all ranks; the statuses as a shell tells them."""
        end = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
        if any(process.is_alive() for process in self.processes):
            told = "\n".join(f"--- rank {rank}\n{self.output(rank)[-3000:]}" for rank in range(len(self.logs)))
            self.kill(signal.SIGKILL)
            raise AssertionError(f"not all ranks have ended after {seconds} s\n{told}")
        return [_as_shell(process.exitcode or 0) for process in self.processes]

    def until(self, done: Callable[[], bool], seconds: float = WAIT_SECONDS) -> None:
        """Wait until something is so, or all ranks have ended."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if done() or not any(process.is_alive() for process in self.processes):
                return
            time.sleep(0.01)
        raise AssertionError(f"nothing happened in {seconds} s:\n{self.output()[-3000:]}")

    def succeeds(self) -> "Job":
        """Wait and check that all ranks end well."""
        codes = self.wait()
        assert set(codes) == {0}, (codes, *(self.output(rank)[-3000:] for rank in range(len(self.logs))))
        return self


def run_rank(argv: list[str], env: dict[str, str], log: Path, patch: str | None, patch_args: dict[str, str]) -> None:
    """What a forked process does."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # the server ignores it
    os.environ.update(env)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    import torch

    torch.set_num_threads(1)
    if patch:
        module, _, function = patch.partition(":")
        getattr(import_module(module), function)(**patch_args)
    from instructedit import cli

    cli.main(["fit", *argv])


def _as_shell(code: int) -> int:
    return 128 - code if code < 0 else code


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
