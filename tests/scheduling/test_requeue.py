"""What becomes of a job that is told to stop, by SLURM's answers; the real daemons are in tests/slurm."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from instructedit.cli import COMMANDS, Command, run
from instructedit.scheduling import ENDED, MAX_REQUEUES, slurm
from instructedit.scheduling.requeue import STATUS, CurrentJob, current_job, ends_on_signals, requeue, used_up
from instructedit.scheduling.slurm import SchedulerError

Answer = Callable[[str | None], list[str]]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Let SLURM know the job in this state; returns the list of jobs that it is asked to requeue."""

    def answered(state: str | None) -> list[str]:
        asked: list[str] = []
        line = f"JobId=7 JobName=x JobState={state} Reason=None ExitCode=0:0"
        monkeypatch.setattr(slurm, "show_job", lambda job: slurm.parse_job(job, line) if state else None)
        monkeypatch.setattr(slurm, "requeue", asked.append)
        return asked

    return answered


@pytest.fixture(autouse=True)
def job(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("SLURM_JOB_ID", "9")
    monkeypatch.setenv(MAX_REQUEUES, "3")


def test_the_current_job_and_an_arrays_task(monkeypatch: pytest.MonkeyPatch) -> None:
    assert current_job() == CurrentJob("9", 0, 3)
    for name, value in {"RESTART_COUNT": "2", "ARRAY_JOB_ID": "7", "ARRAY_TASK_ID": "4"}.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert current_job() == CurrentJob("7_4", 2, 3)
    monkeypatch.delenv(MAX_REQUEUES)
    assert current_job() is None  # somebody else's script looks after its job


def test_a_running_job_is_requeued_until_it_has_been_often_enough(answer: Answer) -> None:
    asked = answer("RUNNING")
    first = requeue(CurrentJob("7", 0, 2))
    assert first.requeued and first.told == "job 7 goes on by itself (requeue 1 of 2)" and asked == ["7"]
    last = requeue(CurrentJob("7", 2, 2))
    assert not last.requeued and last.reason == "out of requeues: 2 of 2 requeues used" and asked == ["7"]


@pytest.mark.parametrize("state", ["COMPLETING", "CANCELLED", "TIMEOUT"])
def test_a_job_that_is_over_stays_so(answer: Answer, state: str) -> None:
    asked = answer(state)
    assert not requeue(CurrentJob("7", 0, 2)).requeued and not asked


def test_a_refusal_is_told(answer: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    answer("RUNNING")

    def refused(job: str) -> None:
        raise SchedulerError("SLURM refused `scontrol requeue 7`: Requested operation is presently disabled")

    monkeypatch.setattr(slurm, "requeue", refused)
    assert "presently disabled" in requeue(CurrentJob("7", 0, 2)).reason


def test_starts_beyond_the_cap_are_seen() -> None:
    assert used_up(CurrentJob("7", 2, 2)) == ""
    assert "started again 3 times, more than the 2" in used_up(CurrentJob("7", 3, 2))


@pytest.mark.parametrize(("restarts", "status"), [("1", 0), ("3", STATUS)])
def test_a_command_that_loses_nothing_ends_at_once(
    answer: Answer,
    restarts: str,
    status: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    asked = answer("RUNNING")
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    before = signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end, ends_on_signals():
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
            signal.pause()
        except Exception:  # what a command catches is no signal
            pytest.fail("caught")
    assert end.value.code == status and asked == (["9"] if status == 0 else [])
    assert "stopped by SIGUSR1; job 9" in capsys.readouterr().out
    assert (signal.getsignal(signal.SIGUSR1), signal.getsignal(signal.SIGTERM)) == before


def test_a_command_that_ends_well_leaves_its_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ENDED, str(tmp_path / "9.ended"))
    monkeypatch.setitem(COMMANDS, "prepare", Command("builtins:int", "", takes="argv"))
    with pytest.raises(TypeError):  # of a list
        run(["prepare"])
    assert not (tmp_path / "9.ended").exists()
    monkeypatch.setitem(COMMANDS, "prepare", Command("builtins:len", "", takes="argv"))
    run(["prepare"])
    assert (tmp_path / "9.ended").exists()
    monkeypatch.setenv(ENDED, str(tmp_path / "nowhere" / "9.ended"))
    run(["prepare"])
    assert "warning: cannot write" in capsys.readouterr().err
