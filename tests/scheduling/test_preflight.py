"""Each finding of the preflight, in a setup where nothing else is wrong; files are real, GPUs are numbers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from instructedit.scheduling.preflight import Finding, preflight, training

LLAMA = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
"""LLaMA-2-7B, of which only the config is needed."""

CARD = {"splits": {split: {"records": 20} for split in ("train", "validation", "test")}}


class Setup:
    """A training in which nothing is wrong, to be changed."""

    def __init__(self, folder: Path) -> None:
        self.base, self.data, self.run = folder / "base", folder / "data", folder / "runs" / "a"
        self.base.mkdir()
        (self.base / "config.json").write_text(json.dumps(LLAMA))
        for name in ("model.safetensors", "tokenizer.json"):
            (self.base / name).touch()
        for task in ("recent", "convsent", "zsre"):
            for split in ("train", "validation", "test"):
                (self.data / task / split).mkdir(parents=True)
                (self.data / task / split / "state.json").touch()
            (self.data / task / "card.json").write_text(json.dumps(CARD))
        self.command = "fit"
        self.config: dict[str, Any] = {
            "run": {"name": "a", "folder": str(folder / "runs")},
            "model": {"base": str(self.base), "dtype": "bfloat16"},
            "data": {"folder": str(self.data), "tasks": ["recent", "convsent"], "held_out": ["zsre"], "batch": 8},
            "trainer": {"max_steps": 10, "accelerator": "cpu"},
        }
        self.settings: dict[str, Any] = {"offline": True, "gpu_memory_gib": 24.0, "ranks": 1}

    def set(self, key: str, value: Any) -> None:
        *sections, name = key.split(".")
        found = self.config
        for section in sections:
            found = found.setdefault(section, {})
        found[name] = value

    def evaluation(self) -> None:
        self.command = "evaluate"
        self.config = {"base": str(self.base), "data": str(self.data), "tasks": "recent,zsre", "dtype": "bfloat16"}
        self.config["methods"] = [{"method": "ft-l"}]

    def found(self) -> list[Finding]:
        return preflight(self.command, self.config, self.run, **self.settings)

    def only(self) -> Finding:
        found = self.found()
        assert len(found) == 1, found
        assert "\n" not in found[0].message
        return found[0]


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    monkeypatch.setenv("INSTRUCTEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return Setup(tmp_path)


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
    # docs/placement.md: 31.8 GB, with 8 rows in place of 10.
    assert (
        "needs about 29.8 GiB of GPU memory (base 25.1, editor with gradients and Adam 3.5, step 1.2)" in found.message
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
