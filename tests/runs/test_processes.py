"""Whether a process is the one that wrote something, or a later one that was given its number."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from instructedit.runs import processes
from instructedit.runs.processes import is_alive, mark

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


@pytest.fixture
def other() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"])
    yield process
    process.kill()
    process.wait()


def test_a_process_is_told_from_a_later_one_of_its_number(other: subprocess.Popen[bytes]) -> None:
    assert is_alive(os.getpid(), mark(os.getpid())) == "yes" and is_alive(other.pid, mark(other.pid)) == "yes"
    space, _, started = mark(other.pid).rpartition(" ")
    assert is_alive(other.pid, f"{space} {int(started) - 1}") == "no"
    assert is_alive(other.pid, f"another boot {started}") == "unknown"


def test_of_a_process_that_left_no_mark_its_age_tells(other: subprocess.Popen[bytes]) -> None:
    assert is_alive(other.pid, "", time.time()) == "yes" and is_alive(other.pid) == "yes"
    assert is_alive(other.pid, "", time.time() - 3600) == "no"
    assert is_alive(2**22 + 1) == "no" and is_alive(10**30) == "no"


def test_a_process_that_has_ended_and_was_not_waited_for_is_none(other: subprocess.Popen[bytes]) -> None:
    marked = mark(other.pid)
    other.kill()
    while processes._started(other.pid):
        time.sleep(0.01)
    assert is_alive(other.pid, marked) == is_alive(other.pid) == "no" and mark(other.pid) == ""
