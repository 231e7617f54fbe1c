"""Each finding of the preflight, in a setup where nothing else is wrong; files are real, GPUs are numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from instructedit.scheduling.preflight import training
from tests.scheduling.preflight_setup import CARD, Setup, setup

__all__ = ["setup"]


def test_a_good_setup_has_no_findings_and_nothing_is_written(setup: Setup) -> None:
    before = sorted(setup.base.parent.rglob("*"))
    assert setup.found() == []
    setup.set("trainer.accelerator", "auto")
    assert setup.found() == []
    setup.evaluation()
    assert setup.found() == []
    setup.command, setup.config = "prepare", {"source": "demo", "tasks": "demo-recent", "out": "x"}
    assert setup.found() == []
    setup.command, setup.config = "compare", {}
    assert setup.found() == []
    assert sorted(setup.base.parent.rglob("*")) == before


# --- the base --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "has no model.safetensors in"),
        ("tokenizer.json", "has no tokenizer in"),
    ],
)
def test_a_base_that_lacks_a_file(setup: Setup, missing: str, message: str) -> None:
    (setup.base / missing).unlink()
    found = setup.only()
    assert found.level == "error" and message in found.message
    setup.evaluation()
    assert message in setup.only().message


def test_a_base_whose_index_names_a_file_that_is_not_there(setup: Setup) -> None:
    index = {"weight_map": {"a": "model-1.safetensors"}}
    (setup.base / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "has no model-1.safetensors" in setup.only().message


def test_a_folder_that_does_not_exist(setup: Setup) -> None:
    setup.set("model.base", "./nowhere")
    found = setup.only()
    assert found.level == "error" and "Base folder './nowhere' does not exist" in found.message


def test_a_base_that_is_not_named(setup: Setup) -> None:
    del setup.config["model"]["base"]
    assert "model.base is not set" in setup.only().message


# --- records and editors ---------------------------------------------------------------------------------------------
def test_tasks_that_are_not_prepared(setup: Setup) -> None:
    setup.set("data.tasks", ["recent", "own"])
    setup.set("model.method", "MEND")
    (setup.data / "zsre" / "test" / "state.json").unlink()
    found = setup.only()
    assert (
        found.level == "error" and f"Not prepared in {setup.data}: own, zsre (there: convsent, recent)" in found.message
    )
    assert f"instructedit prepare --out {setup.data} --tasks recent,jsonl:own=FILE.jsonl,zsre" in found.message


def test_held_out_tasks_need_no_training_records(setup: Setup) -> None:
    (setup.data / "zsre" / "train" / "state.json").unlink()
    assert setup.found() == []


def test_an_earlier_job_may_prepare_them(setup: Setup) -> None:
    setup.set("data.folder", "elsewhere")
    assert "Not prepared in elsewhere" in setup.only().message
    setup.settings["made"] = [Path("elsewhere")]
    assert setup.found() == []


def test_an_empty_split(setup: Setup) -> None:
    card = {"splits": CARD["splits"] | {"validation": {"records": 0}}}
    (setup.data / "recent" / "card.json").write_text(json.dumps(card))
    assert "The validation split of task 'recent'" in setup.only().message
    setup.set("data.tasks", ["convsent"])
    assert setup.found() == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.tasks", [], "data.tasks is empty"),
        ("data.instructions", "nowhere.yaml", "No instruction pools at 'nowhere.yaml'"),
        ("data.balance", {"recent": 1}, "Task 'convsent' has weight 0.0 in balance"),
        ("data.caps", {"zsre": 3}, "Unknown task in caps 'zsre'"),
        ("model.sites", {"last_blocks": 33}, "last_blocks is 33, but the base has 32 blocks"),
        ("model.sites", {"matrices": ["c_fc"]}, "Unknown matrix 'c_fc'"),
        ("model.warmup_steps", 11, "model.warmup_steps is 11, but the run ends at step 10"),
        ("trainer.max_steps", -1, "trainer.max_steps is -1"),
        ("trainer.log_every_n_steps", 0, "trainer.log_every_n_steps is 0"),
        ("model.trunk_device", "cpu", "It goes with tail_only"),
        ("model.ke", {"head": 3}, "model.ke is set, but model.method is InstructEdit"),
        ("model.placement", "sharded", "trainer.strategy is auto. Set it to one of them"),
        ("trainer.devices", 2, "1 processes would be started, but trainer.devices 2 on 1 nodes ask for 2"),
        ("ckpt_path", "nowhere.ckpt", "--ckpt_path nowhere.ckpt does not exist"),
        ("ckpt_path", "last", "has no checkpoint yet. Leave --ckpt_path out"),
    ],
)
def test_what_a_training_refuses_at_its_start(setup: Setup, key: str, value: Any, message: str) -> None:
    setup.set(key, value)
    found = setup.only()
    assert found.level == "error" and message in found.message


def test_zero_cannot_clip_by_value_nor_share_a_base_under_ke(setup: Setup) -> None:
    setup.config["trainer"] |= {"strategy": "zero_3", "gradient_clip_algorithm": "value"}
    setup.config["model"] |= {"placement": "sharded", "method": "KE"}
    assert [found.message.split()[0] for found in setup.found()] == ["KE", "zero_3"]


def test_a_batch_that_the_ranks_cannot_share(setup: Setup) -> None:
    setup.settings["ranks"] = 3
    assert "A global batch of 8 cannot be shared equally by 3 ranks" in setup.only().message
    setup.set("data.batch", 9)
    assert setup.found() == []


def test_a_method_without_its_editor(setup: Setup, tmp_path: Path) -> None:
    setup.evaluation()
    editor = setup.run / "editor"
    setup.config["methods"] = [{"method": "mend", "editor": str(editor)}]
    found = setup.only()
    assert found.level == "error" and f"No editor at {editor} for method 'mend'" in found.message
    setup.settings["made"] = [editor]
    assert setup.found() == [], "a job before it makes the editor"
    setup.settings["made"] = []
    editor.mkdir(parents=True)
    (editor / "card.json").write_text(json.dumps({"method": "KE"}))
    assert "is a KE, not a MEND" in setup.only().message
    (editor / "card.json").write_text(json.dumps({"method": "MEND"}))
    assert setup.found() == []
    setup.config["methods"] = [{"method": "mend"}]
    assert "needs a trained editor" in setup.only().message
    setup.config["methods"] = [{"method": "mnd"}]
    assert "Did you mean 'mend'?" in setup.only().message


def test_an_editor_of_a_group_is_one_of_its_runs(setup: Setup, tmp_path: Path) -> None:
    setup.evaluation()
    group = tmp_path / "runs" / "demo"
    setup.settings["made"] = [group / "seed-0", group / "seed-1"]
    for place in (group / "editor", group):
        setup.config["methods"] = [{"method": "mend", "editor": str(place)}]
        found = setup.only()
        assert found.level == "error" and f"No editor at {place}" in found.message
    setup.config["methods"] = [{"method": "mend", "editor": str(group / "editor")}]
    told = f"{group} is a group, and its runs have the editors: name one, such as {group / 'seed-0' / 'editor'}."
    assert told in setup.only().message
    setup.config["methods"] = [{"method": "mend", "editor": str(group / "seed-1" / "editor")}]
    assert setup.found() == []


def test_a_test_needs_a_trained_run(setup: Setup) -> None:
    setup.command = "test"
    assert "has no checkpoint yet. Train it first" in setup.only().message
    setup.settings["made"] = [setup.run / "editor"]
    assert setup.found() == []
    setup.settings |= {"made": [], "ranks": 2}
    (setup.run / "checkpoints").mkdir(parents=True)
    (setup.run / "checkpoints" / "last.ckpt").touch()
    assert "test works in one process, but 2 would be started" in setup.only().message


def test_prepare_cannot_download_on_nodes_without_internet(setup: Setup) -> None:
    setup.command, setup.config = "prepare", {"tasks": "recent,demo-zsre"}
    assert "would fetch zjunlp/KnowEdit from the Hub" in setup.only().message
    setup.settings["offline"] = False
    assert setup.found() == []


# --- the run ---------------------------------------------------------------------------------------------------------
def test_a_run_of_another_configuration(setup: Setup) -> None:
    checkpoints = setup.run / "checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "last.ckpt").touch()
    text = "seed_everything: 0\nmodel: {lr: 0.001, warmup_steps: 0, placement: replicated}\ndata: {batch: 8}\n"
    (setup.run / "config.yaml").write_text(text)
    # Written in another way, or free to change.
    setup.config["model"] |= {"lr": "1e-3", "placement": "tail_only"}
    assert setup.found() == []
    setup.set("data.batch", 16)
    found = setup.only()
    assert found.level == "error" and "belongs to another configuration: data.batch (8, now 16)" in found.message
    (checkpoints / "last.ckpt").unlink()
    assert setup.found() == [], "nothing was trained yet"


def test_a_folder_that_cannot_be_written(setup: Setup, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    setup.run = tmp_path / "file" / "a"
    found = setup.only()
    assert found.level == "error" and "cannot be written" in found.message and "is a file" in found.message
    setup.run = Path("/proc/a")  # where root cannot write either
    assert "The run directory /proc/a cannot be written: /proc:" in setup.only().message
    setup.run = tmp_path / "runs"
    setup.set("model.store", {"folder": "/proc/states", "disk_gib": 0.001})
    assert "model.store.folder /proc/states cannot be made" in setup.only().message


# --- packages and W&B ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("package", "key", "value"),
    [("deepspeed", "trainer.strategy", "zero_2"), ("lightning", "run.name", "a"), ("wandb", "run.wandb", "offline")],
)
def test_a_package_that_is_not_installed(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, package: str, key: str, value: str
) -> None:
    setup.set(key, value)
    assert setup.found() == []
    real = training.importlib.util.find_spec
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: None if name == package else real(name))
    found = setup.only()
    assert found.level == "error" and "pip install 'instructedit[" in found.message and package in found.message


def test_packages_of_another_python_are_not_seen(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.set("trainer.strategy", "zero_2")
    setup.set("run.wandb", "offline")
    monkeypatch.setattr(training.importlib.util, "find_spec", lambda name: None)
    assert len(setup.found()) == 3
    setup.settings["elsewhere"] = True
    assert setup.found() == []
    setup.set("model.base", "smollm2-135m")
    assert setup.found() == []


def test_gpus_asked_of_a_torch_for_cpus(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.set("trainer.accelerator", "gpu")
    monkeypatch.setattr(training.importlib.metadata, "version", lambda name: "2.13.0+cpu")
    found = setup.only()
    assert found.level == "warning" and "is a build for CPUs" in found.message
    monkeypatch.setattr(training.importlib.metadata, "version", lambda name: "2.13.0+cu130")
    assert setup.found() == []


def test_wandb_online_without_a_key_or_internet(setup: Setup, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    setup.set("run.wandb", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert "the compute nodes have no internet. Set it to offline" in setup.only().message
    setup.settings["offline"] = False
    assert setup.only().level == "warning" and "there is no key here" in setup.only().message
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    assert setup.found() == []
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    assert setup.found() == []


# --- itself ----------------------------------------------------------------------------------------------------------
def test_a_value_of_another_kind_is_left_to_the_job(setup: Setup) -> None:
    setup.set("data.batch", {"what": 1})
    found = setup.found()
    assert {finding.level for finding in found} == {"warning"}
    assert "could not look at everything (check records: TypeError" in found[0].message


SCRIPT = """
import json, sys, time
from pathlib import Path
from instructedit.scheduling.preflight import preflight
command, config, run = json.loads(sys.argv[1])
began = time.perf_counter()
found = preflight(command, config, Path(run), offline=True, gpu_memory_gib=24.0, ranks=1)
took = time.perf_counter() - began
heavy = {"torch", "transformers", "lightning", "datasets", "deepspeed", "wandb"} & set(sys.modules)
print(json.dumps([[finding.message for finding in found], took, sorted(heavy)]))
"""


def test_nothing_heavy_is_loaded(setup: Setup, tmp_path: Path) -> None:
    setup.set("run.wandb", "offline")
    setup.set("trainer.strategy", "zero_3")
    setup.set("model.base", "some/model")  # the Hub's cache is looked into
    argument = json.dumps([setup.command, setup.config, str(setup.run)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, argument],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    messages, took, heavy = json.loads(done.stdout)
    assert heavy == [] and took < 1.0
    assert len(messages) == 1 and "Fetch it here first: hf download some/model" in messages[0]
