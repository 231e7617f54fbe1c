"""Every strategy makes the steps of one process; what is learned is fp32 everywhere; the base is really cut."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.processes.conftest import Place, check_close, first_weights, last, vector

deepspeed = pytest.mark.deepspeed
SHARDED = ("--model.placement", "sharded")
WAYS = [
    pytest.param("ddp", (), 1e-3, marks=pytest.mark.slow, id="ddp"),
    pytest.param("fsdp2", (), 1e-3, marks=pytest.mark.slow, id="fsdp2"),
    *(pytest.param(f"zero_{n}", (), 1e-3, marks=deepspeed, id=f"zero_{n}") for n in (1, 2)),
    *(pytest.param(f"zero_{n}_offload", (), 1e-3, marks=deepspeed, id=f"zero_{n}_offload") for n in (1, 2)),
    pytest.param("zero_3", SHARDED, 1e-2, marks=deepspeed, id="zero_3"),
    pytest.param("zero_3_offload", SHARDED, 1e-2, marks=deepspeed, id="zero_3_offload"),
]


@pytest.fixture(scope="module")
def alone(
    tmp_path_factory: pytest.TempPathFactory, prepared: Path, llama_folder: Path, gpt2_folder: Path
) -> Callable[[str], tuple[Place, dict[str, torch.Tensor]]]:
    """Per family a place with one process's run of 20 steps in it, and the first weights."""
    made: dict[str, tuple[Place, dict[str, torch.Tensor]]] = {}

    def make(family: str) -> tuple[Place, dict[str, torch.Tensor]]:
        if family not in made:
            base = llama_folder if family == "llama" else gpt2_folder
            place = Place(tmp_path_factory.mktemp(family), prepared, base)
            place.start("alone").succeeds()
            made[family] = place, first_weights(base)
        return made[family]

    return make


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize(("strategy", "flags", "bound"), WAYS)
def test_two_ranks_train_what_one_process_trains(
    strategy: str,
    flags: tuple[str, ...],
    bound: float,
    family: str,
    alone: Callable[[str], tuple[Place, dict[str, torch.Tensor]]],
) -> None:
    place, start = alone(family)
    job = place.start(strategy, strategy, 2, *flags, patch="show_parts").succeeds()
    one, two = (last(place.path(name)) for name in ("alone", strategy))
    assert two["global_step"] == 20
    print(f"{strategy} {family}: {check_close(one, two, start, bound)}")
    parts = [json.loads(re.findall("PARTS (.*)", job.output(rank))[0]) for rank in (0, 1)]
    for part in parts:
        assert part["editor_dtypes"] == part["adam_dtypes"] == ["torch.float32"]
        assert part["base_grads"] == 0
        print(part)
    whole = parts[0]["editor_whole"]
    cut = {"ddp": 1.0}.get(strategy, 0.5)
    assert all(abs(part["adam_local"] - 2 * whole * cut) < 0.05 * whole for part in parts), "Adam's moments are cut"
    if strategy == "fsdp2" or strategy.startswith("zero_3"):
        assert sum(part["editor_local"] for part in parts) < 1.05 * whole, "the weights are cut"
    if flags == SHARDED:
        assert sum(part["base_local"] for part in parts) < 1.05 * parts[0]["base_whole"], "the base is cut"
        assert all(part["base_local"] > 0 for part in parts)
        for part in parts:
            assert part["whole_after_pass"] == part["passes"] > 0, "a block is gathered once for all passes"
            assert part["whole_in_the_end"] == 0, "and then cut again"


@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param("ddp", marks=pytest.mark.long),
        pytest.param("fsdp2", marks=pytest.mark.slow),
        *(pytest.param(name, marks=deepspeed) for name in ("zero_1", "zero_2", "zero_3", "zero_3_offload")),
    ],
)
def test_all_that_is_learned_is_fp32_under_a_bf16_base(strategy: str, place: Place) -> None:
    flags = SHARDED if strategy.startswith("zero_3") else ()
    steps = {"trainer__max_steps": 3, "validation__every_n_steps": 3}
    job = place.start("run", strategy, 2, *flags, patch="show_parts", model__dtype="bfloat16", **steps).succeeds()
    for rank in (0, 1):
        part = json.loads(re.findall("PARTS (.*)", job.output(rank))[0])
        assert part["editor_dtypes"] == part["adam_dtypes"] == ["torch.float32"]
        assert part["base_dtypes"] == ["torch.bfloat16"]
    content = last(place.path("run"))
    counts = {value.dtype for name, value in content["state_dict"].items() if name.endswith("count")}
    assert counts == {torch.int64}
    others = [value for name, value in content["state_dict"].items() if not name.endswith("count")]
    others += [value for own in content["optimizer_states"][0]["state"].values() for value in own.values()]
    assert {value.dtype for value in others} == {torch.float32}


@pytest.mark.parametrize(
    "strategy", [pytest.param("ddp", marks=pytest.mark.slow), pytest.param("zero_2", marks=deepspeed)]
)
def test_portions_change_nothing(strategy: str, place: Place) -> None:
    steps = {"trainer__max_steps": 4, "trainer__gradient_clip_val": 0.1}
    place.start("whole", **steps).succeeds()
    place.start("cut", strategy, 2, data__micro_batch=1, **steps).succeeds()
    one, two = (last(place.path(name)) for name in ("whole", "cut"))
    for part in ("exp_avg", "exp_avg_sq"):
        a, b = vector(one, part), vector(two, part)
        assert (a - b).norm() <= 1e-4 * a.norm()


BAD_STEP: dict[str, Any] = {"step": 3, "trainer__max_steps": 6, "trainer__gradient_clip_val": None}


@pytest.fixture(scope="module")
def one_bad_step(tmp_path_factory: pytest.TempPathFactory, prepared: Path, llama_folder: Path) -> dict[str, Any]:
    """The checkpoint of one process whose third step had a loss that is no number."""
    place = Place(tmp_path_factory.mktemp("bad"), prepared, llama_folder)
    place.start("one", patch="nan_at", rank=0, **BAD_STEP).succeeds()
    return last(place.path("one"))


@pytest.mark.parametrize(
    "strategy",
    [
        pytest.param("ddp", marks=pytest.mark.slow),
        pytest.param("fsdp2", marks=pytest.mark.long),
        *(pytest.param(name, marks=deepspeed) for name in ("zero_1", "zero_2", "zero_3", "zero_2_offload")),
    ],
)
def test_a_loss_that_is_no_number_on_one_rank_leaves_the_step_out_on_all(
    strategy: str, place: Place, one_bad_step: dict[str, Any]
) -> None:
    place.start("two", strategy, 2, patch="nan_at", rank=1, **BAD_STEP).succeeds()
    one, two = one_bad_step, last(place.path("two"))
    assert two["instructedit"]["skipped_steps"] == one["instructedit"]["skipped_steps"] == 1
    assert two["optimizer_states"][0]["state"][0]["step"] == 5
    assert (vector(one, "exp_avg") - vector(two, "exp_avg")).norm() <= 1e-3 * vector(one, "exp_avg").norm()
