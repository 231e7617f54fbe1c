import json
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import Qwen3Config, Qwen3ForCausalLM

from instructedit.base import Base, SiteSpec, find_sites, load_base, paging, split
from instructedit.base.generation import continuations
from instructedit.base.paging import moved
from instructedit.errors import InputError
from instructedit.metatrain import LossWeights, meta_loss
from instructedit.methods.ft_l import FTL
from instructedit.methods.grace import GRACE
from instructedit.records import EditRequest
from tests.core import editor_on, random_batch

IDS = torch.randint(0, 256, (3, 19), generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTRUCTEDIT_CACHE", str(tmp_path / "cache"))


def saved(base: Base, folder: Path, **options: str) -> Path:
    base.model.save_pretrained(folder, **options)
    base.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(tiny_base: Base, tmp_path: Path) -> Path:
    return saved(tiny_base, tmp_path / "base", max_shard_size="20KB")


def paged(folder: Path, dtype: torch.dtype = torch.float32, first_block: int = 2) -> Base:
    base = load_base(str(folder), dtype, placement="tail_only")
    base.keep_tail(first_block)
    return base


def on_meta(base: Base) -> list[int]:
    """The blocks that have no weights."""
    blocks = enumerate(base.adaptor.blocks_of(base.model))
    return [index for index, block in blocks if all(weight.is_meta for weight in block.parameters())]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_that_is_computed_is_the_whole_base_to_the_bit(folder: Path, dtype: torch.dtype) -> None:
    whole, base = load_base(str(folder), dtype), paged(folder, dtype)
    assert on_meta(base) == [0, 1]
    assert (base.dtype, base.device, base.fingerprint) == (whole.dtype, whole.device, whole.fingerprint)
    assert torch.equal(base.model(IDS).logits, whole.model(IDS).logits)
    assert whole.model(IDS).logits.float().std() > 0.5, "logits too flat for this test to see a difference"
    hidden = base.split(2).trunk(IDS)
    assert hidden.dtype == dtype
    assert torch.equal(hidden, whole.split(2).trunk(IDS))
    assert torch.equal(base.split(2).logits(base.split(2).tail(hidden)), whole.model(IDS).logits)
    inputs = [(5, 6, 7), (1, 2, 3, 4, 5)]
    assert continuations(base, inputs, 6) == continuations(whole, inputs, 6)
    assert on_meta(base) == [0, 1]


def test_a_base_of_which_nothing_is_kept_computes_the_same(folder: Path, tiny_base: Base) -> None:
    base = load_base(str(folder), placement="tail_only")
    assert on_meta(base) == [0, 1, 2, 3]
    assert torch.equal(base.model(IDS).logits, tiny_base.model(IDS).logits)
    assert on_meta(base) == [0, 1, 2, 3]


def test_another_tail_can_be_kept(folder: Path, tiny_base: Base) -> None:
    base = paged(folder, first_block=3)
    assert on_meta(base) == [0, 1, 2]
    base.keep_tail(1)
    assert on_meta(base) == [0]
    base.keep_tail(2)
    assert on_meta(base) == [0, 1]
    assert torch.equal(base.model(IDS).logits, tiny_base.model(IDS).logits)
    with pytest.raises(InputError, match="from 4 on: the base has blocks 0-3"):
        base.keep_tail(4)


def test_a_base_in_memory_has_no_tail_to_keep(tiny_base: Base) -> None:
    with pytest.raises(InputError, match="all in memory.*tail_only"):
        tiny_base.keep_tail(2)


def count_reads(base: Base, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    pager, reads = base._pager, []
    assert pager is not None
    page_in = pager._page_in

    def counted(index: int, device: torch.device) -> None:
        if pager._users[index] == 0:
            reads.append(index)
        page_in(index, device)

    monkeypatch.setattr(pager, "_page_in", counted)
    return reads


@pytest.mark.parametrize("first_block", [0, 1, 3])
def test_several_passes_read_each_block_once_and_give_the_same_bits(
    folder: Path, tiny_base: Base, first_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = paged(folder, first_block=3)
    passes = [IDS, IDS[:1, :4], IDS[:2, 3:]]
    alone = [tiny_base.split(first_block).trunk(ids) for ids in passes]
    reads = count_reads(base, monkeypatch)
    together = list(base.split(first_block).trunk_many(passes))
    assert reads == list(range(max(1, first_block)))
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))
    assert on_meta(base) == [0, 1, 2]


def test_passes_are_cut_into_groups_that_fit(folder: Path, tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    base = paged(folder)
    one = IDS.numel() * 32 * 4
    monkeypatch.setattr(split, "GROUP_BYTES", 2 * one)
    reads = count_reads(base, monkeypatch)
    passes = [IDS, IDS + 1, IDS.repeat(3, 1), IDS]
    together = list(base.split(2).trunk_many(passes))
    assert reads == [0, 1] * 3  # two, then one that is too large for any group, then the last
    alone = [tiny_base.split(2).trunk(ids) for ids in passes]
    assert all(torch.equal(one, other) for one, other in zip(alone, together, strict=True))


def test_passes_are_computed_when_they_are_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = paged(folder)
    monkeypatch.setattr(split, "GROUP_BYTES", 1)
    reads = count_reads(base, monkeypatch)
    states = base.split(2).trunk_many([IDS, IDS])
    assert reads == []
    next(states)
    assert reads == [0, 1]


def test_an_exception_leaves_no_weights_behind(folder: Path, tiny_base: Base) -> None:
    base = paged(folder)
    matrix = base.model.get_submodule(f"{base.adaptor.block_path(1)}.{base.adaptor.matrices[0]}")

    def fail(*_: object) -> None:
        raise RuntimeError("in the middle")

    handle = matrix.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        base.split(2).trunk(IDS)
    with pytest.raises(RuntimeError, match="in the middle"):
        list(base.split(2).trunk_many([IDS]))
    handle.remove()
    assert on_meta(base) == [0, 1]
    assert torch.equal(base.model(IDS).logits, tiny_base.model(IDS).logits)


def test_files_that_are_gone_say_so_and_leave_the_base_usable(folder: Path, tiny_base: Base) -> None:
    base = paged(folder)
    for file in folder.glob("*.safetensors"):
        file.rename(file.with_suffix(".away"))
    with pytest.raises(InputError, match="Cannot load base.*from .*safetensors"):
        base.model(IDS)
    for file in folder.glob("*.away"):
        file.rename(file.with_suffix(".safetensors"))
    assert torch.equal(base.model(IDS).logits, tiny_base.model(IDS).logits)
    assert on_meta(base) == [0, 1]


def test_weights_of_blocks_that_ran_are_let_go_of(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = paged(folder)
    brought: list[weakref.ref[torch.nn.Parameter]] = []
    put = paging._put

    def noted(module: torch.nn.Module, name: str, parameter: torch.nn.Parameter) -> None:
        brought.extend([] if parameter.is_meta else [weakref.ref(parameter)])
        put(module, name, parameter)

    monkeypatch.setattr(paging, "_put", noted)
    alive: list[tuple[int, int]] = []
    for block in list(base.adaptor.blocks_of(base.model))[:2]:
        n = len(list(block.parameters()))
        block.register_forward_hook(lambda *_, n=n: alive.append((sum(known() is not None for known in brought), n)))
    # The hook above runs after the block's own, which let go of it; the other way would find n.
    base.split(2).trunk(IDS)
    assert [found for found, _ in alive] == [0, 0]
    list(base.split(2).trunk_many([IDS]))
    assert [found for found, _ in alive[2:]] == [n for _, n in alive[2:]], "one block at a time, and no more"
    assert len(brought) == 2 * sum(n for _, n in alive[:2])


def test_a_meta_training_step_is_the_same(folder: Path) -> None:
    losses: list[Tensor] = []
    for base in (load_base(str(folder)), paged(folder, first_block=1)):
        editor, stage = editor_on(base)
        result = meta_loss(editor, stage, random_batch(3), LossWeights())
        result.loss.backward()
        norms = torch.stack([p.grad.norm() for p in editor.parameters() if p.grad is not None])
        losses.append(torch.cat([result.loss.detach().reshape(1), norms]))
    assert torch.equal(*losses)


@pytest.mark.parametrize("method", [FTL(block=0, steps=3), GRACE(block=1, steps=3)])
def test_methods_that_edit_blocks_of_the_trunk_work(folder: Path, method: FTL | GRACE) -> None:
    requests = [EditRequest("The sky is", "green", task="demo"), EditRequest("Two is", "odd", task="demo")]
    found = []
    for base in (load_base(str(folder)), paged(folder)):
        edit = type(method)(block=method.block, steps=3).edit(base, requests)
        with edit.applied():
            found.append(base.model(IDS).logits.detach())
    assert torch.equal(*found)
    assert on_meta(base) == [0, 1]


def test_tables_that_follow_from_the_config_are_made(tmp_path: Path, make_tiny_base: Callable[..., Base]) -> None:
    scaled = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
    scaled |= {"original_max_position_embeddings": 16, "rope_theta": 500.0}
    tiny = make_tiny_base("llama", rope_parameters=scaled)
    base = paged(saved(tiny, tmp_path / "scaled"))
    assert not any(buffer.is_meta for buffer in base.model.buffers())
    assert torch.equal(base.model(IDS).logits, tiny.model(IDS).logits)


def test_a_family_by_structure_with_sliding_windows(tmp_path: Path, tiny_llama_base: Base) -> None:
    torch.manual_seed(0)
    shape = {"vocab_size": 257, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "head_dim": 16}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.2}
    kinds = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
    config = Qwen3Config(**shape, **heads, use_sliding_window=True, sliding_window=4, layer_types=kinds)
    qwen = Base.from_model(Qwen3ForCausalLM(config), tiny_llama_base.tokenizer)
    base = paged(saved(qwen, tmp_path / "qwen"))
    assert torch.equal(base.model(IDS).logits, qwen.model(IDS).logits)
    assert torch.equal(next(base.split(2).trunk_many([IDS])), qwen.split(2).trunk(IDS))


def test_an_embedding_of_its_own_stays_in_its_file(tmp_path: Path, tiny_llama_base: Base) -> None:
    tiny_llama_base.model.config.tie_word_embeddings = False
    base = paged(saved(tiny_llama_base, tmp_path / "untied"), torch.bfloat16)
    assert base.model.get_input_embeddings().weight.dtype == torch.float32, "as it is in the file"
    assert base.model.get_input_embeddings()(IDS).dtype == base.dtype == torch.bfloat16


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("which", ["embedding only", "head only", "both", "both, unlike"])
def test_tied_heads_in_all_ways_they_are_stored(
    family: str, which: str, tmp_path: Path, make_tiny_base: Callable[..., Base]
) -> None:
    tiny = make_tiny_base(family, tie_word_embeddings=True)
    file = saved(tiny, tmp_path / "tied") / "model.safetensors"
    weights = load_file(file)
    (name,) = [key for key in weights if key.endswith(("wte.weight", "embed_tokens.weight"))]
    if which != "embedding only":
        weights["lm_head.weight"] = weights[name] + (1 if which == "both, unlike" else 0)
    if which == "head only":
        del weights[name]
    save_file(weights, file, metadata={"format": "pt"})
    whole, base = load_base(str(tmp_path / "tied")), paged(tmp_path / "tied")
    tied = base.model.get_input_embeddings().weight is base.model.get_output_embeddings().weight
    assert tied == (which != "both, unlike")
    assert torch.equal(base.model(IDS).logits, whole.model(IDS).logits)


def test_a_checkpoint_of_the_bare_decoder_with_old_buffers(tmp_path: Path, tiny_gpt2_base: Base) -> None:
    tiny_gpt2_base.model.transformer.save_pretrained(tmp_path / "bare")
    tiny_gpt2_base.model.config.save_pretrained(tmp_path / "bare")
    tiny_gpt2_base.tokenizer.save_pretrained(tmp_path / "bare")
    file = tmp_path / "bare" / "model.safetensors"
    save_file({**load_file(file), "h.0.attn.bias": torch.ones(1, 1, 8, 8)}, file, metadata={"format": "pt"})
    base = paged(tmp_path / "bare")
    assert torch.equal(base.model(IDS).logits, tiny_gpt2_base.model(IDS).logits)


def test_the_settings_of_generation_come_along(folder: Path) -> None:
    file = folder / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token_id": [7, 9]}))
    assert paged(folder).model.generation_config.eos_token_id == [7, 9]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weight: None, "lacks 1 weights.*Use a complete checkpoint"),
        (lambda weight: weight[:-1].contiguous(), "F32.*matching checkpoint"),
        (lambda weight: weight.to(torch.int8), "I8.*not quantised"),
    ],
)
def test_weights_that_do_not_fit_are_refused_at_once(
    tmp_path: Path, tiny_base: Base, change: Callable[[Tensor], Tensor | None], message: str
) -> None:
    file = saved(tiny_base, tmp_path / "bad") / "model.safetensors"
    weights = load_file(file)
    name = f"{tiny_base.adaptor.block_path(0)}.{tiny_base.adaptor.matrices[0]}.weight"
    changed = change(weights.pop(name))
    save_file(weights | ({} if changed is None else {name: changed}), file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=message) as caught:
        load_base(str(tmp_path / "bad"), placement="tail_only")
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_files_that_are_broken_are_refused(tmp_path: Path, tiny_base: Base) -> None:
    file = saved(tiny_base, tmp_path / "bad") / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match="Cannot load base.*from .*model.safetensors"):
        load_base(str(tmp_path / "bad"), placement="tail_only")


