"""Run directories read back: whole ones, old ones, torn ones, and what is none."""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from instructedit.comparison.local import read_run
from instructedit.comparison.runs import Cell
from instructedit.errors import InputError
from instructedit.runs.progress import Progress, write_progress
from tests.comparison.made import make_run, outcomes

ROOT = Path(__file__).parents[2]


def test_everything_a_run_directory_tells(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", rows=outcomes([1.0, 0.5]))
    write_progress(path, Progress("stopped", 20, 40, edits_per_second=3.5, device_seconds=7200.0))
    (path / "throughput.csv").write_text("step,edits_per_second\n10,3.0\n20,4.0\n")
    run = read_run(path, "a")
    assert (run.state, run.step, run.max_steps, run.edits_per_second, run.device_hours) == ("stopped", 20, 40, 3.5, 2.0)
    assert run.settings == {"model.lr": "0.001", "seed_everything": "0"}
    assert run.facts["commit"] == "a" * 12 and run.facts["dirty"] == "no" and run.facts["data zsre/test"] == "1" * 12
    assert run.best == (20, 60.0) and run.curves["throughput/edits_per_second"].values == [3.0, 4.0]
    assert run.row == "MEND" and run.cells["zsre", "MEND", "reliability"].mean == 0.75
    assert run.cells["zsre", "Base", "reliability_exact"] == Cell(0.0, 0.0, 0.0, 2)
    assert run.outcomes is not None and len(run.outcomes()) == 12


def test_rows_give_the_same_table_as_its_file(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", rows=outcomes([1.0, 0.5, 0.25]))
    before = read_run(path, "a").cells
    (path / "results" / "test.json").unlink()
    rows = path / "results" / "test.jsonl"
    (path / "test.jsonl.gz").write_bytes(gzip.compress(rows.read_bytes()))
    rows.unlink()
    assert read_run(path, "a").cells == before


def test_a_table_without_rows_and_a_run_that_only_was_submitted(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a", rows=outcomes([1.0]))
    (path / "results" / "test.jsonl").unlink()
    run = read_run(path, "a")
    assert run.outcomes is None and run.cells
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "run.json").write_text('{"wandb_id": "x"}')
    assert (read_run(tmp_path / "new", "new").curves, read_run(tmp_path / "new", "new").step) == ({}, None)


def test_a_torn_end_is_left_out_and_told(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a")
    with (path / "metrics.csv").open("a") as file:
        file.write("21,0.0")
    run = read_run(path, "a")
    assert run.step == 20 and run.curves["train/loss"].steps[-1] == 20
    assert len(run.notes) == 1 and "1 row at the end left out" in run.notes[0]


def test_a_last_row_that_is_cut_in_a_number_is_left_out(tmp_path: Path) -> None:
    path = make_run(tmp_path / "a")
    (path / "metrics.csv").write_text("step,train/loss\n1,0.5\n2,0.123")
    assert read_run(path, "a").curves["train/loss"].steps == [1]


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("config.yaml", "a: [", "not YAML"),
        ("config.yaml", "a: \xe9", "not YAML"),
        ("run.json", "{", "not JSON"),
        ("metrics.csv", "a,b\n1,2\n", "no column 'step'"),
        ("results/test.json", '{"Token accuracy": {"zsre": {"reliability": 1}}}', "no test table"),
        ("results/test.jsonl", '{"id": 1}\n', "no test rows"),
    ],
)
def test_a_broken_file_is_named_and_the_rest_is_read(tmp_path: Path, name: str, content: str, named: str) -> None:
    path = make_run(tmp_path / "a", rows=outcomes([1.0]))
    (path / name).write_bytes(content.encode("latin-1"))
    run = read_run(path, "a")
    if name == "results/test.jsonl":
        assert run.outcomes is not None and not run.notes
        with pytest.raises(InputError, match=named):
            run.outcomes()
    else:
        (note,) = run.notes
        assert named in note and str(path / name) in note and "\n" not in note
    assert bool(run.settings) == (name != "config.yaml") and bool(run.facts) == (name != "run.json")
    assert ("train/loss" in run.curves) == (name != "metrics.csv") and run.cells  # of test.json or its rows


@pytest.mark.parametrize("name", ["config.yaml", "run.json", "metrics.csv", "progress.json", "results/test.json"])
def test_a_file_that_may_not_be_read_is_named_and_the_rest_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = make_run(tmp_path / "a", rows=outcomes([1.0]))
    write_progress(path, Progress("done", 20, 20))
    for method in ("read_text", "read_bytes"):
        real = getattr(Path, method)

        def read(file: Path, *args: object, real: Any = real, **more: object) -> Any:
            if file == path / name:
                raise PermissionError(13, "Permission denied")
            return real(file, *args, **more)

        monkeypatch.setattr(Path, method, read)
    (note,) = read_run(path, "a").notes
    assert "Permission denied" in note and name.rpartition("/")[2] in note


def test_results_that_may_not_be_looked_into_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make_run(tmp_path / "a", rows=outcomes([1.0]))
    monkeypatch.setattr(os, "access", lambda place, mode: place != path / "results")
    (note,) = read_run(path, "a").notes
    assert f"Cannot read {path / 'results'}: Permission denied" in note


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("metrics.csv", "step,train/loss\n1,0.5\n2,0.4\n" + "\0" * 200_000, "1 row at the end left out"),
        ("metrics.csv", f"step,train/loss\n1,0.5\n2,0.4\n3,{'9' * 200_000}\n", "1 row at the end left out"),
        ("metrics.csv", f"step,train/loss\n1,0.5\n2,0.4\n{'3' * 5000},0.1\n", "1 row at the end left out"),
        ("metrics.csv", "\0" * 200_000, "is no CSV file"),
        ("run.json", '{"wandb_id": "x", "starts": 3, "data_sha256": [1], "fingerprint": {}}', ""),
        ("run.json", '{"wandb_id": "x", "starts": [3, {"commit": 5, "versions": 7}]}', ""),
        ("config.yaml", "model: &a\n  b: *a\n", "is no configuration"),
        ("config.yaml", "model: [{2020-01-01: 1}]\n", "is no configuration"),
        ("config.yaml", "model: {when: 2020-99-01}\n", "is not YAML"),
        ("progress.json", '{"state": "running", "step": "a", "max_steps": 9}', "progress.json is damaged"),
    ],
)
def test_odd_files_are_no_tracebacks(tmp_path: Path, name: str, content: str, told: str) -> None:
    path = make_run(tmp_path / "a", rows=outcomes([1.0]))
    (path / name).write_text(content)
    run = read_run(path, "a")
    assert [told in note for note in run.notes] == [True] * bool(told) and run.cells
    if "row at the end" in told:
        assert run.curves["train/loss"].steps == [1, 2]


