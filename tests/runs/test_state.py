"""What `status` makes of a run directory, of SLURM's answers and of a job's log."""

import os
import platform
from pathlib import Path

import pytest

from instructedit.errors import InputError
from instructedit.runs import state as states
from instructedit.runs.jobs import JobRecord, add_job, read_jobs
from instructedit.runs.progress import Progress, read_progress, write_progress
from instructedit.runs.state import find_runs, last_error, state_of
from instructedit.scheduling import slurm

LINE = (
    "JobId=7 JobName=demo UserId=u(0) Requeue=1 Restarts={restarts} JobState={state} Reason={reason} "
    "NodeList={nodes} ExitCode={code} Command=/x/JobState=COMPLETED WorkDir=/a b/c"
)
JOB = JobRecord("7", "fit", "2026-01-01T00:00:00+00:00", "slurm/fit.sbatch", "slurm/7.log", max_requeues=3)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "demo"
    path.mkdir(parents=True)
    (path / "run.json").write_text("{}")
    return path


def answer(monkeypatch: pytest.MonkeyPatch, state: str | None, **changes: object) -> None:
    """Let SLURM answer like this; None: it does not know the job."""
    fields = {"restarts": 0, "reason": "None", "nodes": "n[1-2]", "code": "0:0"} | changes
    line = LINE.format(state=state, **fields)
    monkeypatch.setattr(slurm, "installed", lambda: True)
    monkeypatch.setattr(slurm, "show_job", lambda job: slurm.parse_job(job, line) if state else None)


@pytest.mark.parametrize(
    ("job", "progress", "word", "why"),
    [
        ({"state": "PENDING", "reason": "Resources"}, None, "queued", "Resources"),
        ({"state": "PENDING", "reason": "BeginTime", "restarts": 1}, "requeued", "requeued", "BeginTime"),
        ({"state": "RUNNING"}, None, "starting", ""),
        ({"state": "RUNNING", "restarts": 1}, "requeued", "starting", ""),
        ({"state": "RUNNING"}, "running", "running", ""),
        ({"state": "COMPLETED"}, "done", "done", ""),
        ({"state": "FAILED", "code": "0:9"}, "running", "failed", "FAILED, killed by SIGKILL"),
        ({"state": "FAILED", "code": "2:0"}, None, "failed", "FAILED, exit status 2"),
        ({"state": "FAILED", "code": "1:0"}, "failed", "failed", "told (FAILED, exit status 1)"),
        ({"state": "FAILED", "code": "3:0"}, "stopped", "stopped", "told"),
        ({"state": "CANCELLED"}, "running", "cancelled", "CANCELLED"),
        ({"state": "TIMEOUT", "reason": "TimeLimit"}, "running", "failed", "TIMEOUT, TimeLimit"),
        ({"state": None}, "requeued", "lost", "told; job 7 is not known to the scheduler any more"),
    ],
)
def test_a_run_with_a_job(
    run: Path, monkeypatch: pytest.MonkeyPatch, job: dict[str, str], progress: str | None, word: str, why: str
) -> None:
    add_job(run, JOB)
    if progress:
        write_progress(run, Progress(progress, 3, 9, job="7", reason="told"))  # type: ignore[arg-type]
    answer(monkeypatch, **job)  # type: ignore[arg-type]
    found = state_of(run)
    assert (found.word, found.why) == (word, why)


def test_a_progress_of_the_start_before_is_no_sign_of_life(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_job(run, JOB)
    write_progress(run, Progress("running", 3, 9, job="7", restarts=0))
    answer(monkeypatch, "RUNNING", restarts=1)
    assert state_of(run).word == "starting"


def test_without_a_scheduler_the_process_is_looked_for(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "installed", lambda: False)
    assert state_of(run).word == "new"
    alive = Progress("running", 3, 9, host=platform.node(), pid=os.getpid(), seconds_per_step=2.0)
    write_progress(run, alive)
    assert state_of(run).word == "running" and alive.remaining_seconds == 12.0
    gone = Progress("running", 3, 9, host=platform.node(), pid=2**22 + 1)
    write_progress(run, gone)
    assert (state_of(run).word, state_of(run).why) == ("lost", "its process is gone")
    write_progress(run, Progress("running", 3, 9, host="elsewhere", pid=1))
    assert state_of(run).word == "running"
    monkeypatch.setattr(states.time, "time", lambda written=(run / "progress.json").stat().st_mtime: written + 3600)
    assert state_of(run).word == "lost"


def test_torn_files_are_no_hindrance(run: Path) -> None:
    add_job(run, JOB)
    with (run / "slurm" / "jobs.jsonl").open("a") as file:
        file.write('{"id": "8", "comm')
    (run / "progress.json").write_text('{"state": "run')
    assert read_jobs(run) == [JOB] and read_progress(run) is None


def test_the_line_that_tells_most(tmp_path: Path) -> None:
    log = tmp_path / "7.log"
    lost = "error: rank 1 ends because another rank has ended or does not answer; its own message tells why (x: y)."
    later = ["srun: error: node2: task 1: Exited with exit code 1", "srun: error: node3: task 2: Terminated"]
    lines = ["srun: error: node1: task 0: Killed", lost, *later, "slurmstepd: error: *** STEP 7.0 CANCELLED ***"]
    log.write_text("\n".join(lines))
    assert last_error(log) == lines[0]
    log.write_text("\n".join([*lines, "Traceback (most recent call last):", "  x", "ValueError: bad thing", lines[-1]]))
    assert last_error(log) == "ValueError: bad thing"
    log.write_text("\n".join(["error: No run", *lines]))
    assert last_error(log) == "error: No run"
    log.write_text("\n".join(["error: of the start before", "=== job 7 on node1, start 2", lines[-1]]))
    assert last_error(log) == lines[-1]
    assert last_error(tmp_path / "none") == ""


def test_names_folders_and_groups_are_found(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point = run.parent / "sweep" / "seed-0"
    point.mkdir(parents=True)
    (point / "config.yaml").write_text("{}")
    (run.parent / "junk").mkdir()
    assert find_runs([], run.parent) == [run, point]
    assert find_runs(["demo", "sweep", str(run)], run.parent) == [run, point]
    with pytest.raises(InputError, match="No run at 'junk'"):
        find_runs(["junk"], run.parent)
    with pytest.raises(InputError, match="no runs in"):
        find_runs([], run.parent / "junk")
