"""Every kind of bad input through the command line: one clear line, exit status 2."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from instructedit.checkpoints import load_editor
from instructedit.tasks.prepared import read_prepared, write_prepared
from lightning_modules.parser import spelled
from tests.conftest import byte_tokenizer, tiny_llama
from tests.lightning_modules.conftest import Write, run

Refused = Callable[..., str]


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Refused:
    """Run a command that must be refused; return what it says."""

    def call(*argv: object) -> str:
        capsys.readouterr()
        assert run(*argv) == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.strip()]
        assert len(lines) == 1 and lines[0].startswith("error: "), lines
        return lines[0]

    return call


CASES: dict[str, tuple[dict[str, object], list[str]]] = {
    "base": ({"model__base": "./no-such-base"}, ["no-such-base"]),
    "alias": ({"model__base": "smollm2-136m"}, ["smollm2-135m"]),
    "site": ({"model__sites": {"names": ["model.layers.9.mlp.up_proj"]}}, ["layers.9", "blocks 0-3"]),
    "matrix": ({"model__sites": {"matrices": ["c_fc"]}}, ["c_fc", "down_proj"]),
    "task": ({"data__tasks": ["recent", "counterfact"]}, ["counterfact", "recent/train", "instructedit prepare"]),
    "held-out task": ({"data__held_out": ["qsre"]}, ["qsre"]),
    "no training records": ({"data__tasks": ["recent", "zsre"]}, ["zsre", "train", "empty"]),
    "folder": ({"data__folder": "nowhere"}, ["nowhere", "instructedit prepare"]),
    "pools": ({"data__instructions": "nowhere.yaml"}, ["nowhere.yaml"]),
    "key": ({"model__learning_rate": 1e-3}, ["learning_rate", "instructedit fit --help"]),
    "trainer key": ({"trainer__precision": "16-mixed"}, ["precision"]),
    "section": ({"run__nam": "x"}, ["nam"]),
    "type": ({"data__batch": "eight"}, ["batch", "eight"]),
    "choice": ({"model__method": "mend"}, ["mend", "MEND"]),
    "another method's settings": ({"model__ke": {"hidden": 8}}, ["model.ke", "InstructEdit"]),
    "ke": ({"model__method": "KE", "model__ke": {"hidden": 0}}, ["hidden", "0"]),
    "batch": ({"data__batch": 0}, ["data.batch"]),
    "device name": ({"trainer__accelerator": "npu"}, ["npu"]),
    "name": ({"run__name": "a/b"}, ["run.name"]),
    "steps": ({"trainer__max_steps": -1}, ["max_steps"]),
    "warm-up": ({"model__warmup_steps": 7}, ["warmup_steps"]),
    "rank": ({"model__editor": {"rank": 0}}, ["rank"]),
    "mix": ({"data__mix": {"locality": 0}}, ["locality"]),
    "caps": ({"data__caps": {"zsre": 3}}, ["zsre", "caps"]),
    "validation": ({"validation__every_n_steps": 0}, ["every_n_steps"]),
    "validation records": ({"data__validation_records": 0}, ["data.validation_records is 0"]),
    "test records": ({"data__test_records": -1}, ["data.test_records is -1"]),
    "workers": ({"data__num_workers": -1}, ["data.num_workers is -1"]),
    "rate": ({"model__lr": 0.0}, ["model.lr is 0"]),
    "rate of alpha": ({"model__alpha_lr": float("nan")}, ["model.alpha_lr is nan"]),
    "bad steps": ({"model__max_bad_steps": 0}, ["max_bad_steps", "found 0"]),
    "negative warm-up": ({"model__warmup_steps": -1}, ["warmup_steps", "-1"]),
    "log": ({"trainer__log_every_n_steps": 0}, ["trainer.log_every_n_steps is 0"]),
    "time": ({"trainer__max_time": "00:01:00:00"}, ["max_time"]),
    "store rows": ({"model__store": {"rows_per_pass": 0}}, ["model.store.rows_per_pass", "found 0"]),
    "store padding": ({"model__store": {"pad_to_tokens": 0}}, ["pad_to_tokens", "found 1, 0"]),
    "store memory": ({"model__store": {"memory_mib": -1}}, ["memory_mib", "-1"]),
    "store folder": ({"model__store": {"folder": "a-file/store"}}, ["model.store.folder a-file/store"]),
    "context": ({"model__base": "short"}, ["longer than the base's context of 40"]),
}


@pytest.mark.parametrize("case", CASES)
def test_a_bad_setting(case: str, write_config: Write, refused: Refused, tmp_path: Path) -> None:
    if case == "context":
        tiny_llama(max_position_embeddings=40).save_pretrained(tmp_path / "short")
        byte_tokenizer().save_pretrained(tmp_path / "short")
    (tmp_path / "a-file").touch()
    changes, told = CASES[case]
    message = refused("fit", "--config", write_config(**changes))
    assert [part for part in told if part not in message] == [], message
    assert not (tmp_path / "runs" / "run").exists()  # a refused command leaves nothing behind


@pytest.mark.parametrize("text", ["model: {base: [", "- a list\n", "modle: {base: x}\n"])
def test_a_bad_config_file(text: str, refused: Refused, tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    refused("fit", "--config", path)
    assert "missing.yaml" in refused("fit", "--config", tmp_path / "missing.yaml")


def test_a_missing_section(refused: Refused) -> None:
    assert "model" in refused("fit")


def test_an_empty_validation_split(write_config: Write, refused: Refused, prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(prepared, folder)
    splits = {"train": read_prepared(prepared, "recent", "train"), "test": read_prepared(prepared, "recent", "test")}
    write_prepared(folder, "recent", splits, {})  # type: ignore[arg-type]
    message = refused("fit", "--config", write_config(data__folder=str(folder)))
    assert "validation split of task 'recent'" in message and "--validation" in message


def test_a_damaged_data_file(write_config: Write, refused: Refused, prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(prepared, folder)
    (file,) = (folder / "recent" / "train").glob("*.arrow")
    file.write_bytes(b"no arrow")
    assert "recent" in refused("fit", "--config", write_config(data__folder=str(folder)))


def test_a_record_without_a_target(write_config: Write, refused: Refused, prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "other"
    shutil.copytree(prepared, folder)
    train = read_prepared(prepared, "recent", "train")
    train = [replace(e, request=replace(e.request, target=" ")) for e in train]
    splits = {split: read_prepared(prepared, "recent", split) for split in ("validation", "test")}  # type: ignore[arg-type]
    write_prepared(folder, "recent", {"train": train, **splits}, {})  # type: ignore[arg-type, dict-item]
    assert "Empty target" in refused("fit", "--config", write_config(data__folder=str(folder)))


@pytest.mark.slow
def test_a_test_record_longer_than_the_context_is_found_before_training(
    write_config: Write, refused: Refused, prepared: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(prepared, folder)
    (first, *others) = read_prepared(prepared, "zsre", "test")
    long = replace(first, probes=(replace(first.probes[0], prompt="word " * 99),))
    write_prepared(folder, "zsre", {"test": [long, *others]}, {})
    assert "longer than" in refused("fit", "--config", write_config(data__folder=str(folder)))
    assert not (tmp_path / "runs" / "run" / "checkpoints").exists()
    # Without an instruction the same text fits.
    changes = {"model__method": "MEND", "trainer__max_steps": 2}
    assert run("fit", "--config", write_config("mend", data__folder=str(folder), **changes)) == 0


def test_a_task_without_a_pool(write_config: Write, refused: Refused, tmp_path: Path) -> None:
    pool = {"task": "convsent", "label": "x", "descriptions": [f"Sentence {n}." for n in range(10)]}
    (tmp_path / "pools.yaml").write_text(yaml.safe_dump(pool))
    message = refused("fit", "--config", write_config(data__instructions=str(tmp_path / "pools.yaml")))
    assert "instruction pool 'recent'" in message
    # MEND takes no instructions and does not ask for any.
    config = write_config("mend", data__instructions="nowhere", model__method="MEND", trainer__max_steps=2)
    assert run("fit", "--config", config) == 0


@pytest.mark.slow
def test_a_run_directory_of_another_configuration(write_config: Write, refused: Refused, tmp_path: Path) -> None:
    assert run("fit", "--config", write_config(trainer__max_steps=2)) == 0
    before = (tmp_path / "runs" / "run" / "config.yaml").read_bytes()
    message = refused("fit", "--config", write_config(trainer__max_steps=2, model__lr=1e-4, data__batch=2))
    assert "data.batch (4, now 2)" in message and "model.lr (0.001, now 0.0001)" in message
    assert "seed" in refused("fit", "--config", write_config(trainer__max_steps=2), "--seed_everything", 1)
    for change, told in (
        ({"data__caps": {"convsent": 10}}, "data.caps.convsent (absent, now 10)"),
        ({"data__balance": {"recent": 2, "convsent": 1}}, "data.balance ('equal', now absent)"),
        ({"model__sites": {"names": ["model.layers.3.mlp.up_proj"]}}, "model.sites.names (None, now ["),
    ):
        assert told in refused("fit", "--config", write_config(trainer__max_steps=2, **change))
    assert (tmp_path / "runs" / "run" / "config.yaml").read_bytes() == before
    # Settings that change no number may change, and so may all before anything was trained.
    assert run("fit", "--config", write_config(trainer__max_steps=2, data__eval_batch=2)) == 0
    shutil.rmtree(tmp_path / "runs" / "run" / "checkpoints")
    assert run("fit", "--config", write_config(trainer__max_steps=2, model__lr=1e-4)) == 0


@pytest.mark.slow
def test_another_base_under_the_same_name(
    write_config: Write, refused: Refused, llama_folder: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(llama_folder, base)
    config = write_config(trainer__max_steps=2, model__base=str(base))
    assert run("fit", "--config", config) == 0
    tiny_llama(seed=5).save_pretrained(base)
    assert "with another base" in refused("fit", "--config", config)
    path = tmp_path / "runs" / "run"
    assert "another base" in refused("test", "--from_run", path)
    (path / "run.json").unlink()
    assert "another base" in refused("fit", "--config", config)
    from instructedit.base import load_base

    with pytest.raises(ValueError, match="was trained on base"):
        load_editor(path / "editor", load_base(str(base)))


def test_runs_and_checkpoints_that_are_not_there(write_config: Write, refused: Refused, tmp_path: Path) -> None:
    assert "no config.yaml" in refused("test", "--from_run", tmp_path / "runs" / "none")
    assert "no config.yaml" in refused("validate", "--from_run")
    config = write_config()
    assert "no checkpoint" in refused("validate", "--config", config)
    assert "no checkpoint" in refused("fit", "--config", config, "--ckpt_path", "last")
    assert "nowhere.ckpt" in refused("fit", "--config", config, "--ckpt_path", "nowhere.ckpt")
    (tmp_path / "runs" / "run").mkdir(parents=True)
    (tmp_path / "runs" / "run" / "run.json").write_text("{")
    assert "run.json" in refused("fit", "--config", config)


def test_dashes_in_flags_and_a_help_that_tells_of_from_run(
    write_config: Write, refused: Refused, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "data.eval_batch is 0" in refused("fit", "--config", write_config(), "--data.eval-batch", 0)
    assert "no config.yaml" in refused("test", "--from-run=nowhere")
    assert spelled(["--data.caps.demo-recent", "3"]) == ["--data.caps.demo-recent", "3"]  # a task's own dash
    capsys.readouterr()
    assert run("fit", "--help") == 0
    assert "--from_run DIR" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_tasks_that_were_not_prepared_together_are_told_of(
    write_config: Write, prepared: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "other"
    shutil.copytree(prepared, folder)
    for task, together in {"recent": ["recent", "convsent", "zsre"], "zsre": ["zsre"]}.items():
        (folder / task / "card.json").write_text(json.dumps({"options": {"prepared_together": together}}))
    assert run("fit", "--config", write_config(data__folder=str(folder), trainer__max_steps=2)) == 0
    (message,) = (record.getMessage() for record in caplog.records if "prepared together" in record.getMessage())
    assert message.startswith("zsre: ")


@pytest.mark.slow
def test_what_is_given_last_wins(write_config: Write, tmp_path: Path) -> None:
    second = tmp_path / "second.yaml"
    second.write_text("trainer: {max_steps: 3}\nmodel: {warmup_steps: 0}\n")
    assert run("fit", "--config", write_config(), "--config", second, "--trainer.max_steps", 2) == 0
    config = yaml.safe_load((tmp_path / "runs" / "run" / "config.yaml").read_text())
    assert config["trainer"]["max_steps"] == 2 and config["model"]["warmup_steps"] == 0
    assert config["model"]["lr"] == 1e-3
    assert json.loads((tmp_path / "runs" / "run" / "editor" / "card.json").read_text())["steps"] == 2
