"""What a run directory remembers: the records, the base and the code a run was trained with."""

import errno
import json
import os
import shutil
import signal
from pathlib import Path
from types import SimpleNamespace

import pytest

from instructedit import signals
from instructedit.checkpoints import read_card
from instructedit.errors import MismatchError
from instructedit.provenance import Revision
from instructedit.runs import directory as run_directory
from tests.lightning_modules.conftest import Write, run
from tests.lightning_modules.test_resume import at_loss


@pytest.mark.slow
def test_results_name_the_code_that_trained(
    write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = iter("ab")
    monkeypatch.setattr(run_directory, "revision", lambda: Revision(next(code)))
    config = write_config(validation__every_n_steps=6)
    with monkeypatch.context() as patch:
        at_loss(patch, 3, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        assert run("fit", "--config", config) == 0
    signals.clear()
    assert run("fit", "--config", config) == 0
    path = tmp_path / "runs" / "run"
    starts = json.loads((path / "run.json").read_text())["starts"]
    assert [(start["commit"], start["dirty"], start["step"]) for start in starts] == [("a", False, 0), ("b", False, 3)]
    assert all(start["versions"]["torch"] for start in starts)
    monkeypatch.setattr("instructedit.checkpoints.revision", lambda: Revision("later"))
    assert run("test", "--from_run", path) == 0
    for found in (read_card(path / "editor"), SimpleNamespace(**json.loads((path / "results/test.json").read_text()))):
        assert (found.commit, found.dirty) == ("a, b", True)
    early = run_directory.RunDirectory(path).trained_by(3)
    assert (early["commit"], early["dirty"]) == ("a", False)


@pytest.mark.slow
def test_data_that_changed_under_a_run_is_refused(
    write_config: Write, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fit", "--config", write_config(trainer__max_steps=2)) == 0
    path = tmp_path / "runs" / "run"
    before = contents(path)
    for split, source in (("train", "validation"), ("validation", "test"), ("test", "validation")):
        other = tmp_path / split
        shutil.copytree(prepared, other)
        shutil.rmtree(other / "recent" / split)
        shutil.copytree(prepared / "recent" / source, other / "recent" / split)
        assert run("fit", "--config", write_config(trainer__max_steps=2, data__folder=str(other))) == 2
        assert f"other data: recent/{split} differ" in capsys.readouterr().err
        command = {"validation": "validate", "test": "test"}.get(split)
        assert command is None or run(command, "--from_run", path, "--data.folder", other) == 2
    assert run("test", "--from_run", path, "--data.test_records", 1) == 2
    assert "data.test_records (None, now 1)" in capsys.readouterr().err
    assert contents(path) == before


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_run_json_that_lists_no_starts_tells_of_one(tmp_path: Path) -> None:
    start = {"commit": "a", "dirty": True, "versions": {"torch": "2"}}
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.ckpt").touch()
    (tmp_path / "run.json").write_text(json.dumps({"wandb_id": "1", "fingerprint": "f", "data": {"x": "y"}, **start}))
    directory = run_directory.RunDirectory(tmp_path)
    assert directory.trained_by(2) == start
    directory.check_facts("f", {"x/train": "z"})
    record = directory.begin("a: 1", "f", {"x/train": "z"}, 2)
    assert record == directory.read() and record["wandb_id"] == "1"
    assert [begun["step"] for begun in record["starts"]] == [0, 2] and directory.trained_by(2) == start


def test_a_setting_offered_later_and_left_null_is_no_other_configuration(tmp_path: Path) -> None:
    directory = run_directory.RunDirectory(tmp_path)
    directory.checkpoints.mkdir()
    (directory.checkpoints / "last.ckpt").touch()
    directory.config.write_text("model: {lr: 0.1}\n")
    directory.check("model: {lr: 0.1, ke: null}\n")
    for changed in ("model: {lr: null}\n", "model: {lr: 0.1, ke: {hidden: 8}}\n"):
        with pytest.raises(MismatchError, match="model.(lr|ke.hidden)"):
            directory.check(changed)


def test_where_and_in_what_portions_may_change_but_not_the_states_dtype(tmp_path: Path) -> None:
    directory = run_directory.RunDirectory(tmp_path)
    directory.checkpoints.mkdir()
    (directory.checkpoints / "last.ckpt").touch()
    directory.config.write_text("model: {placement: replicated, store: {folder: a, disk_gib: 1, dtype: null}}\n")
    directory.check("model: {placement: sharded, store: {folder: b, disk_gib: 2, dtype: null}}\ntrainer: {devices: 4}")
    with pytest.raises(MismatchError, match="model.store.dtype"):
        directory.check("model: {placement: replicated, store: {folder: a, disk_gib: 1, dtype: bfloat16}}\n")


def test_a_file_system_without_locks_is_told_and_no_hindrance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(*_args: object, **_more: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    directory = run_directory.RunDirectory(tmp_path / "run")
    monkeypatch.setattr(directory._lock, "acquire", no_locks)
    directory.lock()
    directory.unlock()
    assert "knows no locks" in caplog.text
