"""The sizes against models and editors that are there, and the estimate against what autograd really keeps."""

from collections.abc import Callable

import pytest
import torch

from instructedit.base import Base, SiteSpec, find_sites, sizes
from instructedit.base.memory import count_base, count_editor
from instructedit.base.paging import without_weights
from instructedit.base.sizes import BaseSize, DType, EditorSize, Memory, Placing, StepSize, accelerator_memory
from instructedit.errors import InputError
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from instructedit.lowrank import LowRankUpdate, applied

BASE = BaseSize(
    embeddings=100, trunk=5000, tail=3000, head=200, block=1000, tail_blocks=3, width=8, inner=16, vocabulary=20
)
EDITOR = EditorSize(parameters=1600, largest=900, width=48, per_token=150)


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
    size = count_editor(editor, [(site.d_in, site.d_out) for site in sites], 16, 2)
    assert size.parameters == numbers(HyperEditor(sites, EditorConfig(rank=16)))
    assert size.largest == numbers(editor.networks["32x48"]), "gate and up share a network of four sites"
    assert (size.width, size.per_token) == (6 * 80, 2 * (3 * 6 * 80 + 6 * 16))


def test_each_placement_holds_what_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of("sharded", zero=3, ranks=4).base == 4 * 8300, "a small base may all be gathered at once"
    monkeypatch.setattr(sizes, "GATHERED", 100)
    assert of("replicated").base == 4 * 8300
    assert of("replicated", "bfloat16").base == 2 * 8300
    assert of("tail_only").base == 4 * (3000 + 200 + 1000)
    assert of("tail_only", trunk_device="cpu").base == 4 * (3000 + 200)
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


def test_a_step_grows_with_what_it_looks_at() -> None:
    placing = Placing("tail_only", "bfloat16")
    step = accelerator_memory(BASE, EDITOR, placing, StepSize(rows=4, inner_rows=2, tokens=10, targets=3))
    tail, logits, editor = 4 * 10 * 3 * (80 + 96) * 2, 3 * 4 * 3 * 20 * 4, 2 * 10 * 150 * 4
    assert step.step == tail + logits + editor
    assert step.total == step.base + step.editor + step.step


def test_what_makes_no_sense_is_refused(tiny_base: Base) -> None:
    with pytest.raises(InputError, match="cut by ZeRO-3; found stage 0"):
        of("sharded", ranks=4)
    with pytest.raises(InputError, match="at least 1 rank"):
        of("replicated", ranks=0)
    with pytest.raises(InputError, match="A tail of 5 blocks.*1 to 4"):
        count_base(tiny_base.model, 5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_the_estimate_of_the_tail_is_near_what_autograd_keeps(
    family: str, dtype: DType, make_tiny_base: Callable[..., Base]
) -> None:
    wide = {"n_embd": 64, "n_inner": 176} if family == "gpt2" else {"hidden_size": 64, "intermediate_size": 176}
    base = make_tiny_base(family, **wide)
    base.model.to(getattr(torch, dtype))
    sites = find_sites(base, SiteSpec(last_blocks=3))
    rows, tokens = 8, 32
    own = torch.Generator().manual_seed(0)
    updates = {
        site.name: LowRankUpdate(
            *(torch.randn(rows, 2, width, generator=own, requires_grad=True) for width in (site.d_in, site.d_out))
        )
        for site in sites
    }
    not_counted = {p.untyped_storage().data_ptr() for p in base.model.parameters()}
    not_counted |= {t.untyped_storage().data_ptr() for update in updates.values() for t in (update.u, update.v)}
    kept: dict[int, torch.Tensor] = {}  # holds the tensors: a freed one's address would be used again

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    hidden = base.split(1).trunk(torch.randint(0, 256, (rows, tokens), generator=own))
    kept_by_autograd = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with kept_by_autograd, applied(base.model, updates, torch.arange(rows)):
        base.split(1).tail(hidden)
    measured = sum(t.untyped_storage().nbytes() for place, t in kept.items() if place not in not_counted)
    placing, nothing = Placing("replicated", dtype), EditorSize(0, 0, 0, 0)
    estimated = accelerator_memory(
        count_base(base.model, 3), nothing, placing, StepSize(rows, 0, tokens, targets=0)
    ).step
    assert measured <= estimated <= 2 * measured
