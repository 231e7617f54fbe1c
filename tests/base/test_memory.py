"""The sizes against models and editors that are there, and the estimate of a step against what one really takes."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Literal

import pytest
import torch

from instructedit.base import Base, SiteSpec, find_sites, sizes
from instructedit.base.memory import count_base, count_editor
from instructedit.base.paging import without_weights
from instructedit.base.sizes import BaseSize, DType, EditorSize, Memory, Placing, StepSize, accelerator_memory
from instructedit.data.collate import Batch
from instructedit.data.rows import Rows
from instructedit.errors import InputError
from instructedit.head_losses import PORTION_BYTES
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from instructedit.metatrain import LossWeights, Stage, meta_loss, warm_up

BASE = BaseSize(
    embeddings=100, trunk=5000, tail=3000, head=200, block=1000, tail_blocks=3, width=8, inner=16, vocabulary=20
)
EDITOR = EditorSize(parameters=1600, largest=900, width=48, per_token=150, last_width=16, last_per_token=50)

WHERE: tuple[Literal["accelerator", "cpu"], ...] = ("accelerator", "cpu")


def of(base: str, dtype: DType = "float32", **more: object) -> Memory:
    return accelerator_memory(BASE, EDITOR, Placing(base, dtype, **more))  # type: ignore[arg-type]


def numbers(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_base_is_counted_by_part_and_needs_no_weights(
    family: str, tied: bool, make_tiny_base: Callable[..., Base]
) -> None:
    base = make_tiny_base(family, tie_word_embeddings=tied)
    size = count_base(base.model, 3)
    assert count_base(without_weights(base.model.config, torch.bfloat16), 3) == size
    blocks = [numbers(block) for block in base.adaptor.blocks_of(base.model)]
    assert (size.trunk, size.tail, size.block) == (blocks[0], sum(blocks[1:]), max(blocks))
    norm = numbers(base.adaptor.decoder_of(base.model).get_submodule(base.adaptor.norm))
    assert size.head == 257 * 32 + norm
    positions = 512 * 32 if family == "gpt2" else 0
    assert size.embeddings == positions + (0 if tied else 257 * 32)
    assert size.whole == numbers(base.model)
    assert (size.width, size.vocabulary, size.inner) == (32, 257, 128 if family == "gpt2" else 48)


def test_an_editor_is_counted(tiny_llama_base: Base) -> None:
    sites = find_sites(tiny_llama_base, SiteSpec(last_blocks=2))
    with torch.device("meta"):
        editor = HyperEditor(sites, EditorConfig(rank=16))
    size = count_editor(editor, [(site.d_in, site.d_out) for site in sites], 16, 2, in_last=3)
    assert size.parameters == numbers(HyperEditor(sites, EditorConfig(rank=16)))
    assert size.largest == numbers(editor.networks["32x48"]), "gate and up share a network of four sites"
    # Each of its blocks keeps a token's input, product and inner width; the output is kept once.
    assert (size.width, size.per_token) == (6 * 80, 2 * (2 * 6 * 80 + 6 * 16) + 6 * 80)
    assert (size.last_width, size.last_per_token) == (3 * 80, size.per_token // 2)


def test_each_placement_holds_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of("sharded", zero=3, ranks=4).base == 4 * 8300, "a small base may all be gathered at once"
    monkeypatch.setattr(sizes, "GATHERED", 100)
    assert of("replicated").base == 4 * 8300
    assert of("replicated", "bfloat16").base == 2 * 8300
    assert of("tail_only").base == of("tail_only", trunk_device="cpu").base == 4 * (3000 + 200)
    assert of("sharded", zero=3, ranks=4).base == 4 * (2075 + 1000)
    assert of("sharded", zero=3, ranks=4, offload=True).base == 4 * 1000


def test_the_editor_takes_16_bytes_a_parameter_and_less_where_it_is_cut() -> None:
    assert of("replicated").editor == 16 * 1600
    # Weights, gradients, two moments and the engine's copy, 1600 or 400 of each.
    assert of("replicated", zero=1, ranks=4).editor == 4 * (1600 + 1600 + 2 * 400 + 400)
    assert of("replicated", zero=2, ranks=4).editor == 4 * (1600 + 400 + 2 * 400 + 400)
    assert of("replicated", zero=3, ranks=4).editor == 4 * (400 + 400 + 2 * 400 + 400 + 900)
    # Offloaded, the accelerator keeps what it computes with.
    assert of("replicated", zero=2, ranks=4, offload=True).editor == 4 * (1600 + 400)
    assert of("replicated", zero=3, ranks=4, offload=True).editor == 4 * (400 + 900)
    assert of("tail_only").editor == of("replicated", "bfloat16").editor


def test_a_steps_memory_by_hand() -> None:
    # 4 rows of 10 tokens and 3 targets; 2 edit inputs, 1 locality input. Three blocks of d 8 and inner 16, in bf16.
    step = StepSize(rows=4, inner_rows=2, local_rows=1, tokens=10, targets=3)
    norms = 5 * 40 * 8 * 4  # two in each block but the first, and the last norm: fp32
    attention = 2 * 40 * 5 * 8 * 2  # in each block but the first
    mlps = (2 * 40 + 12) * 4 * 16 * 2  # the last at 12 target tokens
    entering = (40 + 2 * 10) * 8 * 2
    updates = (32 * 10 + 16 * 3) * (2 * 4 + 4 * 2)  # 2 requests in fp32, 4 rows in bf16
    through_editor = 2 * (100 * 10 + 50 * 3) * 4
    divergence, likelihood = 1 * 3 * 20 * (5 * 4 + 2 * 2), 3 * 3 * 20 * 3 * 4
    found = accelerator_memory(BASE, EDITOR, Placing("tail_only", "bfloat16"), step)
    assert found.step == norms + attention + mlps + entering + updates + through_editor + max(divergence, likelihood)
    assert found.total == found.base + found.editor + found.step


def test_a_block_of_the_trunk_counts_where_it_is_more_than_a_step() -> None:
    large = replace(BASE, block=10**9)
    found = [accelerator_memory(large, EDITOR, Placing("tail_only", "bfloat16", trunk_device=where)) for where in WHERE]
    assert [memory.step for memory in found] == [2 * 10**9, of("tail_only", "bfloat16").step]
    assert of("tail_only").step == of("tail_only", trunk_device="cpu").step > 4 * BASE.block


def test_logits_take_no_more_than_a_portion_but_where_the_base_is_shared() -> None:
    assert sizes.PORTION == PORTION_BYTES
    wide = replace(BASE, vocabulary=2**20)  # 8 positions in a portion

    def step(base: str, targets: int) -> int:
        size = StepSize(rows=8, inner_rows=2, local_rows=4, targets=targets)
        zero = {"zero": 3} if base == "sharded" else {}
        return accelerator_memory(wide, EditorSize(0, 0, 0, 0), Placing(base, "float32", **zero), size).step  # type: ignore[arg-type]

    mlp = 8 * 1 * 4 * BASE.inner * 4  # one more target token in each row
    assert step("replicated", 2) - step("replicated", 1) == mlp + 4 * 2**20 * 7 * 4
    assert step("replicated", 3) - step("replicated", 2) == mlp
    assert step("sharded", 3) - step("sharded", 2) == mlp + 4 * 2**20 * 7 * 4


def test_what_makes_no_sense_is_refused(tiny_base: Base) -> None:
    with pytest.raises(InputError, match="cut by ZeRO-3; found stage 0"):
        of("sharded", ranks=4)
    with pytest.raises(InputError, match="at least 1 rank"):
        of("replicated", ranks=0)
    with pytest.raises(InputError, match="A tail of 5 blocks.*1 to 4"):
        count_base(tiny_base.model, 5)


def peak(run: Callable[[], object], trace: Path) -> int:
    """The most bytes that tensors made in there took at once."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    profiler.export_chrome_trace(str(trace))
    events = [event for event in json.loads(trace.read_text())["traceEvents"] if event.get("name") == "[memory]"]
    return max(accumulate(event["args"]["Bytes"] for event in sorted(events, key=lambda event: event["ts"])))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_estimate_is_near_what_a_step_takes(
    family: str, dtype: DType, make_tiny_base: Callable[..., Base], tmp_path: Path
) -> None:
    wide = {"n_embd": 64, "n_inner": 176} if family == "gpt2" else {"hidden_size": 64, "intermediate_size": 176}
    base = make_tiny_base(family, **wide, vocab_size=5000)
    base.model.to(getattr(torch, dtype))
    sites = find_sites(base, SiteSpec(last_blocks=3))
    editor = HyperEditor(sites, EditorConfig(rank=64))
    stage = Stage.of(base, min(site.block for site in sites))
    own = torch.Generator().manual_seed(0)

    def rows(of: int) -> Rows:
        ids = torch.randint(0, 256, (of, 32), generator=own).tolist()
        return Rows(tuple(map(tuple, ids)), (4,) * of, tuple(sorted(n % 4 for n in range(of))))

    batch = Batch(rows(4), rows(4), Rows(), rows(8), ("a",) * 4, ("r",) * 4)
    warm_up(editor, stage, [batch])
    for parameter in editor.parameters():
        parameter.grad = torch.zeros_like(parameter)  # counted as the editor's

    def run() -> None:
        (meta_loss(editor, stage, batch, LossWeights()).loss / 4).backward()

    run()  # computes and stores the trunk's states
    shapes = [(site.d_in, site.d_out) for site in sites]
    size = count_editor(editor, shapes, 64, 2, in_last=sum(base.at_targets(site) for site in sites))
    step = StepSize(rows=16, inner_rows=4, local_rows=8, tokens=32, targets=4)
    estimated = accelerator_memory(count_base(base.model, 3), size, Placing("replicated", dtype), step).step
    assert estimated == pytest.approx(peak(run, tmp_path / "trace.json"), rel=0.15)
