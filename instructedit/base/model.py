"""Base: a frozen language model with its tokenizer, family, splits and fingerprint.

Knows nothing about edits, tasks or where a model's files come from (``loading`` does).
"""

import types
from collections.abc import Callable
from functools import cached_property

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.activations import GELUTanh, NewGELUActivation

from instructedit.base.adaptors import Adaptor, adaptor_for
from instructedit.base.fingerprint import fingerprint_of_model
from instructedit.base.paging import Pager
from instructedit.base.sites import Site
from instructedit.base.split import Split
from instructedit.errors import InputError


class Base:
    """A frozen base model; build one with ``load_base`` or ``Base.from_model``.

    Attributes:
        name: what it was loaded as: a Hub id, a folder, an alias.
        model: the causal language model, in ``eval()``, without gradients.
        tokenizer: its fast tokenizer.
        adaptor: its family.
        n_blocks: number of blocks.
        d_model: width of the hidden states.
        max_tokens: length of the context in tokens.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        name: str,
        fingerprint: Callable[[], str],
        pager: Pager | None = None,
    ) -> None:
        self.name = name
        self.model = _frozen(model)
        self.tokenizer = tokenizer
        self.adaptor: Adaptor = adaptor_for(model)
        self.n_blocks = len(self.adaptor.blocks_of(model))
        self.d_model = int(model.config.hidden_size)
        self.max_tokens = int(model.config.max_position_embeddings)
        self._fingerprint = fingerprint
        self._pager = pager
        self._splits: dict[int, Split] = {}

    @classmethod
    def from_model(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, name: str = "memory") -> "Base":
        """Wrap a model that is in memory; freezes it in place, with GPT-2's activation as one operation.

        Raises:
            InputError: when the model's architecture is not supported.
        """
        return cls(model, tokenizer, name, lambda: fingerprint_of_model(model))

    @property
    def device(self) -> torch.device:
        """Where inputs are taken and logits come out: where the model's parameters are, or its tail and head."""
        return self.model.get_output_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the model's parameters, and of hidden states."""
        return self.model.get_output_embeddings().weight.dtype

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over what the config says about the computation and over all weights, as 64 hex digits.

        Taken from the checkpoint's own tensors, so it does not depend on the dtype or device loaded to.
        """
        return self._fingerprint()

    def generate(self, prompt: str, max_new_tokens: int = 20) -> str:
        """Continue a text greedily; inside an edit's ``applied`` block the edited base answers.

        Args:
            prompt: the text; the continuation alone is returned.
            max_new_tokens: tokens to add, at most; fewer where the base ends its text.

        Raises:
            InputError: the prompt is empty, or longer than the context leaves room for.
        """
        from instructedit.base.generation import continue_text

        return continue_text(self, prompt, max_new_tokens)

    def split(self, first_block: int) -> Split:
        """Return the trunk / tail split before a block; the same object each time.

        Raises:
            InputError: when the block does not exist.
        """
        if first_block not in self._splits:
            self._splits[first_block] = Split(self.model, self.adaptor, first_block, self._pager)
        return self._splits[first_block]

    def at_targets(self, site: Site) -> bool:
        """Say whether a site computes only where ``Split.tail`` is told to: the MLP of the last block."""
        last = self.n_blocks - 1
        return site.name.startswith(f"{self.adaptor.block_path(last)}.{self.adaptor.mlp}.")

    def keep_tail(self, first_block: int) -> None:
        """Keep the blocks from ``first_block`` on in memory; those below are read whenever they run.

        For a base of the placement ``tail_only``, which keeps no block before this is called. It may be called
        again, with another block. What is computed stays the same to the bit.

        Raises:
            InputError: the block does not exist, the base has another placement, or its files cannot be read.
        """
        if self._pager is None:
            raise InputError(f"Base {self.name!r} is all in memory. Load it with the placement tail_only.")
        self._pager.keep_tail(first_block)


def _frozen(model: PreTrainedModel) -> PreTrainedModel:
    """Put a model into ``eval()`` for good and switch off its gradients.

    A trainer calls ``train()`` on everything it holds; a base that follows would drop out at random
    and no longer compute what it computed alone, without an error. So it does not follow.

    GPT-2's GELU is written out in transformers, eight passes over the widest states of a block, all kept for a backward
    pass; torch has the same function as one operation, equal to rounding.
    """
    model.eval().requires_grad_(False)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, GELUTanh().eval())
    for module in model.modules():
        module.__dict__["train"] = types.MethodType(_stay_in_eval, module)
    return model


def _stay_in_eval(module: nn.Module, mode: bool = True) -> nn.Module:
    return module
