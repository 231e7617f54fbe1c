"""A real process, really killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lightning_modules.conftest import Write, rows
from tests.lightning_modules.test_resume import assert_same_run

pytestmark = pytest.mark.long


def start(config: Path) -> subprocess.Popen[str]:
    argv = [sys.executable, "-m", "instructedit", "fit", "--config", str(config)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ))


def wait_for_step(path: Path, step: int) -> None:
    for _ in range(600):
        if path.exists() and any(int(row["step"]) >= step for row in rows(path)):
            return
        time.sleep(0.1)
    raise AssertionError("the run does not get on")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_run_that_is_killed_ends_as_if_it_had_not_been(
    number: signal.Signals, write_config: Write, tmp_path: Path
) -> None:
    settings = {"trainer__max_steps": 60, "validation__every_n_steps": 20, "checkpoint__every_n_steps": 7}
    # A process of its own too: this one may round otherwise after whatever ran in it.
    alone = start(write_config("alone", **settings))
    assert "training metrics" in alone.communicate(timeout=120)[0] and alone.returncode == 0
    config, path = write_config("killed", **settings), tmp_path / "runs" / "killed"
    process = start(config)
    wait_for_step(path / "metrics.csv", 10)
    process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    if number == signal.SIGTERM:
        assert process.returncode == 0 and "run the same command again" in output
    assert not (path / "results").exists()
    second = start(config)
    assert "training metrics" in second.communicate(timeout=120)[0] and second.returncode == 0
    assert_same_run(tmp_path / "runs" / "alone", path)
