"""Random tiny bases of both families and a byte-level tokenizer, all made in memory."""

from collections.abc import Callable

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from instructedit.base import Base

VOCABULARY = 257
"""256 bytes and one end-of-text token."""


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token per UTF-8 byte, with offsets."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    raw = Tokenizer(models.BPE({token: index for index, token in enumerate(alphabet)}, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<end>")


def tiny_gpt2(seed: int = 0, **changes: object) -> GPT2LMHeadModel:
    """A random GPT-2 of 4 blocks and width 32; keywords change its config."""
    settings: dict[str, object] = {
        "vocab_size": VOCABULARY,
        "n_positions": 512,
        "n_embd": 32,
        "n_layer": 4,
        "n_head": 4,
        "initializer_range": 0.2,
        "bos_token_id": 256,
        "eos_token_id": 256,
    }
    torch.manual_seed(seed)
    return GPT2LMHeadModel(GPT2Config(**{**settings, **changes})).eval()


def tiny_llama(seed: int = 0, **changes: object) -> LlamaForCausalLM:
    """A random Llama of 4 blocks and width 32; keywords change its config."""
    settings: dict[str, object] = {
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 512,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.2,
        "bos_token_id": 256,
        "eos_token_id": 256,
    }
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**settings, **changes})).eval()


@pytest.fixture(scope="session")
def tiny_tokenizer() -> PreTrainedTokenizerFast:
    return byte_tokenizer()


@pytest.fixture
def tiny_gpt2_base(tiny_tokenizer: PreTrainedTokenizerFast) -> Base:
    return Base.from_model(tiny_gpt2(), tiny_tokenizer, "tiny-gpt2")


@pytest.fixture
def tiny_llama_base(tiny_tokenizer: PreTrainedTokenizerFast) -> Base:
    return Base.from_model(tiny_llama(), tiny_tokenizer, "tiny-llama")


@pytest.fixture(params=["gpt2", "llama"])
def tiny_base(request: pytest.FixtureRequest) -> Base:
    """Both families, one after the other."""
    base: Base = request.getfixturevalue(f"tiny_{request.param}_base")
    return base


@pytest.fixture(scope="session")
def make_tiny_base(tiny_tokenizer: PreTrainedTokenizerFast) -> Callable[..., Base]:
    """``make_tiny_base("gpt2" or "llama", seed=0, **config changes)`` builds one more base."""
    families = {"gpt2": tiny_gpt2, "llama": tiny_llama}

    def make(family: str, seed: int = 0, **changes: object) -> Base:
        return Base.from_model(families[family](seed, **changes), tiny_tokenizer, f"tiny-{family}")

    return make
