"""Paging: a base whose lower blocks have weights only while they run, read from the checkpoint each time.

What is kept on the device is the tail, the last norm and the head. A block's weights come before its forward pass and
go after it, so that all that runs the model works as ever, slowly: generation, edits of lower blocks, splits.
Where a gradient goes through a paged block, autograd keeps its weights until the backward pass. Knows nothing about
edits or tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from instructedit.base.adaptors import Adaptor
from instructedit.base.weight_files import WeightFiles
from instructedit.errors import InputError


def without_weights(config: PretrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Build a model with its weights on the meta device and real buffers, on the CPU.

    Raises:
        InputError: a module has both weights and buffers that follow from no weights file.
    """
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    for name, module in list(model.named_modules()):
        if any(buffer.is_meta for buffer in module.buffers(recurse=False)):
            if any(True for _ in module.parameters()) or not hasattr(module, "config"):
                raise InputError(
                    f"A {type(model).__name__} cannot be placed tail_only: its module {name!r} computes a table of its "
                    "own. Use the placement replicated."
                )
            # Rotary tables: they follow from the config alone.
            model.set_submodule(name, type(module)(module.config))
    return model


class Pager:
    """Holds a base's tail, and brings the blocks below it when they run.

    Args:
        model: a model whose weights are on the meta device; filled and hooked in place.
        adaptor: its family.
        weights: where its weights are.
        dtype: dtype of the weights in memory.
        device: where tail, last norm and head are, and a tied or positional embedding.
        trunk_device: where the blocks below the tail compute.

    Attributes:
        first_kept: the first block that is kept; the number of blocks before ``keep_tail``.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        adaptor: Adaptor,
        weights: WeightFiles,
        dtype: torch.dtype,
        device: torch.device | str,
        trunk_device: torch.device | str,
    ) -> None:
        self.device, self.trunk_device = torch.device(device), torch.device(trunk_device)
        self._weights, self._dtype = weights, dtype
        self._blocks = list(adaptor.blocks_of(model))
        self._paths = [adaptor.block_path(index) for index in range(len(self._blocks))]
        self._meta = [dict(block.named_parameters()) for block in self._blocks]
        self._users = [0] * len(self._blocks)
        self.first_kept = len(self._blocks)
        self._place_the_rest(model)
        for index, block in enumerate(self._blocks):
            self._hook(block, index)
        # The last block may have computed on the trunk's device.
        norm = adaptor.decoder_of(model).get_submodule(adaptor.norm)
        norm.register_forward_pre_hook(lambda _module, args: moved(args, self.device))

    def keep_tail(self, first_block: int) -> None:
        """Keep the blocks from ``first_block`` on in memory, on the device, and no others.

        Raises:
            InputError: the base has no such block, or its files cannot be read any more.
        """
        n = len(self._blocks)
        if not 0 <= first_block < n:
            raise InputError(f"Cannot keep the blocks from {first_block} on: the base has blocks 0-{n - 1}.")
        for index in range(self.first_kept, first_block):
            self._page_out(index)
        for index in range(first_block, self.first_kept):
            self._page_in(index, self.device)
        self.first_kept = first_block

    @contextmanager
    def holding(self, block: int) -> Iterator[None]:
        """Inside, a block keeps its weights between its passes."""
        try:
            self._page_in(block, self.trunk_device)
            yield
        finally:
            self._page_out(block)

    # Not in inference mode: autograd may meet these weights later.
    @torch.inference_mode(False)
    def _page_in(self, index: int, device: torch.device) -> None:
        self._users[index] += 1  # before reading, which may fail: whoever calls pages out in any case
        if self._users[index] == 1:
            for name in self._meta[index]:
                tensor = self._weights.read(f"{self._paths[index]}.{name}", device, self._dtype)
                _put(self._blocks[index], name, nn.Parameter(tensor, requires_grad=False))

    def _page_out(self, index: int) -> None:
        self._users[index] -= 1
        if self._users[index] == 0:
            for name, parameter in self._meta[index].items():
                _put(self._blocks[index], name, parameter)

    def _hook(self, block: nn.Module, index: int) -> None:
        def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            self._page_in(index, self.trunk_device)
            device = next(block.parameters()).device
            return moved(args, device), moved(kwargs, device)

        def after(*_: object) -> None:
            self._page_out(index)

        block.register_forward_pre_hook(before, with_kwargs=True)
        block.register_forward_hook(after, always_call=True)

    @torch.inference_mode(False)
    def _place_the_rest(self, model: PreTrainedModel) -> None:
        """Give everything outside of the blocks its weights; an embedding of its own stays in its file."""
        for module in model.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.to(self.device))
        weights = self._weights
        in_blocks = {id(parameter) for parameters in self._meta for parameter in parameters.values()}
        outside = [name for name, p in model.named_parameters(remove_duplicate=False) if id(p) not in in_blocks]
        for name in outside:
            if name == weights.head and weights.tied:
                continue
            mapped = name == weights.embedding and not weights.tied
            tensor = weights.mapped(name) if mapped else weights.read(name, self.device, self._dtype)
            _put(model, name, nn.Parameter(tensor, requires_grad=False))
        embeddings = model.get_input_embeddings()
        if weights.tied:
            model.get_output_embeddings().weight = embeddings.weight
            return
        embeddings.register_forward_pre_hook(lambda _module, args: moved(args, torch.device("cpu")))
        embeddings.register_forward_hook(lambda _module, _args, found: found.to(self.device, self._dtype))


def moved(value: Any, device: torch.device) -> Any:
    """Return a nest of tuples, lists and dictionaries with its tensors on a device; the rest is as it was."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: moved(entry, device) for key, entry in value.items()}
    if type(value) in (tuple, list):
        return type(value)(moved(entry, device) for entry in value)
    return value


def _put(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    path, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(path), leaf, parameter)
