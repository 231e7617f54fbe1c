"""Strategies by name, and what is refused; that they train alike is shown by real processes in tests/processes."""

import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy, SingleDeviceStrategy

from instructedit.base.sizes import GATHERED
from instructedit.errors import InputError
from lightning_modules.strategies import STRATEGIES, check_launched, make_strategy
from lightning_modules.strategies.fsdp2 import FSDP2, cut, whole
from lightning_modules.strategies.zero import BUCKET, LIVE
from tests.lightning_modules.conftest import Write, run

MINUTE = timedelta(minutes=1)


@pytest.mark.parametrize(
    ("settings", "several"),
    [
        ({"devices": 1}, False),
        ({"devices": "auto", "accelerator": "cpu"}, False),
        ({"devices": [3], "accelerator": "gpu"}, False),
        ({"devices": "3,", "accelerator": "gpu"}, False),
        ({"devices": "2"}, True),
        ({"devices": "0,1", "accelerator": "gpu"}, True),
        ({"devices": 1, "num_nodes": 2}, True),
    ],
)
def test_auto_is_one_device_or_ddp(settings: dict[str, object], several: bool) -> None:
    made = make_strategy("auto", settings, MINUTE, 0)
    assert isinstance(made, DDPStrategy) if several else made == "auto"


def test_names_and_objects() -> None:
    assert isinstance(make_strategy("fsdp2", {}, MINUTE, 0), FSDP2)
    mine = SingleDeviceStrategy("cpu")
    assert make_strategy(mine, {}, MINUTE, 0) is mine
    with pytest.raises(InputError, match="FSDPStrategy, whose checkpoints"):
        make_strategy(FSDPStrategy(), {}, MINUTE, 0)
    assert {"ddp", "fsdp2", "zero_1", "zero_2_offload", "zero_3_offload"} < set(STRATEGIES)


def test_an_unknown_strategy_is_refused_in_one_line(write_config: Write, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("fit", "--config", write_config(), "--trainer.strategy", "deepspeed_stage_2") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "'deepspeed_stage_2'" in error and "zero_2" in error


def test_zero_without_deepspeed_names_the_extra(
    write_config: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "deepspeed", None)
    monkeypatch.setitem(sys.modules, "deepspeed.comm", None)
    monkeypatch.setitem(sys.modules, "deepspeed.comm.torch", None)
    assert run("fit", "--config", write_config(), "--trainer.strategy", "zero_2") == 2
    assert "pip install 'instructedit[deepspeed]'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--model.placement", "sharded"], "zero_3"),
        (["--model.trunk_device", "cpu"], "tail_only"),
        (["--processes.timeout_minutes", "0"], "timeout_minutes"),
        (["--checkpoint.keep", "0"], "keep"),
    ],
)
def test_a_choice_that_cannot_be(
    flags: list[str], told: str, write_config: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fit", "--config", write_config(), *flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and told in error
    assert not (tmp_path / "runs").exists()


def test_what_is_not_cut_is_whole() -> None:
    value = torch.ones(3)
    assert whole(value) is value and cut(value, torch.zeros(3)) is value


def test_the_memory_table_counts_what_the_strategies_gather() -> None:
    assert GATHERED == LIVE + BUCKET


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--trainer.devices", "abc"], "trainer.devices is 'abc'"),
        (["--trainer.strategy", "zero_2", "--trainer.gradient_clip_algorithm", "value"], "gradient_clip_algorithm"),
    ],
)
def test_a_trainer_setting_that_cannot_be(
    flags: list[str], told: str, write_config: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fit", "--config", write_config(), *flags) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and told in error and not (tmp_path / "runs").exists()


def test_a_launcher_must_start_as_many_processes_as_the_trainer_expects() -> None:
    check_launched({"devices": 2, "num_nodes": 2}, 4)
    check_launched({"devices": 2}, None)
    for settings, launched in (({"devices": 1}, 2), ({"devices": 2}, 1), ({"devices": 2, "num_nodes": 2}, 2)):
        with pytest.raises(InputError, match=f"launcher started {launched} processes"):
            check_launched(settings, launched)
