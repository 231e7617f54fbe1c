"""The preflight's estimates: disk and memory, whose sizes follow from a config.json alone; GPUs are numbers."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from instructedit.scheduling.preflight import Finding, Room
from tests.scheduling.preflight_setup import LLAMA, Setup, setup

__all__ = ["setup"]


# --- room ------------------------------------------------------------------------------------------------------------
def test_too_little_disk(setup: Setup) -> None:
    # Rank 1920 on nine sites: 231 million parameters, 2.6 GiB a checkpoint.
    setup.settings["free_space_command"] = "echo 11"
    found = setup.only()
    assert found.level == "error"
    assert "will need 11.3 GiB on disk (4 checkpoints of 2.6 GiB" in found.message
    assert "11.0 GiB are free by the profile's free_space_command" in found.message
    setup.settings["free_space_command"] = "echo 11.5 GiB of 500"
    assert setup.found() == []
    setup.set("checkpoint.keep", 3)
    assert "will need 13.9 GiB" in setup.only().message


def test_runs_of_a_group_share_the_disk(setup: Setup, tmp_path: Path) -> None:
    setup.settings["room"] = Room("echo 30; echo asked >> asked")
    for name in ("a", "b"):
        setup.run = tmp_path / "runs" / name
        assert setup.found() == []
    setup.run = tmp_path / "runs" / "c"
    found = setup.only().message
    assert "will need 11.3 GiB on disk" in found and "the runs submitted with it 22.5 GiB" in found
    assert (tmp_path / "asked").read_text() == "asked\n", "once for all"


def test_a_dry_look_writes_and_starts_nothing(setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.settings["room"] = Room("touch asked; echo 1", dry=True)
    monkeypatch.setattr("tempfile.NamedTemporaryFile", None)
    found = setup.only()
    assert found.level == "warning" and "free_space_command was not asked" in found.message
    assert not (tmp_path / "asked").exists()
    monkeypatch.setattr(os, "access", lambda *_: False)
    setup.settings["room"] = Room(dry=True)
    assert "cannot be written" in setup.only().message


def test_a_run_that_goes_on_replaces_what_it_has(setup: Setup) -> None:
    setup.settings["free_space_command"] = "echo 9"
    assert len(setup.found()) == 1
    (setup.run / "checkpoints").mkdir(parents=True)
    with (setup.run / "checkpoints" / "last.ckpt").open("wb") as file:
        file.truncate(3 * 2**30)
    assert setup.found() == []


def test_the_file_systems_own_space_is_asked_without_a_command(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(setup.base)
    full = os.statvfs_result([real.f_bsize, real.f_frsize, real.f_blocks, 3, 3, *list(real)[5:]])
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    assert "0.0 GiB are free in" in setup.only().message


@pytest.mark.parametrize("command", ["exit 3", "echo many", "true", "echo -1"])
def test_a_command_for_the_free_space_that_does_not_work(setup: Setup, command: str) -> None:
    setup.settings["free_space_command"] = command
    found = setup.only()
    assert found.level == "warning" and "printed no number of GiB" in found.message


def test_a_store_that_may_fill_the_disk(setup: Setup, tmp_path: Path) -> None:
    setup.settings["free_space_command"] = "echo 30"
    setup.set("model.store", {"folder": str(tmp_path / "states"), "disk_gib": 40.0})
    found = setup.only()
    assert found.level == "warning" and "may grow by 40.0 GiB" in found.message and "18.7 GiB are free" in found.message
    setup.config["model"]["store"]["disk_gib"] = 10.0
    assert setup.found() == []


# --- memory ----------------------------------------------------------------------------------------------------------
def on_gpus(setup: Setup, gib: float, ranks: int = 1, **model: Any) -> list[Finding]:
    setup.config["trainer"] |= {"accelerator": "auto", "strategy": model.pop("strategy", "auto")}
    setup.config["model"] |= model
    setup.config["data"]["micro_batch"] = 2
    setup.settings |= {"gpu_memory_gib": gib, "ranks": ranks}
    return setup.found()


def test_more_memory_than_a_gpu_has(setup: Setup) -> None:
    (found,) = on_gpus(setup, 24.0, dtype="float32")
    assert found.level == "error"
    # docs/placement.md: 31.6 GB, with 8 rows in place of 10.
    assert (
        "needs about 29.5 GiB of GPU memory (base 25.1, editor with gradients and Adam 3.5, step 0.9)" in found.message
    )
    assert "Set model.dtype to bfloat16, or model.placement to tail_only, or data.micro_batch to 1." in found.message
    assert on_gpus(setup, 24.0, dtype="bfloat16") == []
    assert on_gpus(setup, 16.0)[0].level == "error"
    (near,) = on_gpus(setup, 18.0)
    assert near.level == "warning" and "may run out" in near.message
    assert on_gpus(setup, 8.0, placement="tail_only") == []


def test_memory_under_an_engine(setup: Setup) -> None:
    (found,) = on_gpus(setup, 14.0, ranks=4, strategy="ddp")
    assert "or trainer.strategy to zero_3 and model.placement to sharded" in found.message
    assert on_gpus(setup, 14.0, ranks=4, strategy="zero_3", placement="sharded") == []
    assert on_gpus(setup, 7.0, ranks=4, strategy="zero_2", placement="tail_only") == []
    (found,) = on_gpus(setup, 2.0, ranks=4, strategy="zero_3", placement="sharded")
    assert "Set data.micro_batch to 1." in found.message


def test_memory_of_ke_and_of_unknown_sizes(setup: Setup) -> None:
    assert on_gpus(setup, 18.0, method="KE") != on_gpus(setup, 18.0, method="MEND")
    (setup.base / "config.json").write_text(json.dumps(LLAMA | {"model_type": "gemma9"}))
    found = setup.only()
    assert found.level == "warning" and "was not estimated: Unknown model_type 'gemma9'" in found.message
    setup.settings["gpu_memory_gib"] = None
    assert setup.found() == []


def test_memory_of_an_evaluation(setup: Setup) -> None:
    setup.evaluation()
    setup.settings["gpu_memory_gib"] = 12.0
    assert "The base alone needs 12.6 GiB of GPU memory" in setup.only().message
    setup.config["device"] = "cpu"
    assert setup.found() == []
