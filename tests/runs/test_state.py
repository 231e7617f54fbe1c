"""What `status` makes of a run directory, of SLURM's answers and of a job's log."""

import dataclasses
import json
import math
import os
import platform
from pathlib import Path

import pytest

from instructedit.errors import InputError
from instructedit.runs import words
from instructedit.runs.jobs import JobRecord, add_job, read_jobs
from instructedit.runs.progress import Progress, read_progress, write_progress
from instructedit.runs.logs import last_error
from instructedit.runs.state import find_runs, state_of, states_of
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
    known = (lambda job: slurm.parse_job(job, line)) if state else (lambda job: None)
    monkeypatch.setattr(slurm, "show_job", known)


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
        (
            {"state": "OUT_OF_MEMORY", "code": "0:125"},
            "running",
            "failed",
            "OUT_OF_MEMORY, it used more memory than it had asked for with --mem",
        ),
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


NEW = dataclasses.replace(JOB, id="8", log="slurm/8.log")


def test_what_the_job_before_a_resume_has_told_is_not_the_new_ones(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_job(run, JOB)
    add_job(run, NEW)
    (run / "slurm" / "8.log").write_text("error: no such module\n")
    write_progress(run, Progress("failed", 3, 9, job="7", restarts=20, nodes="n7", host="n7", reason="the old one's"))
    answer(monkeypatch, "PENDING", reason="Priority", nodes="(null)")
    found = state_of(run)
    assert (found.word, found.why, found.requeues, found.nodes) == ("queued", "Priority", 0, "")
    assert found.progress is not None and found.progress.step == 3
    answer(monkeypatch, "RUNNING", nodes="n8")
    assert (state_of(run).word, state_of(run).requeues, state_of(run).nodes) == ("starting", 0, "n8")
    answer(monkeypatch, None)  # it died before its first step, long ago
    found = state_of(run)
    assert (found.word, found.why) == ("lost", "job 8 is not known to the scheduler any more")
    assert found.error == "error: no such module" and found.nodes == ""


def test_a_start_by_hand_after_a_job_is_what_counts(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_job(run, JOB)
    write_progress(run, Progress("running", 3, 9, host=platform.node(), pid=os.getpid()))
    for state in ("FAILED", None):
        answer(monkeypatch, state)
        assert (state_of(run).word, state_of(run).error) == ("running", "")
    answer(monkeypatch, "PENDING")
    assert state_of(run).word == "queued"


def test_a_job_nobody_can_be_asked_about(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "installed", lambda: False)
    add_job(run, JOB)
    assert (state_of(run).word, state_of(run).over) == ("unknown", False) and "job 7" in state_of(run).why
    write_progress(run, Progress("requeued", 3, 9, job="7", reason="told"))
    assert (state_of(run).word, state_of(run).why) == ("requeued", "told")


def test_a_running_job_that_is_silent_is_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_job(run, JOB)
    write_progress(run, Progress("running", 3, 9, job="7", seconds_per_step=60.0))
    answer(monkeypatch, "RUNNING")
    assert state_of(run).silent == 0
    written = (run / "progress.json").stat().st_mtime
    monkeypatch.setattr(words.time, "time", lambda: written + 590)
    assert state_of(run).silent == 0  # ten of its steps
    monkeypatch.setattr(words.time, "time", lambda: written + 9000)
    assert state_of(run).word == "running" and 8990 < state_of(run).silent < 9010


def test_slurm_is_asked_once_for_many_runs_and_may_be_away(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def show(ids: list[str]) -> dict[str, slurm.SlurmJob]:
        asked.append(list(ids))
        return {"7": slurm.parse_job("7", LINE.format(state="RUNNING", restarts=2, reason="None", nodes="n", code="0"))}

    monkeypatch.setattr(slurm, "installed", lambda: True)
    monkeypatch.setattr(slurm, "show_jobs", show)
    other = run.parent / "other"
    other.mkdir()
    add_job(run, JOB)
    add_job(other, NEW)
    found, silence = states_of([run, other])
    assert asked == [["7", "8"]] and silence == ""
    assert [(state.word, state.requeues) for state in found] == [("starting", 2), ("lost", 0)]

    def down(ids: list[str]) -> dict[str, slurm.SlurmJob]:
        raise slurm.SchedulerError("Unable to contact slurm controller")

    monkeypatch.setattr(slurm, "show_jobs", down)
    write_progress(run, Progress("running", 3, 9, job="7", host="n1"))
    found, silence = states_of([run, other])
    assert silence == "Unable to contact slurm controller"
    assert [state.word for state in found] == ["running", "unknown"]
    with pytest.raises(slurm.SchedulerError):
        state_of(run)


@pytest.mark.parametrize(
    ("field", "value"),
    [("max_steps", 0), ("max_steps", None), ("step", "a"), ("metrics", [1]), ("metrics", {"a": None}), ("updated", "x")]
    + [("pid", 10**30), ("state", ["running"]), ("seconds_per_step", math.nan), ("reason", 1), ("step", True)],
)
def test_a_damaged_progress_is_told(
    run: Path, monkeypatch: pytest.MonkeyPatch, field: str, value: object
) -> None:
    monkeypatch.setattr(slurm, "installed", lambda: False)
    write_progress(run, Progress("running", 3, 9, host=platform.node(), pid=os.getpid()))
    content = json.loads((run / "progress.json").read_text())
    (run / "progress.json").write_text(json.dumps(content | {field: value}))
    found = state_of(run)
    assert (found.word, found.progress) == ("unknown", None)
    assert len(found.notes) == 1 and f"progress.json is damaged: {field} is " in found.notes[0]
    for torn in ("{", "[]", "[" * 100_000, '{"state": "done"}'):
        (run / "progress.json").write_text(torn)
        assert "progress.json is damaged" in state_of(run).notes[0]
    add_job(run, JOB)
    answer(monkeypatch, "RUNNING")
    assert state_of(run).word == "starting" and state_of(run).notes


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
    monkeypatch.setattr(words.time, "time", lambda written=(run / "progress.json").stat().st_mtime: written + 3600)
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


def test_a_run_with_two_names_comes_once_and_a_long_name_is_none(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (run.parent / "link").symlink_to(run)
    monkeypatch.chdir(run.parent.parent)
    names = ["runs/demo", str(run), "runs/link", "//" + str(run).lstrip("/"), "demo"]
    assert find_runs(names, Path("runs")) == [Path("runs/demo")]
    assert find_runs(["//" + str(run).lstrip("/")], Path("runs")) == [run] and str(run)[:2] != "//"
    assert find_runs([], Path("//" + str(run.parent).lstrip("/"))) == [run]
    with pytest.raises(InputError, match="No run at 'xxx"):
        find_runs(["x" * 300], Path("runs"))
    with pytest.raises(InputError, match="no runs in 'xxx"):
        find_runs([], Path("x" * 300))


@pytest.fixture
def locked(run: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """A folder beside the run and one in a group that only their owner may read; root may read all, so it is made up."""
    closed = [run.parent / "closed", run.parent / "sweep" / "seed-1"]
    for path in (*closed, run.parent / "sweep" / "seed-0"):
        path.mkdir(parents=True)
        (path / "run.json").write_text("{}")
    access, isfile = os.access, os.path.isfile
    monkeypatch.setattr(os, "access", lambda path, mode: path not in closed and access(path, mode))
    monkeypatch.setattr(os.path, "isfile", lambda path: Path(path).parent not in closed and isfile(path))
    return closed


def test_a_folder_that_cannot_be_read_is_told_and_left_out(run: Path, locked: list[Path]) -> None:
    left: list[str] = []
    assert find_runs([], run.parent, left) == [run, run.parent / "sweep" / "seed-0"]
    assert all(f"left out: Cannot read the folder {path}: Perm" in line for line, path in zip(left, locked, strict=True))
    assert len(left) == 2
    assert find_runs(["demo", "sweep"], run.parent, left) == [run, run.parent / "sweep" / "seed-0"]
    with pytest.raises(InputError, match="Cannot read the folder .*closed: Permission denied"):
        find_runs(["closed"], run.parent, left)
    with pytest.raises(InputError, match="Cannot read the folder"):
        find_runs([], run.parent)


def test_files_of_a_run_that_cannot_be_read_are_told(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, *_args: object, **_more: object) -> str:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(slurm, "installed", lambda: False)
    add_job(run, JOB)
    write_progress(run, Progress("done", 9, 9))
    for name in ("read_text", "open"):
        monkeypatch.setattr(Path, name, denied)
    found = state_of(run)
    assert found.word == "unknown" and found.notes == (
        "progress.json cannot be read: Permission denied",
        "slurm/jobs.jsonl cannot be read: Permission denied",
    )
