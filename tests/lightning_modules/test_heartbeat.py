"""What a run tells of itself while it goes on, and of how it ended; and what becomes of its job."""

import json
import os
import signal
from pathlib import Path

import pytest

from instructedit.runs.jobs import JobRecord, add_job
from instructedit.runs.processes import mark
from instructedit.runs.progress import Progress, read_progress, write_progress
from instructedit.runs.state import state_of
from instructedit.scheduling import slurm
from lightning_modules.callbacks import heartbeat
from tests.lightning_modules.conftest import Write, run
from tests.lightning_modules.test_resume import at_loss


def told(folder: Path) -> Progress:
    found = read_progress(folder / "runs" / "run")
    assert found is not None
    return found


def as_a_job(monkeypatch: pytest.MonkeyPatch, restarts: int, state: str = "RUNNING") -> list[str]:
    """Pretend to be in a job that may start again twice; returns what SLURM was asked to requeue."""
    asked: list[str] = []
    environment = {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": str(restarts), "INSTRUCTEDIT_MAX_REQUEUES": "2"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(slurm, "show_job", lambda job: slurm.parse_job(job, f"JobId=7 JobState={state} ExitCode=0:0"))
    monkeypatch.setattr(slurm, "requeue", asked.append)
    return asked


def stopped_in_the_third_step(monkeypatch: pytest.MonkeyPatch, config: Path) -> int:
    with monkeypatch.context() as patch:
        at_loss(patch, 3, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        return run("fit", "--config", config)


@pytest.mark.slow
def test_it_tells_each_phase_and_that_it_is_done(
    write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    phases: list[tuple[str, str, int]] = []
    scored: list[bool] = []
    real = heartbeat.write_progress

    def seen(path: Path, progress: Progress) -> None:
        phases.append((progress.state, progress.phase, progress.step))
        scored.extend(["val/score" in progress.metrics] if progress.step > 3 else [])
        real(path, progress)

    monkeypatch.setattr(heartbeat, "write_progress", seen)
    monkeypatch.setattr(heartbeat, "SECONDS", 0.0)
    assert run("fit", "--config", write_config()) == 0
    assert phases[0] == ("running", "training", 0) and phases[-1] == ("done", "test", 6)
    assert {phase for _, phase, _ in phases} == {"training", "validation", "test"}
    assert scored and all(scored)
    last = told(tmp_path)
    assert (last.step, last.max_steps, last.saved_step, last.ranks) == (6, 6, 6, 1)
    assert (last.pid, last.process) == (os.getpid(), mark(os.getpid()))
    assert last.metrics["val/score"] > 0 and last.device_seconds > 0 and last.seconds_per_step > 0
    assert state_of(tmp_path / "runs" / "run").word == "done"


@pytest.mark.slow
def test_a_job_that_is_told_to_stop_is_requeued_and_told(
    write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = as_a_job(monkeypatch, restarts=1)
    assert stopped_in_the_third_step(monkeypatch, write_config()) == 0
    assert asked == ["7"]
    assert "stopped at step 3 by SIGUSR1; job 7 goes on by itself (requeue 2 of 2)" in capsys.readouterr().out
    last = told(tmp_path)
    assert (last.state, last.step, last.saved_step, last.job, last.restarts) == ("requeued", 3, 3, "7", 1)


@pytest.mark.slow
def test_out_of_requeues_is_status_3_and_a_start_beyond_them_trains_nothing(
    write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config()
    asked = as_a_job(monkeypatch, restarts=2)
    assert stopped_in_the_third_step(monkeypatch, config) == 3 and not asked
    printed = capsys.readouterr().out
    assert "job 7 is not started again: 2 of 2 requeues used" in printed
    assert f"`instructedit submit --resume {tmp_path}/runs/run` goes on with it" in printed
    assert told(tmp_path).state == "stopped" and "out of requeues" in told(tmp_path).reason
    as_a_job(monkeypatch, restarts=3)  # by SLURM itself, after a node went down
    assert run("fit", "--config", config) == 3
    assert "more than the 2 it may be" in capsys.readouterr().out
    assert (told(tmp_path).state, told(tmp_path).step) == ("stopped", 3)
    # SLURM counts its own restarts: what the program tells is of this one.
    add_job(tmp_path / "runs" / "run", JobRecord("7", "fit", "2026-01-01T00:00:00+00:00", "", "7.log", max_requeues=2))
    ended = slurm.parse_job("7", "JobId=7 JobState=FAILED Restarts=3 ExitCode=3:0")
    monkeypatch.setattr(slurm, "installed", lambda: True)
    monkeypatch.setattr(slurm, "show_job", lambda job: ended)
    found = state_of(tmp_path / "runs" / "run")
    assert (found.word, found.requeues) == ("stopped", 3) and "more than the 2 it may be" in found.why


@pytest.mark.slow
def test_a_cancelled_job_and_a_run_without_one_are_left_alone(
    write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = as_a_job(monkeypatch, restarts=0, state="COMPLETING")
    assert stopped_in_the_third_step(monkeypatch, write_config("cancelled")) == 3 and not asked
    monkeypatch.delenv("INSTRUCTEDIT_MAX_REQUEUES")  # somebody's own job script
    assert stopped_in_the_third_step(monkeypatch, write_config()) == 0 and not asked
    assert told(tmp_path).state == "stopped"


@pytest.mark.slow
def test_a_failure_is_told_with_its_reason(
    write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails() -> None:
        raise RuntimeError("a thing\nbroke")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        at_loss(patch, 3, fails)
        run("fit", "--config", write_config())
    assert (told(tmp_path).state, told(tmp_path).reason) == ("failed", "RuntimeError: a thing broke")


@pytest.mark.slow
def test_a_file_that_cannot_be_written_ends_no_training(
    write_config: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, progress: Progress) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(heartbeat, "write_progress", full)
    assert run("fit", "--config", write_config()) == 0
    assert caplog.text.count("No space left on device") == 1


def test_unknown_fields_of_a_later_version_are_left_out(tmp_path: Path) -> None:
    write_progress(tmp_path, Progress("running", 1, 2))
    content = json.loads((tmp_path / "progress.json").read_text())
    (tmp_path / "progress.json").write_text(json.dumps(content | {"colour": "red"}))
    assert read_progress(tmp_path) == Progress("running", 1, 2, updated=content["updated"])
