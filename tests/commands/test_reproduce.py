"""What ``reproduce`` refuses before the work, and what it needs for a report alone."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from filelock import FileLock

from instructedit.commands.reproduce import reproduce
from instructedit.errors import InputError
from instructedit.provenance import Revision
from instructedit.study.plan import read_study
from instructedit.study.results import Results
from tests.study.test_runner import Commands

PLAN = """
name: s
prepare: instructedit prepare --here
evaluate: {base: tiny, tasks: [recent], records: 1}
runs: {base: {method: none, table: true}, ft-l: {method: ft-l, table: true}}
"""
LINE = {"id": "r", "task": "recent", "method": "Base", "metric": "reliability", "value": 0.5}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("study.yaml").write_text(PLAN)


def kept(out: str) -> None:
    study = read_study("study.yaml")
    Results(study, out).put(study.run("base"), [LINE], {"training": None, "evaluation": {"seconds": {}}}, "")


def test_a_report_alone_needs_no_prepared_data(capsys: pytest.CaptureFixture[str]) -> None:
    kept("elsewhere")
    reproduce("study.yaml", out="elsewhere", only_report=True)
    assert "1 of 2 runs" in Path("elsewhere/REPORT.md").read_text()
    # The command that goes on writes where this one did.
    assert "instructedit reproduce --study study.yaml --out elsewhere" in capsys.readouterr().out
    with pytest.raises(InputError, match="not prepared.*prepare --here"):
        reproduce("study.yaml", out="elsewhere", allow_dirty=True)


def test_changed_code_is_refused_before_a_training_and_not_hours_later(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("data/prepared/recent").mkdir(parents=True)
    monkeypatch.setattr("instructedit.provenance.revision", lambda: Revision("c" * 40, True))
    with pytest.raises(InputError, match="--allow_dirty true"):
        reproduce("study.yaml")
    assert not Path("runs").exists()


@pytest.mark.parametrize("ends", ["done", "killed"])
def test_a_run_another_process_had_is_not_named_when_it_is_done_and_made_when_that_was_killed(
    ends: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("study.yaml").write_text(PLAN.replace("ft-l: {method: ft-l, table: true}", "other: {method: none}"))
    Path("data/prepared/recent").mkdir(parents=True)
    monkeypatch.setattr("instructedit.provenance.revision", lambda: Revision("c" * 40, False))
    monkeypatch.setattr("instructedit.commands.reproduce._report", lambda *_: None)
    commands, lock = Commands(), FileLock("runs/study/s/base/study.lock")
    Path("runs/study/s/base").mkdir(parents=True)
    lock.acquire()

    def call(words: Sequence[str]) -> None:
        commands(words)
        if lock.is_locked:  # while `other` is made here
            if ends == "done":
                kept("results/study/s")
            lock.release()

    monkeypatch.setattr("instructedit.study.calls.in_processes", lambda threads: call)
    reproduce("study.yaml")
    told = capsys.readouterr().out
    assert "another process" not in told
    assert Results(read_study("study.yaml"), Path("results/study/s")).done == ["base", "other"]
    assert len(commands.asked) == (1 if ends == "done" else 2)
