"""Keys and values of one block, kept while all the pieces of some inputs go through it. Knows no tokens."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer

from instructedit.base.prefixes import Pass


class KeysAndValues:
    """What a block's attention has seen, by pass.

    Args:
        n_passes: how many passes of one shape (n, t) will go through the block.
        n_blocks: the block's place in the model is below this.
    """

    def __init__(self, n_passes: int, n_blocks: int) -> None:
        self._n_passes = n_passes
        self._n_blocks = n_blocks
        self._done = 0
        self._kept: list[Tensor] = []
        """Keys and values, each (n_passes * n, heads, t, width)."""

    def run(self, block: nn.Module, piece: Pass, hidden: Tensor) -> Tensor:
        """Run a decoder of one block on the next pass (n, t, d), and keep its keys and values.

        A decoder that has no block at all only adds what stands before its blocks.
        """
        n, t = piece.ids.shape
        layer = DynamicLayer()
        if piece.start and self._kept:
            layer.update(*(self._before(kept, piece.before) for kept in self._kept))
        cache: Any = DynamicCache()
        # The block looks for its own place, a decoder for the first; only one block is there, so both are the same.
        cache.layers = [layer] * self._n_blocks
        cache.layer_class_to_replicate = None
        positions = torch.arange(piece.start, piece.start + t, device=hidden.device).unsqueeze(0)
        out: Tensor = block(
            inputs_embeds=hidden, past_key_values=cache, position_ids=positions, use_cache=True
        ).last_hidden_state
        if layer.is_initialized:
            self._keep(n, t, layer)
        self._done += 1
        return out

    def _keep(self, n: int, t: int, layer: Any) -> None:
        new = [part[..., -t:, :] for part in (layer.keys, layer.values)]
        if not self._kept:
            self._kept = [part.new_empty(self._n_passes * n, *part.shape[1:]) for part in new]
        for kept, part in zip(self._kept, new, strict=True):
            kept[self._done * n : (self._done + 1) * n] = part

    @staticmethod
    def _before(kept: Tensor, rows: Tensor) -> Tensor:
        """Rows (n, k) to what they hold, one behind the other: (n, heads, k * t, width)."""
        n, k = rows.shape
        found = kept.index_select(0, rows.flatten()).view(n, k, *kept.shape[1:])
        return found.transpose(1, 2).flatten(2, 3)
