"""Whole trainings through the command line: what a run leaves behind."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from instructedit.base import SiteSpec, find_sites, load_base
from instructedit.checkpoints import load_editor, read_card
from instructedit.evaluation.tables import from_jsonl
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from instructedit.tasks.card import content_hash
from instructedit.tasks.prepared import read_prepared
from lightning_modules.callbacks.checkpoints import read_checkpoint
from lightning_modules.editor_module import EditorModule
from tests.lightning_modules.conftest import Write, rows, run


@pytest.mark.parametrize(("family", "method"), [("llama", "InstructEdit"), ("gpt2", "MEND"), ("llama", "KE")])
def test_a_run_from_start_to_table(
    family: str,
    method: str,
    write_config: Write,
    prepared: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = request.getfixturevalue(f"{family}_folder")
    assert run("fit", "--config", write_config(model__base=str(folder), model__method=method)) == 0
    path = tmp_path / "runs" / "run"
    outcomes = from_jsonl(path / "results" / "test.jsonl")
    instructed = ["InstructEdit (seen)", "InstructEdit (unseen)"]
    assert {o.method for o in outcomes} == {"Base", *(instructed if method == "InstructEdit" else [method])}
    assert {o.task for o in outcomes} == {"recent", "convsent", "zsre"}
    assert all(o.value == 1 for o in outcomes if o.method == "Base" and o.metric == "locality")

    base = load_base(str(folder))
    editor, card = load_editor(path / "editor", base)
    assert editor.started and card.method == method and card.tasks == ("recent", "convsent")
    assert (card.pools is None) == (method != "InstructEdit")
    assert card.results["run"] == "run"
    usual = card.results["validation_edits"]
    assert usual["records"] == 6 and 0 < usual["update_norm"]["min"] <= usual["update_norm"]["max"]
    assert 0 <= usual["locality_kl"]["q50"] <= usual["locality_kl"]["max"]
    best = read_checkpoint(path / "checkpoints" / "best.ckpt")
    assert card.steps == best["global_step"]
    assert all(torch.equal(value, best["state_dict"]["editor." + key]) for key, value in editor.state_dict().items())

    table = rows(path / "metrics.csv")
    assert [row["step"] for row in table] == ["1", "2", "3", "4", "5", "6"]
    assert [bool(row["val/score"]) for row in table] == [False, False, True, False, False, True]
    assert float(table[0]["train/lr"]) == 5e-4 and float(table[1]["train/lr"]) == 1e-3
    assert float(table[5]["train/lr"]) == pytest.approx(1e-3 / 4)
    assert all(row["train/recent/edit"] and row["train/convsent/unlikelihood"] for row in table)
    record = json.loads((path / "run.json").read_text())
    assert record["fingerprint"] == base.fingerprint
    used = {f"{task}/{split}" for task in ("recent", "convsent") for split in ("train", "validation", "test")}
    assert record["data_sha256"].keys() == used | {"zsre/test"} and card.data == record["data_sha256"]
    validated = read_prepared(prepared, "recent", "validation")
    assert record["data_sha256"]["recent/validation"] == content_hash(validated)
    assert not list(path.rglob("*.partial"))
    printed = capsys.readouterr().out
    assert "reliability" in printed and str(path / "editor") in printed


@pytest.mark.slow
def test_only_the_hypernetwork_is_in_a_checkpoint(write_config: Write, tmp_path: Path) -> None:
    assert run("fit", "--config", write_config(model__dtype="bfloat16", trainer__max_steps=3)) == 0
    content = read_checkpoint(tmp_path / "runs" / "run" / "checkpoints" / "last.ckpt")
    state = content["state_dict"]
    assert state and all(key.startswith("editor.") for key in state)
    # Under a bf16 base everything learned or accumulated stays fp32, but for the count.
    assert {value.dtype for key, value in state.items() if not key.endswith("count")} == {torch.float32}
    assert len(content["optimizer_states"]) == 1
    rates = [group["initial_lr"] for group in content["optimizer_states"][0]["param_groups"]]
    assert rates == [1e-3, 1e-4]


@pytest.mark.slow
def test_every_learned_part_moves(write_config: Write, llama_folder: Path, tmp_path: Path) -> None:
    config = write_config(trainer__max_steps=3, model__warmup_steps=0, validation__every_n_steps=1)
    assert run("fit", "--config", config) == 0
    folder = tmp_path / "runs" / "run" / "checkpoints"
    last = read_checkpoint(folder / "last.ckpt")["state_dict"]
    base, sites, size = load_base(str(llama_folder)), SiteSpec(last_blocks=2), EditorConfig(rank=8)
    torch.manual_seed(0)  # the seed of the run makes its first weights
    start = HyperEditor(find_sites(base, sites), size)
    torch.manual_seed(0)
    module = EditorModule(str(llama_folder), sites=sites, editor=size)
    module.build()
    for name, value in module.editor.named_parameters():  # else the next lines would show nothing
        assert torch.equal(dict(start.named_parameters())[name], value), name
    for name, value in start.named_parameters():
        assert not torch.equal(last["editor." + name], value), name


@pytest.mark.slow
def test_micro_batches_change_nothing(write_config: Write, tmp_path: Path) -> None:
    results = []
    for name, micro in (("whole", None), ("cut", 1), ("uneven", 3)):
        assert run("fit", "--config", write_config(name, data__micro_batch=micro, trainer__max_steps=3)) == 0
        results.append(read_checkpoint(tmp_path / "runs" / name / "checkpoints" / "last.ckpt")["state_dict"])
        assert rows(tmp_path / "runs" / name / "metrics.csv")[-1]["step"] == "3"
    for other in results[1:]:
        for key, value in results[0].items():
            assert torch.allclose(other[key].double(), value.double(), rtol=1e-4, atol=2e-6), key


@pytest.mark.slow
def test_validate_and_test_take_a_run_directory(
    write_config: Write, prepared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("fit", "--config", write_config(trainer__max_steps=3)) == 0
    path = tmp_path / "runs" / "run"
    score = float(rows(path / "metrics.csv")[-1]["val/score"])
    before = (path / "results" / "test.jsonl").read_text()
    (path / "results" / "test.jsonl").unlink()
    capsys.readouterr()
    assert run("validate", "--from_run", path, "--ckpt_path", "last") == 0
    assert f"val/score {score:.2f}" in capsys.readouterr().out
    assert run("test", f"--from_run={path}") == 0
    assert (path / "results" / "test.jsonl").read_text() == before
    # The table needs the test records alone.
    shutil.copytree(prepared, tmp_path / "other")
    for split in ("train", "validation"):
        shutil.rmtree(tmp_path / "other" / "recent" / split)
    usual = read_card(path / "editor").results["validation_edits"]
    assert run("test", "--from_run", path, "--data.folder", tmp_path / "other") == 0
    told = capsys.readouterr().out
    assert f"instructedit edit --editor {path / 'editor'} --prompt" in told  # what to do next
    # What validation saw of these weights is not forgotten.
    assert read_card(path / "editor").results["validation_edits"] == usual


@pytest.mark.slow
def test_early_stopping_stops_and_stays_stopped(write_config: Write, tmp_path: Path) -> None:
    settings = {"trainer__max_steps": 12, "validation__every_n_steps": 1, "validation__patience": 2}
    # Alphas this small leave every answer as it was, so no validation is better than the first.
    still = {"model__lr": 1e-12, "model__alpha_lr": 1e-30, "model__editor": {"rank": 4, "alpha_init": 1e-20}}
    config = write_config(**settings, **still)
    for _ in range(2):
        assert run("fit", "--config", config) == 0
        assert [row["step"] for row in rows(tmp_path / "runs" / "run" / "metrics.csv")] == ["1", "2", "3"]


@pytest.mark.slow
def test_wandb_offline_keeps_the_id(write_config: Write, tmp_path: Path) -> None:
    config = write_config(trainer__max_steps=2)
    assert run("fit", "--config", config, "--run.wandb", "offline") == 0
    path = tmp_path / "runs" / "run"
    run_id = json.loads((path / "run.json").read_text())["wandb_id"]
    assert list((path / "wandb").glob(f"offline-run-*-{run_id}"))
    assert rows(path / "metrics.csv")
