"""The acceptance's checks in one process: each can pass, and each fails when what it looks at is broken.

tests/slurm has it as a job of several nodes.
"""

import json
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist

from instructedit import signals
from instructedit.base import packs
from instructedit.base.packs import Packs
from instructedit.errors import InputError
from instructedit.methods.ft_l import FTL
from lightning_modules.acceptance import accelerator, compare, driver, sharing, told
from lightning_modules.acceptance import rank as ranks
from lightning_modules.acceptance.driver import Driver, main
from lightning_modules.acceptance.rank import LostError, Part, Rank, Talk
from lightning_modules.acceptance.ranks import CHECKS, judge, meet, run
from lightning_modules.acceptance.results import Result, passed, read_results, table
from lightning_modules.acceptance.setting import SIGNAL_STEP, STEPS, Setting
from lightning_modules.acceptance.told import AsksToBeTold

JOB = {
    "SLURM_JOB_ID": "77",
    "SLURM_JOB_NUM_NODES": "2",
    "SLURM_NTASKS_PER_NODE": "1",
    "INSTRUCTEDIT_ACCEPTANCE_ACCELERATOR": "cpu",
}


@pytest.fixture
def setting(tmp_path: Path, llama_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    for name in [name for name in os.environ if name.startswith(("SLURM_", "INSTRUCTEDIT_ACCEPTANCE_"))]:
        monkeypatch.delenv(name)
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("INSTRUCTEDIT_ACCEPTANCE_BASE", str(llama_folder))
    monkeypatch.setenv("INSTRUCTEDIT_ACCEPTANCE_FOLDER", str(tmp_path / "state"))
    (tmp_path / "state").mkdir()
    return Setting.from_environment(sys.executable)


@pytest.fixture
def rank(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> Rank:
    monkeypatch.setattr(sharing, "SECONDS", 0.2)
    one = replace(setting, nodes=1)
    return Rank(0, 1, 0, "node1", torch.device("cpu"), one, Talk(dist.HashStore(), 0, 1))


# --- results and settings --------------------------------------------------------------------------------------------
def test_one_failure_fails_all_and_nothing_checked_is_no_success() -> None:
    good, bad, left = Result("a", "PASS", ""), Result("b", "FAIL", ""), Result("c", "SKIP", "")
    assert passed([good, left]) and not passed([good, bad]) and not passed([left]) and not passed([])
    assert table([good, bad, left]).splitlines()[-1] == "verdict: FAIL (1 passed, 1 failed, 1 skipped)"


def test_what_a_job_has_decides_and_what_is_asked_wins(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (setting.ranks, setting.accelerator, setting.asked) == (2, "cpu", True)
    monkeypatch.delenv("INSTRUCTEDIT_ACCEPTANCE_ACCELERATOR")
    assert Setting.from_environment("python").accelerator == "cpu", "the job has no GPUs"
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "4")
    monkeypatch.setenv("INSTRUCTEDIT_ACCEPTANCE_PYTHON", "apptainer exec 'my image' python")
    found = Setting.from_environment("python")
    assert (found.accelerator, found.asked) == ("gpu", False)
    assert found.python == ("apptainer", "exec", "my image", "python")


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("INSTRUCTEDIT_ACCEPTANCE_PHASES", "rank", "Did you mean 'ranks'"),
        ("INSTRUCTEDIT_ACCEPTANCE_ACCELERATOR", "cpus", "Did you mean 'cpu'"),
        ("INSTRUCTEDIT_ACCEPTANCE_MINUTES", "ten", "is no number"),
        ("SLURM_JOB_ID", None, "sbatch slurm/acceptance.sbatch"),
    ],
)
def test_what_is_no_setting(
    setting: Setting, monkeypatch: pytest.MonkeyPatch, name: str, value: str | None, message: str
) -> None:
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        Setting.from_environment("python")


