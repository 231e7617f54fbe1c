"""What ``reproduce`` refuses before the work, and what it needs for a report alone."""

from pathlib import Path

import pytest

from instructedit.commands.reproduce import reproduce
from instructedit.errors import InputError
from instructedit.provenance import Revision
from instructedit.study.plan import read_study
from instructedit.study.results import Results

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
