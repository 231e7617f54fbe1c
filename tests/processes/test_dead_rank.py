"""When a rank fails, is killed or does not answer, all end soon and the cause is told; on the command line too."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lightning_modules.conftest import rows, write_experiment
from tests.processes.conftest import Place, last
from tests.processes.test_kills import alive

STRATEGIES = [
    pytest.param("ddp", marks=pytest.mark.slow),
    pytest.param("fsdp2", marks=pytest.mark.long),
    pytest.param("zero_2", marks=pytest.mark.deepspeed),
    pytest.param("zero_3", marks=pytest.mark.deepspeed),
]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_rank_that_fails_tells_why_and_ends_all(strategy: str, place: Place) -> None:
    job = place.start("run", strategy, 2, patch="fail_at", step=6, rank=1)
    begun = time.monotonic()
    assert job.wait(60) == [1, 1]
    print(f"{strategy}: all ended {time.monotonic() - begun:.1f} s after the start")
    assert "rank 1 failed:" in job.output(1) and "ZeroDivisionError: made to fail" in job.output(1)
    assert "Traceback" in job.output(1) and "Traceback" not in job.output(0)
    assert "error: rank 0 ends because another rank has ended" in job.output(0)
    assert last(place.path("run"))["global_step"] == 4
    assert "going on at step 4 from" in place.start("run", strategy, 2).succeeds().output()


@pytest.mark.long
def test_a_rank_that_does_not_answer_is_given_up(place: Place) -> None:
    job = place.start("run", "ddp", 2, "--processes.timeout_minutes", "0.1", patch="hang_at", step=3, rank=1)
    job.until(lambda: not job.processes[0].is_alive(), 60)
    assert "error: rank 0 ends because another rank has ended or does not answer" in job.output(0)
    job.kill(signal.SIGKILL)
    assert job.wait(10) == [1, 137]


# --- the true command line: rank zero launches the others ------------------------------------------------------------
def begin(place: Place, strategy: str) -> tuple[subprocess.Popen[str], int]:
    """Start a long run of two ranks; the process of rank 0 and the id of rank 1."""
    config = write_experiment(place.folder, place.data, place.base, "run", checkpoint__every_n_steps=3)
    argv = [sys.executable, "-m", "instructedit", "fit", "--config", str(config), "--trainer.max_steps", "500"]
    argv += ["--validation.every_n_steps", "500", "--trainer.devices", "2", "--trainer.strategy", strategy]
    process = subprocess.Popen(
        argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    metrics = place.path("run") / "metrics.csv"
    for _ in range(900):
        if metrics.exists() and len(rows(metrics)) > 5:
            break
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    (other,) = [int(pid) for pid in children if "LOCAL_RANK" in environment(pid)]
    return process, other


def environment(pid: str) -> str:
    return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")


def gone(pid: int, seconds: float = 15.0) -> bool:
    """Whether a process ends soon; one that nobody waits for any more counts as ended."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if not alive(pid) or Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    "number",
    [pytest.param(signal.SIGINT, marks=pytest.mark.long), pytest.param(signal.SIGTERM, marks=pytest.mark.slow)],
)
def test_a_signal_to_the_job_saves_and_ends_it(number: signal.Signals, place: Place) -> None:
    process, other = begin(place, "ddp")
    # Ctrl-C goes to all processes of the terminal's group; a scheduler may tell the first one only.
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    output = process.communicate(timeout=60)[0]
    assert process.returncode == 0 and f"by {number.name}; run the same command again" in output, output
    assert gone(other)
    assert f"stopped at step {last(place.path('run'))['global_step']} by" in output


@pytest.mark.parametrize(
    ("strategy", "which"),
    [
        pytest.param("ddp", 0, marks=pytest.mark.long),
        pytest.param("ddp", 1, marks=pytest.mark.slow),
        pytest.param("zero_2", 0, marks=pytest.mark.deepspeed),
        pytest.param("zero_2", 1, marks=pytest.mark.deepspeed),
    ],
)
def test_a_killed_rank_leaves_no_process_behind(strategy: str, which: int, place: Place) -> None:
    process, other = begin(place, strategy)
    os.kill((process.pid, other)[which], signal.SIGKILL)
    begun = time.monotonic()
    process.communicate(timeout=30)
    assert process.returncode != 0 and gone(other) and time.monotonic() - begun < 20
    assert last(place.path("run"))["global_step"] % 3 == 0
