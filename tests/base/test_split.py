from collections.abc import Callable

import pytest
import torch
from transformers import (
    GraniteConfig,
    GraniteForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OlmoConfig,
    OlmoForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from instructedit.base import Base
from instructedit.errors import InputError

SMALL = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.2,
    "max_position_embeddings": 512,
}

SHAPES: dict[str, Callable[[], PreTrainedModel]] = {
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4)),
    "qwen2": lambda: Qwen2ForCausalLM(
        Qwen2Config(**SMALL, use_sliding_window=True, sliding_window=4, max_window_layers=2)
    ),
    "qwen3": lambda: Qwen3ForCausalLM(
        Qwen3Config(
            **SMALL,
            head_dim=16,
            use_sliding_window=True,
            sliding_window=4,
            layer_types=["sliding_attention", "full_attention", "full_attention", "sliding_attention"],
        )
    ),
    # Not among the listed types: taken by its structure and checked when split.
    "olmo": lambda: OlmoForCausalLM(OlmoConfig(**SMALL)),
}


@pytest.fixture(params=["gpt2", "llama", *SHAPES])
def base(request: pytest.FixtureRequest, tiny_tokenizer: PreTrainedTokenizerFast) -> Base:
    if request.param in SHAPES:
        torch.manual_seed(0)
        return Base.from_model(SHAPES[request.param](), tiny_tokenizer)
    built: Base = request.getfixturevalue(f"tiny_{request.param}_base")
    return built


