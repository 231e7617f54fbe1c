"""A real SLURM cluster on this machine for the tests of this folder: the project's own slurm/testcluster."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instructedit.scheduling import slurm
from instructedit.scheduling.slurm import SlurmJob

# The places to train in: tiny bases, prepared tasks, and a writer of small experiments.
from tests.lightning_modules.conftest import gpt2_folder, llama_folder, prepared, write_config  # noqa: F401

TESTCLUSTER = Path(__file__).parents[2] / "slurm" / "testcluster"
DAEMONS = ("slurmctld", "slurmd", "munged", "sbatch")
OVER = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "DEADLINE", "OUT_OF_MEMORY"}


class Cluster:
    """What tests ask of the running cluster; jobs are named by their ids."""

    nodes = ("node1", "node2")

    def job(self, job: str) -> SlurmJob:
        found = slurm.show_job(job)
        assert found is not None, f"job {job} is unknown"
        return found

    def until(self, job: str, done: Callable[[SlurmJob], bool], seconds: float, log: Path | None = None) -> SlurmJob:
        """Wait until something is so of a job."""
        end = time.monotonic() + seconds
        while True:
            found = self.job(job)
            if done(found):
                return found
            if time.monotonic() > end:
                told = log.read_text(errors="replace")[-4000:] if log and log.exists() else "no log"
                raise AssertionError(f"job {job} is {found.state} ({found.reason}) after {seconds} s\n{told}")
            time.sleep(0.3)

    def ended(self, job: str, seconds: float = 240, log: Path | None = None) -> SlurmJob:
        """Wait until a job is over: it is not waiting for another start."""
        return self.until(job, lambda found: found.state in OVER, seconds, log)

    def call(self, *command: str) -> str:
        """Run one of SLURM's programs."""
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout

    def bring_back(self, node: str, seconds: float = 60) -> None:
        """Take a node that was set down into service again, unless it has come back by itself.

        With ReturnToService=2 a node is in service again as soon as its slurmd registers, at a time of its own; SLURM
        refuses to resume a node that is in service.
        """
        end = time.monotonic() + seconds
        while "DOWN" in self.call("scontrol", "show", "node", "-o", node).partition(" State=")[2].split(" ", 1)[0]:
            told = subprocess.run(
                ["scontrol", "update", f"nodename={node}", "state=resume"], capture_output=True, text=True, timeout=60
            )
            assert time.monotonic() < end, f"{node} is still down after {seconds} s: {told.stderr}"
            time.sleep(0.2)

    def signal_rank(self, job: str, rank: int, number: signal.Signals) -> int:
        """Send a signal to one rank's process and return its id."""
        pid = self.pid_of_rank(job, rank)
        os.kill(pid, number)
        return pid

    def pid_of_rank(self, job: str, rank: int) -> int:
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                parts = path.read_bytes().split(b"\0")
                words = (path.parent / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            mine = {f"SLURM_JOB_ID={job}".encode(), f"SLURM_PROCID={rank}".encode()} <= set(parts)
            # srun has the job script's environment, where SLURM_PROCID is 0, and the command among its words.
            if mine and b"instructedit" in words and not words[0].endswith(b"srun"):
                return int(path.parent.name)
        raise AssertionError(f"rank {rank} of job {job} has no process")

    def until_rank_is_there(self, job: str, rank: int, handles: signal.Signals | None = None) -> None:
        """Wait until a rank has a process, and that a handler of its own for a signal."""
        end = time.monotonic() + 60
        while True:
            try:
                status = Path(f"/proc/{self.pid_of_rank(job, rank)}/status").read_text()
                if handles is None or int(status.partition("SigCgt:")[2].split()[0], 16) >> (handles - 1) & 1:
                    return
            except (AssertionError, OSError):
                pass
            assert time.monotonic() < end, f"rank {rank} of job {job} is not there, or handles no {handles}"
            time.sleep(0.01)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """The cluster, from the first test that needs it to the last."""
    missing = [name for name in DAEMONS if shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None]
    if (missing or os.geteuid()) and not os.environ.get("CI"):
        pytest.skip(f"needs root and SLURM's daemons on this machine; missing: {', '.join(missing) or 'root'}")
    # Short: a socket's path has at most 107 bytes. Readable for all: munged asks for it.
    folder = Path(tempfile.mkdtemp(prefix="ie-slurm-", dir="/tmp"))
    folder.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTRUCTEDIT_SLURM_FOLDER", str(folder))
        patch.setenv("INSTRUCTEDIT_SLURM_PORT", str(_free_ports(4)))
        for name in [name for name in os.environ if name.startswith(("SLURM_", "SBATCH_"))]:
            patch.delenv(name)
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        patch.setenv("OMP_NUM_THREADS", "1")
        # What needs no network must not look for it.
        patch.setenv("HF_HUB_OFFLINE", "1")
        started = subprocess.run(["bash", str(TESTCLUSTER / "up.sh")], capture_output=True, text=True, timeout=300)
        assert started.returncode == 0, started.stderr
        try:
            yield Cluster()
        finally:
            subprocess.run(["bash", str(TESTCLUSTER / "down.sh"), "--purge"], timeout=120)


def _free_ports(n: int) -> int:
    """The first of n ports in a row nobody listens on now."""
    for first in range(27000 + os.getpid() % 3000, 32000, n):
        try:
            for port in range(first, first + n):
                with socket.socket() as found:
                    found.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise AssertionError("no free ports")
