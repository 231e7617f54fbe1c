"""Stopped or killed and gone on: the same to the bit as a run that was left alone."""

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from instructedit import signals
from instructedit.errors import InputError
from instructedit.runs.directory import RunDirectory
from lightning_modules import editor_module
from lightning_modules.callbacks import checkpoints, validation
from lightning_modules.callbacks.checkpoints import read_checkpoint
from tests.lightning_modules.conftest import Write, rows, run, write_experiment


def assert_same(a: Any, b: Any, where: str = "") -> None:
    """Compare two checkpoints' contents to the bit."""
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert torch.equal(a, b), where
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}/{key}")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{where}/{index}")
    else:
        assert a == b, where


PARTS = (
    "state_dict",
    "optimizer_states",
    "lr_schedulers",
    "callbacks",
    "EditDataModule",
    "global_step",
    "instructedit",
)


def assert_same_run(left_alone: Path, resumed: Path) -> None:
    for name in ("last.ckpt", "best.ckpt"):
        a, b = (read_checkpoint(path / "checkpoints" / name) for path in (left_alone, resumed))
        for part in PARTS:
            assert_same(a[part], b[part], f"{name}/{part}")
        counts = "loops", "fit_loop", "epoch_loop.batch_progress"
        assert_same(a[counts[0]][counts[1]][counts[2]]["total"], b[counts[0]][counts[1]][counts[2]]["total"], name)
    assert (left_alone / "metrics.csv").read_bytes() == (resumed / "metrics.csv").read_bytes()


@pytest.fixture(scope="module")
def left_alone(tmp_path_factory: pytest.TempPathFactory, prepared: Path, llama_folder: Path) -> Path:
    """A run of six steps of two micro-batches each that nothing happened to."""
    folder = tmp_path_factory.mktemp("left-alone")
    assert run("fit", "--config", write_experiment(folder, prepared, llama_folder, data__micro_batch=3)) == 0
    return folder / "runs" / "run"