def test_placements_that_make_no_sense(folder: Path) -> None:
    with pytest.raises(InputError, match="Unknown placement 'tail'.*Did you mean 'tail_only'"):
        load_base(str(folder), placement="tail")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="trunk device was given.*replicated"):
        load_base(str(folder), trunk_device="cpu")


def test_a_block_runs_where_its_weights_are(folder: Path) -> None:
    # The meta device stands for an accelerator: nothing comes back from it, but what arrives there can be seen.
    base = load_base(str(folder), placement="tail_only", trunk_device="meta")
    base.keep_tail(2)
    blocks = base.adaptor.blocks_of(base.model)
    arrived: list[set[str]] = []

    def look(_: object, args: tuple[Tensor, ...], kwargs: dict[str, object]) -> None:
        found: list[Tensor] = []
        _tensors([args, kwargs], found)
        arrived.append({tensor.device.type for tensor in found})

    for block in (blocks[0], blocks[1]):
        block.register_forward_pre_hook(look, with_kwargs=True)
    assert base.split(2).trunk_device.type == "meta" and base.split(2).device.type == "cpu"
    with pytest.raises(NotImplementedError):
        base.split(2).trunk(IDS)
    assert arrived == [{"meta"}, {"meta"}]


def _tensors(value: object, found: list[Tensor]) -> None:
    if isinstance(value, Tensor):
        found.append(value)
    elif isinstance(value, dict | list | tuple):
        for entry in value.values() if isinstance(value, dict) else value:
            _tensors(entry, found)


