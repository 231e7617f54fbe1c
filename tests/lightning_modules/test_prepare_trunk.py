"""``instructedit prepare --trunk``: what a run asks is there before it starts, and the run is the same to the bit."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from instructedit import signals
from instructedit.base.pack_file import Pack
from instructedit.base.prefixes import Pass
from instructedit.base.split import Split
from tests.lightning_modules.conftest import Write, rows, run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "states"


def passes_from_now(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Note every trunk pass from now on."""
    passes: list[int] = []
    pieces = Split.trunk_pieces
    monkeypatch.setattr(Split, "trunk_pieces", lambda split, cut: (passes.append(len(cut)), pieces(split, cut))[1])
    return passes


def written(folder: Path) -> set[str]:
    """Keys of all states in a folder."""
    return {key for path in folder.rglob("*.safetensors") for key in Pack(path).checksums} - {"address"}


def number(text: str, name: str) -> int:
    """A number of the estimate."""
    found = re.search(rf"^{name} +([\d,]+)", text, re.MULTILINE)
    assert found, text
    return int(found[1].replace(",", ""))


def results(directory: Path) -> list[object]:
    table = (directory / "results" / "table.csv").read_text().replace(directory.name, "")
    return [rows(directory / "metrics.csv"), table]


@pytest.mark.slow
def test_a_run_after_it_computes_nothing(
    write_config: Write,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = write_config("filled", model__store={"folder": str(folder), "memory_mib": 0})
    assert run("prepare", "--trunk", "--config", config) == 0
    said = capsys.readouterr().out
    assert number(said, "to compute") == number(said, "distinct inputs") == len(written(folder)) > 0
    assert "of model.store.disk_gib 100 GiB used" in said and str(folder) in said
    assert not (tmp_path / "runs").exists()
    passes = passes_from_now(monkeypatch)
    assert run("fit", "--config", config) == 0
    assert passes == []
    assert run("fit", "--config", write_config("plain")) == 0
    assert passes
    assert results(tmp_path / "runs" / "filled") == results(tmp_path / "runs" / "plain")


@pytest.mark.slow
@pytest.mark.parametrize("method", ["InstructEdit", "MEND", "KE"])
@pytest.mark.parametrize("steps", [2, 6])
def test_it_fills_what_a_run_asks_and_no_more(
    method: str, steps: int, write_config: Write, folder: Path, tmp_path: Path
) -> None:
    # The warm-up looks at four batches, of which a run of two steps trains on two.
    config = write_config("run", model__method=method, model__store={"folder": str(folder)}, data__micro_batch=2)
    steps_flag = ("--trainer.max_steps", steps)
    assert run("prepare", "--trunk", "--config", config, *steps_flag) == 0
    assert run("fit", "--config", config, "--model.store.folder", tmp_path / "other", *steps_flag) == 0
    assert written(tmp_path / "other") == written(folder)


@pytest.mark.slow
def test_several_parts_fill_one_folder(
    write_config: Write, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(model__store={"folder": str(folder)})
    sizes = [0]
    for part in ("2/3", "1/3", "3/3"):
        assert run("prepare", "--trunk", "--config", config, "--part", part) == 0
        assert f"part {part}: " in capsys.readouterr().out
        sizes.append(len(written(folder)))
    assert sizes == sorted(set(sizes))
    assert run("prepare", "--trunk", "--config", config) == 0
    said = capsys.readouterr().out
    assert number(said, "to compute") == 0 and number(said, "already there") == sizes[-1]
    passes = passes_from_now(monkeypatch)
    assert run("fit", "--config", config) == 0 and passes == []


@pytest.mark.slow
def test_the_first_steps_alone(
    write_config: Write, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(model__store={"folder": str(folder)}, validation__every_n_steps=100)
    assert run("prepare", "--trunk", "--config", config, "--steps", 3) == 0
    some = number(capsys.readouterr().out, "distinct inputs")
    passes = passes_from_now(monkeypatch)
    seen: list[int] = []
    from lightning_modules.editor_module import EditorModule

    step = EditorModule.training_step
    monkeypatch.setattr(EditorModule, "training_step", lambda *given: (step(*given), seen.append(len(passes)))[0])
    assert run("fit", "--config", config) == 0
    assert seen[:3] == [0, 0, 0] and seen[-1] > 0
    assert run("prepare", "--trunk", "--config", config) == 0
    assert number(capsys.readouterr().out, "distinct inputs") > some


@pytest.mark.slow
def test_a_signal_ends_it_and_the_same_command_goes_on(
    write_config: Write, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(model__store={"folder": str(folder)})
    groups: list[int] = []
    with monkeypatch.context() as patched:
        # Few pieces go through the trunk together: the signal is heard after the third such group of many.
        patched.setattr("instructedit.base.split.PIECES", 16)
        pieces = Split.trunk_pieces

        def told(split: Split, passes: Sequence[Pass]) -> list[torch.Tensor]:
            groups.append(len(passes))
            if len(groups) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return pieces(split, passes)

        patched.setattr(Split, "trunk_pieces", told)
        assert run("prepare", "--trunk", "--config", config) == 0
    said = capsys.readouterr().out
    assert "stopped by SIGTERM; run the same command again" in said and "done" not in said
    some = len(written(folder))
    assert len(groups) == 3 and some > 0
    signals.clear()
    assert run("prepare", "--trunk", "--config", config) == 0
    said = capsys.readouterr().out
    assert number(said, "already there") == some and number(said, "to compute") > 0 and "done" in said
    assert len(written(folder)) == number(said, "distinct inputs")


@pytest.mark.slow
def test_a_broken_pack_is_filled_again(
    write_config: Write, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(model__store={"folder": str(folder)})
    assert run("prepare", "--trunk", "--config", config) == 0
    (pack,) = folder.rglob("*.safetensors")
    os.truncate(pack, pack.stat().st_size // 2)
    assert run("prepare", "--trunk", "--config", config) == 0
    assert number(capsys.readouterr().out.rpartition("distinct inputs")[2], "already there") == 0
    passes = passes_from_now(monkeypatch)
    assert run("fit", "--config", config) == 0 and passes == []


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["bits", "folder", "full", "garbage"])
def test_a_training_goes_on_whatever_becomes_of_its_folder(
    damage: str, write_config: Write, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("fit", "--config", write_config("plain")) == 0
    config = write_config("damaged", model__store={"folder": str(folder), "memory_mib": 0})
    if damage == "full":
        assert run("fit", "--config", config, "--model.store.disk_gib", 1e-5) == 0
        assert sum(path.stat().st_size for path in folder.rglob("*.safetensors")) < 1e-5 * 2**30
    else:
        assert run("prepare", "--trunk", "--config", config) == 0
        (pack,) = folder.rglob("*.safetensors")
        from lightning_modules.editor_module import EditorModule

        step = EditorModule.training_step

        def damaged(module: EditorModule, batch: object, index: int) -> object:
            if index == 2 and damage == "folder":
                shutil.rmtree(folder)
            elif index == 2:
                content = bytearray(pack.read_bytes())
                content[len(content) // 4 :: 1000] = b"?" * len(content[len(content) // 4 :: 1000])
                pack.write_bytes(b"?" * 100 if damage == "garbage" else content)
            return step(module, batch, index)  # type: ignore[arg-type]

        monkeypatch.setattr(EditorModule, "training_step", damaged)
        assert run("fit", "--config", config) == 0
    assert results(tmp_path / "runs" / "damaged") == results(tmp_path / "runs" / "plain")


@pytest.mark.slow
@pytest.mark.parametrize(
    "placed",
    [["--model.placement", "tail_only"], ["--model.placement", "sharded", "--trainer.strategy", "zero_3"]],
    ids=["tail_only", "sharded"],
)
def test_a_base_that_is_not_all_in_memory(
    placed: list[str], write_config: Write, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config("filled", model__store={"folder": str(folder)})
    assert run("prepare", "--trunk", "--config", config, *placed, "--trainer.devices", 2) == 0
    assert run("fit", "--config", write_config("plain")) == 0
    passes = passes_from_now(monkeypatch)
    assert run("fit", "--config", config) == 0 and passes == []
    assert results(tmp_path / "runs" / "filled") == results(tmp_path / "runs" / "plain")


@pytest.mark.slow
def test_states_of_another_dtype_than_the_base(
    write_config: Write, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(model__store={"folder": str(folder)})
    sizes = []
    for dtype in ("float32", "bfloat16"):
        assert run("prepare", "--trunk", "--config", config, "--model.store.dtype", dtype) == 0
        sizes.append(sum(path.stat().st_size for path in folder.rglob("*.safetensors")))
    assert sizes[0] < sizes[1] < 1.7 * sizes[0]
    passes = passes_from_now(monkeypatch)
    assert run("fit", "--config", config, "--model.store.dtype", "bfloat16") == 0 and passes == []


@pytest.mark.long
def test_on_the_real_base(write_config: Write, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = write_config(
        model__base="smollm2-135m",
        model__dtype="bfloat16",
        model__store={"folder": str(folder)},
        data__held_out=[],
        data__validation_records=1,
        data__test_records=1,
    )
    assert run("prepare", "--trunk", "--config", config, "--trainer.max_steps", 2) == 0
    passes = passes_from_now(monkeypatch)
    assert run("fit", "--config", config, "--trainer.max_steps", 2) == 0 and passes == []
    (about,) = folder.rglob("about.json")
    assert f'"first_block": {30 - 2}' in about.read_text()


USAGE = namedtuple("USAGE", "total used free")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ([], "model.store.folder"),
        (["--model.store.folder", "states", "--part", "3/2"], "--part is '3/2'"),
        (["--model.store.folder", "states", "--part", "1"], "i/n"),
        (["--model.store.folder", "states", "--steps", "7"], "trainer.max_steps"),
        (["--model.store.folder", "states", "--steps", "0"], "--steps is 0"),
        (["--model.store.folder", "states", "--stepz", "1"], "stepz"),
        (["--model.store.folder", "states", "--model.store.disk_gib", "1e-5"], "model.store.disk_gib"),
        (["--model.store.folder", "states", "--model.store.disk_gib", "0"], "model.store.disk_gib"),
        (["--model.store.folder", "run.yaml/states"], "Cannot make model.store.folder"),
        (["--model.store.folder", "states", "free"], "are free"),
    ],
)
def test_what_is_refused(
    flags: list[str],
    told: str,
    write_config: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if flags[-1:] == ["free"]:
        flags = flags[:-1]
        monkeypatch.setattr(shutil, "disk_usage", lambda _path: USAGE(2**30, 2**30, 2**10))
    passes = passes_from_now(monkeypatch)
    assert run("prepare", "--trunk", "--config", write_config(), *flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and error.startswith("error: ") and told in error
    assert not passes and not list(tmp_path.rglob("*.safetensors"))


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("prepare", "--help") == 0
    assert "`instructedit prepare --trunk --help`" in " ".join(capsys.readouterr().out.split())
    assert run("prepare", "--trunk", "--help") == 0
    said = capsys.readouterr().out
    assert "--steps" in said and "--part" in said and "--model.store.disk_gib" in said


@pytest.mark.long
def test_ranks_fill_one_folder_while_they_train(
    write_config: Write, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(model__store={"folder": str(folder)})
    flags = ["--trainer.devices", "2", "--trainer.strategy", "ddp"]
    argv = [sys.executable, "-m", "instructedit", "fit", "--config", str(config), *flags]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=200, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0 and "Trunk store" not in done.stderr, done.stderr
    assert run("prepare", "--trunk", "--config", config) == 0
    assert number(capsys.readouterr().out, "to compute") == 0
    assert not list(folder.rglob("*.tmp"))
