"""`instructedit status` as a user calls it, on run directories made for it."""

from pathlib import Path

import pytest

from instructedit import cli
from instructedit.runs.jobs import JobRecord, add_job
from instructedit.runs.progress import Progress, write_progress
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
