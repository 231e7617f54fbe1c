from collections.abc import Callable

import torch
from torch import nn
from transformers import PreTrainedTokenizerFast
from transformers.activations import NewGELUActivation

from instructedit.base import Base
from tests.conftest import tiny_gpt2


def test_what_a_base_says_of_itself(tiny_base: Base) -> None:
    assert (tiny_base.n_blocks, tiny_base.d_model, tiny_base.max_tokens) == (4, 32, 512)
    assert (tiny_base.device, tiny_base.dtype) == (torch.device("cpu"), torch.float32)
    assert tiny_base.name.startswith("tiny-")
    assert tiny_base.split(2) is tiny_base.split(2)
    assert tiny_base.split(2) is not tiny_base.split(1)


def test_a_base_is_frozen(tiny_base: Base) -> None:
    assert not any(parameter.requires_grad for parameter in tiny_base.model.parameters())
    assert not any(module.training for module in tiny_base.model.modules())


def test_train_on_a_module_that_holds_the_base_does_not_reach_it(make_tiny_base: Callable[..., Base]) -> None:
    base = make_tiny_base("gpt2", resid_pdrop=0.5, embd_pdrop=0.5, attn_pdrop=0.5)
    ids = torch.arange(20).unsqueeze(0)
    before = base.model(ids).logits
    holder = nn.ModuleDict({"base": base.model, "first": base.adaptor.blocks_of(base.model)[0], "own": nn.Dropout()})
    holder.train()
    assert holder["own"].training
    assert not any(module.training for module in base.model.modules())
    assert torch.equal(base.model(ids).logits, before)
    split = base.split(1)
    assert torch.equal(split.logits(split.tail(split.trunk(ids))), before)


def test_gpt2s_activation_is_one_operation_and_the_same_function(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    torch.manual_seed(0)
    plain = tiny_gpt2()
    ids = torch.randint(0, 256, (2, 9))
    wanted = plain(ids).logits
    assert any(isinstance(module, NewGELUActivation) for module in plain.modules())
    base = Base.from_model(plain, tiny_tokenizer)
    assert not any(isinstance(module, NewGELUActivation) for module in base.model.modules())
    torch.testing.assert_close(base.model(ids).logits, wanted, rtol=1e-5, atol=1e-6)
    assert not any(module.training for module in base.model.train().modules())