# --- the ranks' checks -----------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_every_check_passes_where_nothing_is_broken(rank: Rank, capsys: pytest.CaptureFixture[str]) -> None:
    verdicts = {name: judge(name, run(check, rank), rank) for name, check in CHECKS.items()}
    skipped = {name for name, result in verdicts.items() if result.verdict == "SKIP"}
    assert skipped == {"devices", "NCCL all-reduce"}
    assert {result.verdict for name, result in verdicts.items() if name not in skipped} == {"PASS"}, verdicts
    assert verdicts["bf16 edit"].numbers["after"] > verdicts["bf16 edit"].numbers["before"] + 1


def test_ranks_and_devices_that_are_not_there(rank: Rank) -> None:
    lost = replace(rank, setting=replace(rank.setting, nodes=2))
    assert meet(lost).fault == "1 ranks on node1; 2 ranks on 2 nodes were asked for"
    on_gpus = replace(rank, setting=replace(rank.setting, accelerator="gpu"))
    assert "sees none" in run(accelerator.devices, on_gpus).fault
    assert (
        "of rank 1 after 0 s: it is not on a file system that the nodes share"
        in sharing.folder(replace(rank, ranks=2)).fault
    )


def test_a_rank_that_fails_fails_the_check_and_is_named(rank: Rank, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(_rank: Rank) -> Part:
        raise ZeroDivisionError("made\nto fail")

    result = judge("x", run(broken, rank), rank)
    assert result == Result("x", "FAIL", "rank 0 on node1: ZeroDivisionError: made to fail")
    assert "Traceback" in capsys.readouterr().err


def test_ranks_hear_each_other_and_notice_who_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    store = dist.HashStore()
    one, two = Talk(store, 0, 2), Talk(store, 1, 2)
    for talk in (one, two):
        talk.begin("a")
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda talk: talk.gathered(talk.number), (one, two))) == [[0, 1], [0, 1]]
    two.break_off()
    with pytest.raises(LostError, match="rank 1 has broken off"):
        one.gathered("b")
    for talk in (one, two):
        talk.begin("c")
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda talk: talk.gathered([]), (one, two))) == [[[], []], [[], []]]
    monkeypatch.setattr(ranks, "WAIT", timedelta(seconds=0.1))
    with pytest.raises(LostError, match="rank 1 has told nothing in 0 s"):
        one.gathered("d")


def test_wrong_sums_and_products(rank: Rank, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator, "multiplied", lambda a, b: a @ b * 1.05)
    assert "more than 0.01" in accelerator.products(rank).fault
    monkeypatch.setattr(dist, "all_reduce", lambda tensor: tensor.add_(1))
    assert "1000 of 1000 sums of torch.int64 are wrong: 2 where 1 belongs" in accelerator.gloo(rank).fault


def test_an_edit_that_does_not_take_or_that_stays(rank: Rank, monkeypatch: pytest.MonkeyPatch) -> None:
    def edit(_method: FTL, base: Any, _requests: Any) -> Any:
        @contextmanager
        def applied() -> Iterator[None]:
            if stays:
                base.model.get_output_embeddings().weight.data[accelerator_target(base)] += 1
            yield

        return SimpleNamespace(applied=applied)

    def accelerator_target(base: Any) -> list[int]:
        ids: list[int] = base.tokenizer(" " + accelerator.REQUEST.target).input_ids
        return ids

    monkeypatch.setattr(FTL, "edit", edit)
    stays = False
    assert "the edit has not taken" in accelerator.edit(rank).fault
    stays = True
    real = accelerator.likelihood
    told = iter([-9.0, -1.0, -9.0])
    monkeypatch.setattr(accelerator, "likelihood", lambda base: (next(told), real(base)[1]))
    assert "outside the edit logits differ from before" in accelerator.edit(rank).fault


def test_a_store_that_loses_or_mixes_up_states(rank: Rank, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Packs, "put", lambda self, states: None)
        assert "24 of 24 states were not to be seen after 0 s" in sharing.store(rank).fault
    with monkeypatch.context() as patch:
        real = Packs.get
        patch.setattr(Packs, "get", lambda self, key, rows: _doubled(real(self, key, rows)))
        assert "not those that were computed" in sharing.store(rank).fault


def _doubled(state: torch.Tensor | None) -> torch.Tensor | None:
    return None if state is None else 2 * state


