"""Sizes computed from config.json alone equal those of the models and editors that it describes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GPT2Config, LlamaConfig, MistralConfig, PretrainedConfig, Qwen2Config, Qwen3Config

from instructedit.base import Base, SiteSpec, find_sites
from instructedit.base.config_sizes import ConfigSizes
from instructedit.base.memory import count_base, count_editor
from instructedit.base.paging import without_weights
from instructedit.errors import InputError
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from instructedit.hypernet.ke import KEConfig, KEEditor
from instructedit.hypernet.sizes import ke_size, mend_size
from tests.conftest import byte_tokenizer

LLAMA: dict[str, Any] = {
    "vocab_size": 257,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
}
GPT2: dict[str, Any] = {"vocab_size": 257, "n_positions": 64, "n_embd": 32, "n_layer": 4, "n_head": 4}
CONFIGS: dict[str, PretrainedConfig] = {
    "gpt2": GPT2Config(**GPT2),
    "gpt2, inner, untied": GPT2Config(**GPT2, n_inner=56, tie_word_embeddings=False),
    "llama": LlamaConfig(**LLAMA),
    "llama, grouped, tied": LlamaConfig(**LLAMA, num_key_value_heads=2, tie_word_embeddings=True),
    "llama, biases, wide heads": LlamaConfig(**LLAMA, attention_bias=True, mlp_bias=True, head_dim=16),
    "mistral": MistralConfig(**LLAMA, num_key_value_heads=2),
    "qwen2": Qwen2Config(**LLAMA, num_key_value_heads=2, tie_word_embeddings=True),
    "qwen3": Qwen3Config(**LLAMA, num_key_value_heads=2, head_dim=16),
    "qwen3, biases, default heads": Qwen3Config(**LLAMA, num_key_value_heads=4, attention_bias=True),
}


def saved(config: PretrainedConfig, folder: Path) -> dict[str, Any]:
    config.save_pretrained(folder)
    content: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return content


def built(config: PretrainedConfig) -> Base:
    return Base.from_model(without_weights(config, torch.float32), byte_tokenizer())


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_counts_as_its_model(name: str, tmp_path: Path) -> None:
    base = built(CONFIGS[name])
    sizes = ConfigSizes.of(saved(CONFIGS[name], tmp_path))
    for last_blocks in (1, 3):
        assert sizes.base(sizes.blocks - last_blocks) == count_base(base.model, last_blocks)
    everything = [matrix.path for matrix in sizes.matrices]
    for matrices in (None, everything):
        found = find_sites(base, SiteSpec(2, None if matrices is None else tuple(matrices)))
        chosen = sizes.sites(2, matrices)
        assert [(n, m.d_in, m.d_out) for n, m in chosen] == [(site.block, site.d_in, site.d_out) for site in found]
        assert sizes.sites(names=[site.name for site in found]) == chosen


@pytest.mark.parametrize("kind", [GPT2Config, LlamaConfig, MistralConfig, Qwen2Config, Qwen3Config])
def test_a_config_that_leaves_sizes_out_means_the_familys_own(kind: type[PretrainedConfig]) -> None:
    model = without_weights(kind(), torch.float32)
    sizes = ConfigSizes.of({"model_type": kind.model_type})
    assert sizes.base(sizes.blocks - 3) == count_base(model, 3)


@pytest.mark.parametrize("rank", [8, 1920])
def test_editors_count_as_those_that_are_built(rank: int) -> None:
    config = CONFIGS["llama, grouped, tied"]
    base = built(config)
    for spec in (SiteSpec(2), SiteSpec(1, ("down_proj",)), SiteSpec(1, ("q_proj", "o_proj", "up_proj"))):
        sites = find_sites(base, spec)
        shapes = [(site.d_in, site.d_out) for site in sites]
        mend = HyperEditor(sites, EditorConfig(rank=rank, n_blocks=3))
        assert mend_size(shapes, rank, 3) == count_editor(mend, shapes, rank, 3)
        ke = KEEditor(sites, KEConfig(hidden=rank // 4, condition=12, head=6), 32)
        size = ke_size(shapes, 32, rank // 4, 12, 6)
        assert size.parameters == sum(value.numel() for value in ke.parameters())
        children = [ke.lstm, ke.condition, *ke.heads]
        assert size.largest == max(sum(value.numel() for value in child.parameters()) for child in children)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ({"last_blocks": 5}, "last_blocks is 5, but the base has 4 blocks"),
        ({"matrices": ["c_fc"]}, "Unknown matrix 'c_fc'.*mlp.up_proj"),
        ({"names": ["model.layers.4.mlp.up_proj"]}, "Unknown site 'model.layers.4.mlp.up_proj'"),
        ({"matrices": []}, "No site was chosen"),
    ],
)
def test_sites_that_do_not_exist_are_refused(choice: dict[str, Any], message: str) -> None:
    sizes = ConfigSizes.of({"model_type": "llama", **LLAMA})
    with pytest.raises(InputError, match=message):
        sizes.sites(**choice)


@pytest.mark.parametrize(
    ("content", "message"),
    [({"model_type": "gemma9"}, "Unknown model_type 'gemma9'"), ({"model_type": "llama", "hidden_size": "x"}, "x")],
)
def test_a_config_that_cannot_be_counted_is_told(content: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ConfigSizes.of(content)
