from pathlib import Path

import pytest

from instructedit.runs.state import find_runs, state_of
from tests.benchmarks.scripts import last_line, load
from tests.lightning_modules.conftest import llama_folder, prepared, write_experiment

__all__ = ["llama_folder", "prepared"]

startup = load("startup")


def test_the_made_up_runs_are_runs(tmp_path: Path) -> None:
    startup.make_up_runs(tmp_path)
    states = [state_of(run) for run in find_runs([], tmp_path)]
    assert len(states) == 10
    assert {state.word for state in states} == {"done", "stopped", "failed", "running"}
    assert all(state.progress for state in states)


def test_a_bar_is_met_or_missed() -> None:
    help_ = startup.Start("--help", ("--help",), 0.5)
    assert startup.verdict(help_, 0.4) == ("0.5 s", "met")
    assert startup.verdict(help_, 0.5) == ("0.5 s", "MISSED")
    assert startup.verdict(startup.Start("fit", ("fit",)), 9.0) == ("", "")


def test_fresh_processes_are_timed_and_the_first_is_not_counted() -> None:
    help_ = startup.Start("--help", ("--help",), 0.5)
    assert [len(seconds) for seconds in startup.measure([help_], 2).values()] == [2]


def test_another_exit_status_than_expected_ends_the_benchmark() -> None:
    with pytest.raises(SystemExit, match="ended with 2"):
        startup.measure([startup.Start("nothing", ("no-such-command",))], 1)


@pytest.mark.slow
def test_the_script_prints_a_table_and_a_line_of_json(
    prepared: Path,
    llama_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(startup, "prepared", lambda folder: prepared)
    config = write_experiment(tmp_path, prepared, llama_folder)
    startup.main(["--repeats", "1", "--no-fit", "--config", str(config)])
    found = last_line(capsys.readouterr().out)
    assert list(found["seconds"]) == ["--help", "submit --dry-run", "status, no runs", "status, 10 runs"]
    assert found["fit_first_step_s"] == []


@pytest.mark.slow
def test_a_training_is_watched_until_its_first_step(prepared: Path, llama_folder: Path, tmp_path: Path) -> None:
    config = write_experiment(tmp_path, prepared, llama_folder)
    checked, stepped = startup.first_step(tmp_path, config, prepared, "float32", "one")
    assert 0 < checked < stepped
    assert (tmp_path / "fits" / "one" / "metrics.csv").read_text().count("\n") >= 2