def test_moving_keeps_what_holds_tensors_and_leaves_the_rest() -> None:
    cache = object()
    value = {"mask": None, "cache": cache, "pair": (torch.ones(1), [torch.ones(1)])}
    there = moved(value, torch.device("meta"))
    assert there["mask"] is None and there["cache"] is cache
    assert there["pair"][0].is_meta and there["pair"][1][0].is_meta and isinstance(there["pair"], tuple)
    same = torch.ones(1)
    assert moved((same,), torch.device("cpu"))[0] is same


@pytest.mark.long
def test_the_real_base_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("INSTRUCTEDIT_CACHE")
    whole, base = (
        load_base("smollm2-135m", torch.bfloat16),
        load_base("smollm2-135m", torch.bfloat16, placement="tail_only"),
    )
    first = min(site.block for site in find_sites(base, SiteSpec()))
    base.keep_tail(first)
    assert on_meta(base) == list(range(first))
    ids = whole.tokenizer(["The capital of France is", "Two and two are"], padding=False).input_ids
    passes = [torch.tensor([row]) for row in ids]
    for one, other in zip(base.split(first).trunk_many(passes), whole.split(first).trunk_many(passes), strict=True):
        assert torch.equal(one, other)
        assert torch.equal(base.split(first).tail(one), whole.split(first).tail(other))
    inputs = [tuple(row) for row in ids]
    assert continuations(base, inputs, 5) == continuations(whole, inputs, 5)
    assert base.fingerprint == whole.fingerprint