def at_loss(monkeypatch: pytest.MonkeyPatch, call: int, act: Callable[[], None]) -> None:
    """Do something inside the ``call``-th micro-batch's loss."""
    real, calls = editor_module.meta_loss, [0]

    def counted(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            act()
        return real(*args)

    monkeypatch.setattr(editor_module, "meta_loss", counted)


# Steps have two micro-batches. Step 3 is one of validation, 4 one of a checkpoint, 5 neither; 6 is the last.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "number"),
    [
        (1, signal.SIGUSR1),
        (4, signal.SIGTERM),
        *(pytest.param(step, signal.SIGUSR1, marks=pytest.mark.slow) for step in (3, 4, 5, 6)),
        pytest.param(3, signal.SIGTERM, marks=pytest.mark.slow),
    ],
)
def test_a_signal_saves_stops_and_the_same_command_goes_on(
    step: int,
    number: signal.Signals,
    left_alone: Path,
    write_config: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = write_config("stopped", data__micro_batch=3)
    with monkeypatch.context() as patch:
        at_loss(patch, 2 * step - 1, lambda: os.kill(os.getpid(), number))
        assert run("fit", "--config", config) == 0
    assert f"stopped at step {step} by {number.name}" in capsys.readouterr().out
    path = tmp_path / "runs" / "stopped"
    assert read_checkpoint(path / "checkpoints" / "last.ckpt")["global_step"] == step
    assert not (path / "results").exists()
    signals.clear()
    assert run("fit", "--config", config) == 0
    assert_same_run(left_alone, path)
    assert (path / "results" / "table.md").exists()


class Killed(BaseException):
    """Stands for a process that is gone: nothing of ours catches it."""


def killed() -> None:
    raise Killed


@pytest.mark.slow
def test_a_run_killed_in_a_step_goes_on_from_its_last_checkpoint(
    left_alone: Path, write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config("killed", data__micro_batch=3)
    for step in (2, 6):  # before there is any checkpoint; then long after the last one, from 4
        with monkeypatch.context() as patch:
            at_loss(patch, 2 * step, killed)
            with pytest.raises(Killed):
                run("fit", "--config", config)
    assert read_checkpoint(tmp_path / "runs" / "killed" / "checkpoints" / "last.ckpt")["global_step"] == 4
    assert run("fit", "--config", config) == 0
    assert_same_run(left_alone, tmp_path / "runs" / "killed")


@pytest.mark.slow
@pytest.mark.parametrize("which", [1, 2])
def test_a_signal_in_validation_stops_at_once(
    which: int,
    left_alone: Path,
    write_config: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config, real, calls = write_config("stopped", data__micro_batch=3), validation.run_validation, [0]

    def counted(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == which:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(validation, "run_validation", counted)
        assert run("fit", "--config", config) == 0
    assert f"stopped at step {3 * which} by SIGTERM" in capsys.readouterr().out
    path = tmp_path / "runs" / "stopped"
    assert read_checkpoint(path / "checkpoints" / "last.ckpt")["global_step"] == 3 * which
    assert not rows(path / "metrics.csv")[-1].get("val/score")
    signals.clear()
    assert run("fit", "--config", config) == 0
    assert_same_run(left_alone, path)


@pytest.mark.slow
@pytest.mark.parametrize("every", [3, pytest.param(6, marks=pytest.mark.slow)])
def test_a_run_killed_while_the_best_is_copied_copies_it_later(
    every: int, write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config("killed", validation__every_n_steps=every)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.os, "link", lambda *_: killed())
        with pytest.raises(Killed):
            run("fit", "--config", config)
    folder = tmp_path / "runs" / "killed" / "checkpoints"
    last = read_checkpoint(folder / "last.ckpt")
    assert last["global_step"] == every and not (folder / "best.ckpt").exists()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoints, "save", lambda *_args, **_more: killed())
        with pytest.raises(Killed) if every == 3 else nullcontext():
            run("fit", "--config", config)
    assert_same(read_checkpoint(folder / "best.ckpt"), last)


@pytest.mark.slow
def test_a_step_is_saved_once_and_once_more_when_it_was_validated(
    write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, saved = checkpoints.AtomicCheckpointIO.save_checkpoint, []

    def noted(io: Any, checkpoint: dict[str, Any], *args: Any, **more: Any) -> None:
        saved.append(checkpoint["global_step"])
        real(io, checkpoint, *args, **more)

    monkeypatch.setattr(checkpoints.AtomicCheckpointIO, "save_checkpoint", noted)
    assert run("fit", "--config", write_config(checkpoint__every_n_steps=2)) == 0
    assert saved == [2, 3, 3, 4, 6, 6]
    folder = tmp_path / "runs" / "run" / "checkpoints"
    assert read_checkpoint(folder / "step-00000004.ckpt")["global_step"] == 4
    assert read_checkpoint(folder / "last.ckpt")["global_step"] == 6


@pytest.mark.slow
@pytest.mark.parametrize(
    "choice",
    [
        {"model__method": "MEND", "model__editor": {"rank": 8, "alpha_scale": "log", "direction": "site"}},
        {"model__method": "KE", "model__ke": {"hidden": 8, "condition": 8, "head": 8}},
    ],
    ids=["mend", "ke"],
)
def test_other_choices_of_editor_and_store_go_on_to_the_bit_too(
    choice: dict[str, object], gpt2_folder: Path, write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"model__base": str(gpt2_folder), **choice}
    configs = {
        name: write_config(name, **settings, model__store={"folder": str(tmp_path / f"{name}-states")})
        for name in ("alone", "stopped")
    }
    assert run("fit", "--config", configs["alone"]) == 0
    with monkeypatch.context() as patch:
        at_loss(patch, 4, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        assert run("fit", "--config", configs["stopped"]) == 0
    signals.clear()
    assert run("fit", "--config", configs["stopped"]) == 0
    assert_same_run(tmp_path / "runs" / "alone", tmp_path / "runs" / "stopped")
    assert list((tmp_path / "stopped-states").rglob("*.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("which", [1, 2])
def test_a_run_killed_in_validation_validates_again(
    which: int, left_alone: Path, write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, real, calls = write_config("killed", data__micro_batch=3), validation.run_validation, [0]

    def counted(*args: Any) -> Any:
        calls[0] += 1
        if calls[0] == which:
            killed()
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(validation, "run_validation", counted)
        with pytest.raises(Killed):
            run("fit", "--config", config)
    assert run("fit", "--config", config) == 0
    assert_same_run(left_alone, tmp_path / "runs" / "killed")


@pytest.mark.slow
def test_another_portioning_goes_on_at_the_same_step(
    write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        at_loss(patch, 9, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        assert run("fit", "--config", write_config(data__micro_batch=2)) == 0
    signals.clear()
    assert run("fit", "--config", write_config(data__micro_batch=1)) == 0
    content = read_checkpoint(tmp_path / "runs" / "run" / "checkpoints" / "last.ckpt")
    assert content["global_step"] == 6
    assert content["loops"]["fit_loop"]["epoch_loop.batch_progress"]["total"]["ready"] == 24
    assert (tmp_path / "runs" / "run" / "metrics.csv").read_text().count("\n") == 7


@pytest.mark.slow
def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before(
    left_alone: Path, write_config: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(left_alone, tmp_path / "runs" / "run")
    folder = tmp_path / "runs" / "run" / "checkpoints"
    before = read_checkpoint(folder / "last.ckpt")["state_dict"]
    content = (folder / "last.ckpt").read_bytes()
    (folder / "last.ckpt").write_bytes(content[: len(content) // 2])
    config = write_config(data__micro_batch=3)
    assert run("fit", "--config", config) == 0
    assert "last.ckpt cannot be read" in caplog.text
    assert_same(read_checkpoint(folder / "last.ckpt")["state_dict"], before)
    assert read_checkpoint(folder / "step-00000004.ckpt")["global_step"] == 4  # the damaged one did not take its place
    (folder / "last.ckpt").write_bytes(b"")
    (folder / "step-00000004.ckpt").write_bytes(b"")
    assert run("fit", "--config", config) == 2
    shutil.rmtree(folder)
    assert run("fit", "--config", config) == 0


@pytest.mark.slow
def test_a_flipped_bit_in_a_checkpoint_is_seen(
    left_alone: Path, write_config: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(left_alone, tmp_path / "runs" / "run")
    folder = tmp_path / "runs" / "run" / "checkpoints"
    state = read_checkpoint(folder / "last.ckpt")["state_dict"]
    weights = next(value for name, value in state.items() if name.endswith("down"))
    content = bytearray((folder / "last.ckpt").read_bytes())
    place = content.index(weights.numpy().tobytes())
    content[place + 5] ^= 1
    (folder / "last.ckpt").write_bytes(content)
    read_checkpoint(folder / "last.ckpt")  # reading alone does not see it
    assert checkpoints.find_checkpoint(folder) == folder / "step-00000004.ckpt"
    assert "last.ckpt cannot be read" in caplog.text and "checksum" in caplog.text


@pytest.mark.slow
def test_as_many_checkpoints_are_kept_as_asked_for(write_config: Write, tmp_path: Path) -> None:
    assert run("fit", "--config", write_config(), "--checkpoint.every_n_steps", "1", "--checkpoint.keep", "3") == 0
    folder = tmp_path / "runs" / "run" / "checkpoints"
    kept = ["best.ckpt", "last.ckpt", "step-00000004.ckpt", "step-00000005.ckpt"]
    assert sorted(path.name for path in folder.iterdir()) == kept


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written_is_told_and_the_one_before_stays(
    write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = torch.save

    def full(content: Any, file: Any) -> None:
        if content["global_step"] == 4:
            raise OSError(28, "No space left on device")
        real(content, file)

    monkeypatch.setattr(checkpoints.torch, "save", full)
    assert run("fit", "--config", write_config()) == 2
    error = capsys.readouterr().err
    assert "Cannot write the checkpoint of step 4" in error and "No space left" in error
    assert [p.name for p in (tmp_path / "runs" / "run" / "checkpoints").glob("*.partial")] == []
    monkeypatch.setattr(checkpoints.torch, "save", real)
    assert run("fit", "--config", write_config()) == 0
    assert "going on at step 3 from" in capsys.readouterr().out


def test_a_checkpoint_of_other_settings_is_refused_wherever_it_lies(
    left_alone: Path, write_config: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = left_alone / "checkpoints" / "step-00000004.ckpt"
    config = write_config("other", data__micro_batch=3, model__lr=1e-4)
    assert run("fit", "--config", config, "--ckpt_path", file) == 2
    assert "was made with other settings: model.lr (0.001, now 0.0001)" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_a_run_that_began_from_a_file_goes_on_from_its_own(
    left_alone: Path, write_config: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = left_alone / "checkpoints" / "step-00000004.ckpt"
    for begun in ("going on at step 4 from", "going on at step 6 from"):
        assert run("fit", "--config", write_config("other", data__micro_batch=3), "--ckpt_path", file) == 0
        assert begun in capsys.readouterr().out


def test_a_best_checkpoint_alone_is_gone_on_from(left_alone: Path, tmp_path: Path) -> None:
    shutil.copytree(left_alone / "checkpoints", tmp_path / "checkpoints")
    for name in ("last.ckpt", "step-00000004.ckpt"):
        (tmp_path / "checkpoints" / name).unlink()
    assert checkpoints.find_checkpoint(tmp_path / "checkpoints") == tmp_path / "checkpoints" / "best.ckpt"


def test_two_processes_do_not_train_in_one_directory(tmp_path: Path) -> None:
    first, second = (RunDirectory(tmp_path / "run") for _ in range(2))
    first.lock()
    with pytest.raises(InputError, match="Another process is training in"):
        second.lock(seconds=0.1)
    first.unlock()
    second.lock(seconds=0.1)
    second.unlock()