def token_ids(rows: int = 3, tokens: int = 19) -> torch.Tensor:
    return torch.randint(0, 256, (rows, tokens), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("first_block", [0, 1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_trunk_and_tail_are_the_whole_model_to_the_bit(base: Base, first_block: int, dtype: torch.dtype) -> None:
    base.model.to(dtype)
    split = base.split(first_block)
    hidden = split.trunk(token_ids())
    whole = base.model(token_ids()).logits
    assert hidden.dtype == dtype and not hidden.requires_grad
    assert torch.equal(split.logits(split.tail(hidden)), whole)
    assert whole.float().std() > 0.5, "logits too flat for this test to see a difference"


@pytest.mark.parametrize("name", ["mistral", "qwen2", "qwen3"])
def test_the_sliding_windows_above_are_really_in_use(name: str, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    base = Base.from_model(SHAPES[name](), tiny_tokenizer)
    windowed = base.model(token_ids()).logits
    base.model.config.sliding_window = 512
    for block in base.adaptor.blocks_of(base.model):
        block.self_attn.sliding_window = 512
    wide = base.model(token_ids()).logits
    assert torch.equal(windowed[:, :4], wide[:, :4])
    assert not torch.allclose(windowed[:, 10:], wide[:, 10:])


def test_the_trunk_does_only_its_own_blocks(tiny_base: Base) -> None:
    ran: list[int] = []
    for index, block in enumerate(tiny_base.adaptor.blocks_of(tiny_base.model)):
        block.register_forward_hook(lambda *_args, index=index: ran.append(index))
    split = tiny_base.split(1)
    hidden = split.trunk(token_ids())
    assert ran == [0]
    split.tail(hidden)
    assert ran == [0, 1, 2, 3]


def test_a_hook_on_a_submodule_of_the_model_acts_in_the_tail(tiny_base: Base) -> None:
    split = tiny_base.split(2)
    hidden = split.trunk(token_ids())
    before = split.tail(hidden)
    name = f"{tiny_base.adaptor.block_path(3)}.{tiny_base.adaptor.matrices[0]}"
    handle = tiny_base.model.get_submodule(name).register_forward_hook(lambda _module, _inputs, output: output * 2)
    hooked = split.tail(hidden)
    whole = tiny_base.model(token_ids()).logits
    handle.remove()
    assert not torch.equal(hooked, before)
    assert torch.equal(split.logits(hooked), whole)
    assert torch.equal(split.tail(hidden), before)


def test_the_tail_is_differentiable_and_leaves_no_gradient_on_weights(tiny_base: Base) -> None:
    split = tiny_base.split(2)
    hidden = split.trunk(token_ids()).requires_grad_()
    (gradient,) = torch.autograd.grad(split.logits(split.tail(hidden)).logsumexp(-1).sum(), hidden)
    assert gradient.abs().sum() > 0
    assert all(parameter.grad is None for parameter in tiny_base.model.parameters())


def test_right_padding_reaches_no_real_token(base: Base) -> None:
    split = base.split(2)
    padded = torch.cat([token_ids(), torch.full((3, 5), 256)], dim=1)
    states = split.tail(split.trunk(padded))[:, :19]
    torch.testing.assert_close(states, split.tail(split.trunk(token_ids())), rtol=1e-5, atol=1e-5)


def test_logits_of_chosen_states(tiny_base: Base) -> None:
    split = tiny_base.split(2)
    states = split.tail(split.trunk(token_ids()))
    chosen = split.logits(states[:, -1])
    assert chosen.shape == (3, 257)
    torch.testing.assert_close(chosen, tiny_base.model(token_ids()).logits[:, -1])


def test_the_model_itself_is_left_as_it_was(tiny_base: Base) -> None:
    before = [(name, id(module)) for name, module in tiny_base.model.named_modules()]
    weights = {name: tensor.clone() for name, tensor in tiny_base.model.state_dict().items()}
    split = tiny_base.split(2)
    split.tail(split.trunk(token_ids()))
    assert [(name, id(module)) for name, module in tiny_base.model.named_modules()] == before
    assert all(torch.equal(tensor, weights[name]) for name, tensor in tiny_base.model.state_dict().items())


@pytest.mark.parametrize("first_block", [-1, 4])
def test_a_block_that_does_not_exist_is_refused(tiny_base: Base, first_block: int) -> None:
    with pytest.raises(InputError, match=f"before block {first_block}.*blocks 0-3"):
        tiny_base.split(first_block)


def test_a_model_that_scales_on_the_way_is_refused(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    granite = GraniteForCausalLM(GraniteConfig(**SMALL, embedding_multiplier=3.0, logits_scaling=2.0))
    base = Base.from_model(granite, tiny_tokenizer)
    with pytest.raises(InputError, match="'granite'.*do not add up"):
        base.split(2)


def test_a_tail_at_chosen_positions_gives_their_states_and_gradients(base: Base) -> None:
    split = base.split(2)
    hidden = split.trunk(token_ids())
    n, t, _ = hidden.shape
    positions = torch.arange(t - 5, t - 1).expand(n, -1)
    seen = []
    last = base.adaptor.blocks_of(base.model)[-1].get_submodule(base.adaptor.matrices[-1])
    handle = last.register_forward_hook(lambda _, args, output: seen.append(args[0].shape[1]))
    found, wanted = hidden.clone().requires_grad_(), hidden.clone().requires_grad_()
    rows = torch.arange(n).unsqueeze(1)
    some, all_of_them = split.tail(found, positions)[rows, positions], split.tail(wanted)[rows, positions]
    handle.remove()
    assert seen == [4, t], "the last MLP computed elsewhere too"
    torch.testing.assert_close(some, all_of_them, rtol=1e-5, atol=1e-5)
    weights = torch.linspace(-1, 1, some.numel()).reshape(some.shape)
    (some * weights).sum().backward()
    (all_of_them * weights).sum().backward()
    torch.testing.assert_close(found.grad, wanted.grad, rtol=1e-4, atol=1e-5)
    assert torch.equal(split.tail(hidden), split.tail(wanted.detach())), "the choice outlived its call"


def test_the_choice_of_positions_ends_with_an_exception_too(tiny_base: Base) -> None:
    split = tiny_base.split(2)
    hidden = split.trunk(token_ids())
    before = split.tail(hidden)
    with pytest.raises((RuntimeError, IndexError)):
        split.tail(hidden, torch.full((hidden.shape[0], 2), 10_000))
    assert torch.equal(split.tail(hidden), before)
