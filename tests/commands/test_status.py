"""`instructedit status` as a user calls it, on run directories made for it."""

import dataclasses
import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from instructedit import cli
from instructedit.runs.display import display
from instructedit.runs.jobs import JobRecord, add_job
from instructedit.runs.progress import Progress, write_progress
from instructedit.runs.state import find_runs, states_of
from instructedit.scheduling import slurm


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder to work in, on a machine without SLURM; a test may put one there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(slurm, "installed", lambda: False)


def job(id: str, **changes: object) -> JobRecord:
    told = {"submitted": "2026-01-01T00:00:00+00:00", "log": f"slurm/{id}.log", "max_requeues": 3} | changes
    return JobRecord(id, "fit", script="slurm/fit.sbatch", **told)  # type: ignore[arg-type]


def make(name: str, progress: Progress | None = None, *jobs: JobRecord) -> Path:
    run = Path("runs") / name
    run.mkdir(parents=True)
    (run / "run.json").write_text("{}")
    for each in jobs:
        add_job(run, each)
    if progress:
        write_progress(run, progress)
    return run


def status(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    cli.run(["status", *argv])
    return capsys.readouterr().out


def test_the_command_to_go_on_is_quoted(capsys: pytest.CaptureFixture[str]) -> None:
    make("$(touch pwn) x", Progress("failed", 3, 9, job="7", reason="told"), job("7"))
    said = status(capsys)
    assert "instructedit submit --resume 'runs/$(touch pwn) x'" in said


def test_a_hostile_name_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    make("\x1b[31mred\nline", Progress("failed", 3, 9, reason="a\x1b[31m b"))
    make("other")
    for said in (status(capsys), status(capsys, "runs/\x1b[31mred\nline")):
        assert "\x1b" not in said and "\\x1b[31mred\\nline" in said and "a\\x1b[31m b" in said
    told = json.loads(status(capsys, "--json"))
    assert [run["run"] for run in told] == ["runs/\x1b[31mred\nline", "runs/other"]


def sweep(names: list[str]) -> list[str]:
    for place, name in enumerate(names):
        told = Progress("running", 1234, 30000, host="elsewhere", edits_per_second=12.5, seconds_per_step=1.0)
        scores = {"val/score": 61.25 + place, "train/loss": 0.7312}
        write_progress(make(f"demo/{name}"), dataclasses.replace(told, metrics=scores))
    return names


LONG = [
    f"method-InstructEdit_base-smollm2-135m_tasks-zsre-counterfact-convsent_lr-1e-4_rank-64_seed-{n}" for n in (0, 1)
]


@pytest.mark.parametrize("width", [80, 100, 160])
@pytest.mark.parametrize(
    "names", [["lr-1e-4_rank-64_seed-0", "lr-1e-4_rank-64_seed-1", "lr-3e-4_rank-64_seed-0"], LONG]
)
def test_names_are_whole_and_the_table_is_no_wider_than_the_terminal(names: list[str], width: int) -> None:
    assert all(len(name) >= 90 for name in LONG)
    sweep(names)
    states, _ = states_of(find_runs([], Path("runs")))
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(display(states))
    said = console.export_text()
    assert max(map(len, said.splitlines())) <= width and said.startswith("in runs/demo:\n")
    whole = "".join(line.split(" ")[0] for line in said.splitlines()[1:])
    assert all(name in whole for name in names), said
    assert all(part in said for part in ("running", "1234/30000", "61.25", "7 h 59 min"))
    assert ("0.7312" in said) == (width > 80) or names is LONG
    assert "…" not in said and "..." not in said
    if names is not LONG:
        assert said.count("\n") == 3 + len(names)


def test_runs_of_two_groups_are_told_apart(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("alone", "a/seed-0", "b/seed-0"):
        make(name)
    said = status(capsys)
    assert "in runs:\n" in said
    assert [line.split()[0] for line in said.splitlines() if "new" in line] == ["a/seed-0", "alone", "b/seed-0"]


def test_slurm_that_does_not_answer_is_told_and_the_rest_is_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []

    def down(jobs: list[str]) -> dict[str, slurm.SlurmJob]:
        looks.append(len(jobs))
        if len(looks) == 3:
            return {"7": slurm.parse_job("7", "JobId=7 JobState=FAILED ExitCode=1:0")}
        raise slurm.SchedulerError("SLURM refused `scontrol show job`: Unable to contact slurm controller")

    monkeypatch.setattr(slurm, "installed", lambda: True)
    monkeypatch.setattr(slurm, "show_jobs", down)
    make("a", Progress("running", 3, 9, job="7", host="n1"), job("7"))
    told = "SLURM does not answer: SLURM refused `scontrol show job`: Unable to contact slurm controller; "
    said = status(capsys)
    assert said.count("\n") > 5 and told + "told from the run directory alone." in said and "running" in said
    assert json.loads(status(capsys, "--json"))[0]["notes"] == [told + "told from the run directory alone."]
    looks.clear()
    said = status(capsys, "--follow", "--every", "0.01")
    assert looks == [1, 1, 1] and said.count("does not answer") == 2 and "FAILED, exit status 1" in said


def test_what_cannot_be_read_leaves_the_others_alone(capsys: pytest.CaptureFixture[str]) -> None:
    make("a", Progress("done", 9, 9))
    bad = make("b", Progress("running", 3, 9))
    (bad / "progress.json").write_text('{"state": "running", "step": 3, "max_steps": 0}')
    said = status(capsys)
    assert "9/9" in said and "b: progress.json is damaged: max_steps is 0" in said
    assert "progress.json is damaged" in status(capsys, "b")


def test_a_silent_job_says_so(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"7": slurm.parse_job("7", "JobId=7 JobState=RUNNING")}
    monkeypatch.setattr(slurm, "installed", lambda: True)
    monkeypatch.setattr(slurm, "show_jobs", lambda jobs: answer)
    run = make("a", Progress("running", 3, 9, job="7"), job("7"))
    content = json.loads((run / "progress.json").read_text())
    (run / "progress.json").write_text(json.dumps(content | {"updated": time.time() - 9000}))
    assert "running, but silent for 2 h 30 min" in status(capsys)
    make("b")
    said = " ".join(status(capsys).split())
    assert "running, but silent for" in said and "2 h 30 min" in said


def test_sixty_runs_are_shown_with_one_question_to_slurm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, does in (("scontrol", f'echo "$*" >> {tmp_path}/calls; cat {tmp_path}/jobs'), ("sbatch", "exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{does}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    for number in range(60):
        make(f"sweep/{number}", None, job(str(100 + number)))
    lines = (f"JobId={100 + number} JobName=x JobState=PENDING Reason=Priority Restarts=0" for number in range(60))
    (tmp_path / "jobs").write_text("\n".join(lines) + "\n")
    assert status(capsys).count("queued") == 60
    assert (tmp_path / "calls").read_text().splitlines() == ["show job -o"]
