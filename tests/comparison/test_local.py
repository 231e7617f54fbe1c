"""Run directories read back: whole ones, old ones, torn ones, and what is none."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

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
        ("run.json", "{", "not JSON"),
        ("metrics.csv", "a,b\n1,2\n", "no column 'step'"),
        ("results/test.json", '{"Token accuracy": {"zsre": {"reliability": 1}}}', "no test table"),
        ("results/test.jsonl", '{"id": 1}\n', "no test rows"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, name: str, content: str, named: str) -> None:
    path = make_run(tmp_path / "a", rows=outcomes([1.0]))
    (path / name).write_text(content)
    with pytest.raises(InputError, match=named):
        run = read_run(path, "a")
        assert run.outcomes is not None
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
