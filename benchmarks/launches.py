"""Launches of kernels, counted on a base as deep as another and hardly any wider.

A launch is an operation that is no view, as torch dispatches it on a CPU; a GPU's kernels may be a few more or less.
"""

from typing import Any

import torch
from random_base import small_tokenizer
from setting import make_editor, stage_of, train_step
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PretrainedConfig, PreTrainedModel

from instructedit.base import Base
from instructedit.data.collate import Batch
from instructedit.optimisers import make_adam

WORDS = 1 << 18
"""Of a narrow base: a word for every token that budget_model.py makes up."""


class Narrow:
    """A base as deep as another and hardly any wider.

    Args:
        config: the other one's.
    """

    def __init__(self, config: PretrainedConfig) -> None:
        words = {"vocab_size": WORDS}
        torch.manual_seed(0)
        model: PreTrainedModel
        if isinstance(config, GPT2Config):
            model = GPT2LMHeadModel(GPT2Config(n_layer=config.n_layer, n_embd=8, n_head=1, **words))
        else:
            shape = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 1, "num_key_value_heads": 1}
            model = LlamaForCausalLM(LlamaConfig(num_hidden_layers=config.num_hidden_layers, **shape, **words))
        self.base = Base.from_model(model.eval(), small_tokenizer())
        ids = torch.zeros(2, 8, dtype=torch.long)
        with torch.no_grad(), Launches() as counted:
            model(ids)
        self.block = counted.total / self.base.n_blocks
        """Launches of a forward pass of one block."""

    def step(self, batch: Batch) -> int:
        """Launches of a whole optimiser step."""
        editor, _ = make_editor(self.base, 2, [batch])
        stage = stage_of(self.base, keep=False)
        optimizer = make_adam(editor.parameters())
        train_step(editor, stage, batch, optimizer)  # a store's first pass is looked at twice
        with Launches() as counted:
            train_step(editor, stage, batch, optimizer)
        return counted.total


class Launches(TorchDispatchMode):
    """Counts operations that are no views."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.total += not func.is_view
        return func(*args, **(kwargs or {}))