def test_damage_that_nobody_sees(rank: Rank, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sharing.store(rank).fault == ""
    monkeypatch.setattr("instructedit.base.pack_file._checksum", lambda key, state: "the same")
    (folder,) = (rank.setting.folder / "states").iterdir()
    for path in folder.glob("*.safetensors"):
        path.unlink()
    assert sharing.store(rank).fault == ""
    assert "states were read wrong from broken packs" in sharing.torn(rank).fault


def test_broken_packs_that_are_not_made_again(rank: Rank, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sharing.store(rank).fault == ""
    monkeypatch.setattr(packs.Packs, "put", lambda self, states: None)
    assert "states were not written again" in sharing.torn(rank).fault


# --- comparing trainings ---------------------------------------------------------------------------------------------
def write_run(
    setting: Setting, name: str, way: float, off: float = 0.0, gradient: float = 1.0, starts: tuple[int, ...] = (0,)
) -> None:
    """A run whose parameters went a way from the first weights, of which one is off, with a mean gradient."""
    folder = setting.runs / name
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    state = {key: value + way for key, value in compare.first_weights(setting).items()}
    state["editor.alpha"] = state["editor.alpha"] + off
    adam = [{"state": {0: {"exp_avg": torch.full((2,), gradient), "exp_avg_sq": torch.ones(2)}}}]
    content = {"state_dict": state, "loops": {}, "global_step": STEPS, "optimizer_states": adam}
    torch.save(content, folder / "checkpoints" / "last.ckpt")
    (folder / "run.json").write_text(json.dumps({"starts": [{"step": step} for step in starts]}))
    (folder / "metrics.csv").write_text("step,train/loss\n")


def test_strategies_that_end_elsewhere_fail(setting: Setting) -> None:
    write_run(setting, "alone", 0.1)
    write_run(setting, "ddp", 0.1, off=1e-2, gradient=1.0005)
    write_run(setting, "zero_2", 0.1, off=3.0)
    write_run(setting, "fsdp2", 0.1, gradient=2.0)  # twice the gradient, the same steps: only Adam does not see it
    one, two, three = compare.compare_strategies(setting, ["ddp", "zero_2", "fsdp2"])
    assert (one.name, one.verdict) == ("ddp", "PASS") and 0 < one.numbers["way"] < compare.WAY
    assert two.verdict == "FAIL" and two.numbers["way"] > compare.WAY
    assert three.verdict == "FAIL" and "mean gradients 1.0e+00 apart, weights 0.0e+00 of their way" in three.told
    write_run(setting, "alone", 0.0)
    assert "has not moved" in compare.compare_strategies(setting, ["ddp"])[0].told


def test_an_interrupted_run_ends_with_the_same_bits(setting: Setting) -> None:
    starts = (0, SIGNAL_STEP + 1)
    write_run(setting, "ddp", 0.1)
    write_run(setting, "requeue", 0.1, starts=starts)
    assert compare.compare_interrupted(setting, "ddp").verdict == "PASS"
    write_run(setting, "requeue", 0.1, off=1e-6, starts=starts)
    assert compare.compare_interrupted(setting, "ddp").verdict == "FAIL"
    on_gpus = replace(setting, accelerator="gpu")
    assert "kernels that add up in any order" in compare.compare_interrupted(on_gpus, "ddp").told
    write_run(setting, "requeue", 0.1, gradient=0.9, starts=starts)
    assert compare.compare_interrupted(on_gpus, "ddp").verdict == "FAIL"
    write_run(setting, "requeue", 0.1, starts=(0, 0))
    assert "has started at steps [0, 0]" in compare.compare_interrupted(setting, "ddp").told


# --- the driver ------------------------------------------------------------------------------------------------------
@pytest.fixture
def srun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Programs in SLURM's place: srun notes what it is asked and does what the file ``do`` says."""
    place = tmp_path / "bin"
    place.mkdir()
    (place / "srun").write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\n. {tmp_path}/do\n')
    (place / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return tmp_path / "do"


def test_a_job_whose_processes_fail(setting: Setting, srun: Path, capsys: pytest.CaptureFixture[str]) -> None:
    srun.write_text("echo 'RuntimeError: no route to node2' >&2; echo 'srun: error: node2: task 1' >&2; exit 7\n")
    assert main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "verdict: FAIL (0 passed, 3 failed, 0 skipped)"
    assert all("status 7: RuntimeError: no route to node2" in line for line in lines[-4:-1])
    content = json.loads((setting.folder / "acceptance.json").read_text())
    assert content["verdict"] == "FAIL" and [part["verdict"] for part in content["results"]] == ["FAIL"] * 3
    # What has been done is not repeated by another start, also where it failed.
    asked = (srun.parent / "asked").read_text()
    assert main() == 1 and (srun.parent / "asked").read_text() == asked
    assert "--nodes=2 --ntasks=2 --ntasks-per-node=1" in asked.splitlines()[0]


def test_processes_that_hang_are_ended(setting: Setting, srun: Path) -> None:
    srun.write_text("exec sleep 60\n")
    (result,) = Driver(replace(setting, phases=("ranks",), minutes=0.002)).run()
    assert result.verdict == "FAIL" and "not done in 0.002 minutes" in result.told


def test_strategies_whose_packages_are_missing_are_left_out(
    setting: Setting, srun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(driver, "find_spec", lambda name: None)
    found = [Result(name, "PASS", "", {}) for name in ("ddp", "fsdp2")]
    text = json.dumps([vars(result) for result in found])
    srun.write_text(f"cat > {setting.folder}/results-compared-strategies.json <<'END'\n{text}\nEND\n")
    results = Driver(replace(setting, phases=("strategies",))).run()
    assert [(result.name, result.verdict) for result in results] == [
        ("ddp", "PASS"),
        ("zero_2", "SKIP"),
        ("zero_3", "SKIP"),
        ("fsdp2", "PASS"),
    ]
    assert read_results(setting.folder, "strategies") == results


@pytest.mark.parametrize(
    ("does", "restarts", "message"),
    [
        ("true", 0, "has ended without being told to stop"),
        ("touch MARKER", 0, "SLURM has not started the job again in 0 s"),
        ("touch MARKER; case $* in *requeue.yaml*) echo 'error: out of requeues'; exit 3;; esac", 0, "out of requeues"),
        ("true", 5, "was started again 5 times"),
    ],
)
def test_a_job_that_is_not_requeued(
    setting: Setting, srun: Path, monkeypatch: pytest.MonkeyPatch, does: str, restarts: int, message: str
) -> None:
    monkeypatch.setattr(driver, "REQUEUE_SECONDS", 0.1)
    srun.write_text(does.replace("MARKER", f"{setting.folder}/told-to-stop"))
    (result,) = Driver(replace(setting, phases=("requeue",), restarts=restarts)).run()
    assert result.verdict == "FAIL" and message in result.told


# --- the signal ------------------------------------------------------------------------------------------------------
def test_the_ranks_are_told_once(srun: Path, setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scancel = srun.parent / "bin" / "scancel"
    scancel.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/told\nkill -USR1 {os.getpid()}\n')
    scancel.chmod(0o755)
    signals.install()
    trainer: Any = SimpleNamespace(global_step=1, is_global_zero=True, global_rank=0)
    module: Any = None
    for _ in range(2):  # the second start finds the marker
        callback = AsksToBeTold(2, str(tmp_path / "marker"))
        callback.on_train_start(trainer, module)
        for step in (1, 2, 3):
            trainer.global_step = step
            callback.on_train_batch_start(trainer, module, None, 0)
            assert bool(signals.requested()) == (step >= 2 or (tmp_path / "marker").exists())
    assert (tmp_path / "told").read_text() == "--signal=USR1 77\n"
    signals.clear()
    (tmp_path / "marker").unlink()
    scancel.write_text("#!/bin/sh\n")
    monkeypatch.setattr(told, "SECONDS", 0.1)
    callback = AsksToBeTold(2, str(tmp_path / "marker"))
    callback.on_train_start(trainer, module)
    trainer.global_step = 2
    with pytest.raises(RuntimeError, match="SIGUSR1 has not reached rank 0"):
        callback.on_train_batch_start(trainer, module, None, 0)