@pytest.mark.parametrize("mean", ["NaN", "null", '"text"', "1e308", "Infinity", "true", "1" * 400])
def test_a_value_that_is_none_is_left_out_of_the_table(tmp_path: Path, mean: str) -> None:
    path = make_run(tmp_path / "a", rows=outcomes([1.0]))
    table = json.loads((path / "results" / "test.json").read_text())
    table["Token accuracy"]["zsre / MEND"]["reliability"] |= {"mean": "X"}
    (path / "results" / "test.json").write_text(json.dumps(table).replace('"X"', mean))
    run = read_run(path, "a")
    assert len(run.notes) == 1 and "1 value left out" in run.notes[0]
    assert ("zsre", "MEND", "reliability") not in run.cells and ("zsre", "MEND", "locality") in run.cells
    rows = path / "results" / "test.jsonl"
    rows.write_text(rows.read_text().replace('"value": 1.0', f'"value": {mean}'))
    assert run.outcomes is not None
    with pytest.raises(InputError, match="values that no test gives"):
        run.outcomes()


def test_an_evaluation_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps({"starts": []}))
    with pytest.raises(InputError, match="is no run directory"):
        read_run(tmp_path, "a")


LIGHT = """
import socket, sys
for name in ("torch", "transformers", "datasets", "lightning", "wandb", "plotly"):
    sys.modules[name] = None
socket.socket = None
from instructedit.cli import run
run(["compare", *sys.argv[1:]])
"""


def test_reading_local_runs_takes_no_network_and_nothing_heavy(tmp_path: Path) -> None:
    paths = [str(make_run(tmp_path / name, rows=outcomes([1.0, value]))) for name, value in (("a", 0.5), ("b", 0.25))]
    done = subprocess.run([sys.executable, "-c", LIGHT, *paths], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Paired test against a" in done.stdout
