import pytest
import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    OlmoConfig,
    OlmoForCausalLM,
    PreTrainedModel,
)

from instructedit.base import Base
from instructedit.base.adaptors import FAMILIES, adaptor_for
from instructedit.base.adaptors.gpt2 import GPT2
from instructedit.base.adaptors.llama_like import LLAMA_LIKE
from instructedit.errors import InputError

SMALL = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": None,
    "eos_token_id": 1,
    "bos_token_id": 1,
}


def test_families_are_told_apart_by_structure(tiny_gpt2_base: Base, tiny_llama_base: Base) -> None:
    assert tiny_gpt2_base.adaptor is GPT2
    assert tiny_llama_base.adaptor is LLAMA_LIKE
    assert [adaptor.fits(tiny_gpt2_base.model) for adaptor in FAMILIES] == [True, False]
    assert [adaptor.fits(tiny_llama_base.model) for adaptor in FAMILIES] == [False, True]


def test_the_name_of_a_base_does_not_count(tiny_llama_base: Base) -> None:
    renamed = Base.from_model(tiny_llama_base.model, tiny_llama_base.tokenizer, name="models/gpt2-xl")
    assert renamed.adaptor is LLAMA_LIKE


def test_a_type_that_is_not_listed_is_known_by_its_modules() -> None:
    torch.manual_seed(0)
    assert adaptor_for(OlmoForCausalLM(OlmoConfig(**SMALL))) is LLAMA_LIKE


@pytest.mark.parametrize(
    ("config", "model", "model_type"),
    [
        (GPTNeoXConfig(**SMALL), GPTNeoXForCausalLM, "gpt_neox"),
        # The blocks are LLaMA's but for the MLP, which is a router over experts.
        (
            MixtralConfig(**SMALL, num_key_value_heads=2, num_local_experts=2, num_experts_per_tok=1),
            MixtralForCausalLM,
            "mixtral",
        ),
    ],
)
def test_unsupported_shapes_are_refused_with_what_is_supported(
    config: object, model: type[PreTrainedModel], model_type: str
) -> None:
    with pytest.raises(InputError, match=f"'{model_type}'.*Supported: gpt2 .*llama-like .*Qwen3"):
        adaptor_for(model(config))
