"""``instructedit analyse`` over a study's runs: what it tells, and how it ends."""

import shutil
from pathlib import Path

import pytest

from tests.analysis.made_study import PLAN, ROOT, make
from tests.lightning_modules.conftest import run


@pytest.fixture(autouse=True)
def at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.slow
def test_tells_what_it_says_what_it_wrote_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = make(tmp_path, records=6)
    shutil.rmtree(results.folder / "instructedit-recent-counterfact")
    assert run("analyse", "tasks", "--study", str(PLAN), "--results", str(tmp_path)) == 0
    told = capsys.readouterr().out
    assert "- Held-out zsre, reliability: 2 training tasks minus 1: not there yet." in told
    assert f"picture {tmp_path}/figures/tasks.png" in told
    assert f"reproduce --study {PLAN} --out {tmp_path} --only instructedit-recent-counterfact" in told
    assert (tmp_path / "figures/tasks.csv").is_file()


@pytest.mark.parametrize("name", ["transfer", "tasks", "balance", "instructions", "sensitivity"])
def test_nothing_there_ends_with_2_and_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("analyse", name, "--study", str(PLAN), "--results", str(tmp_path)) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: Nothing to draw") and "--only " in line


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(tmp_path / "results", ["balance-full"], records=4)
    (tmp_path / "taken").write_text("")
    argv = ("analyse", "balance", "--study", str(PLAN), "--results", str(tmp_path / "results"))
    assert run(*argv, "--out", str(tmp_path / "taken")) == 2
    assert "Choose another --out" in capsys.readouterr().err
