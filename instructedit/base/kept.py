"""Keys and values of one block, kept while all the pieces of some inputs go through it, and attention to them.

Knows no tokens.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, PretrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from instructedit.base.prefixes import Depth, Pass

NAME = "instructedit_pieces"
"""What transformers knows the attention by."""

Masks = dict[tuple[int, int, int | None], Tensor]
"""Masks (t, keys) by t, keys and window, made once for all blocks."""


class KeysAndValues:
    """What a block's attention has seen, by pass.

    Args:
        n_passes: how many passes of one shape (n, t) will go through the block.
        masks: shared by the blocks of a trunk.
    """

    def __init__(self, n_passes: int, masks: Masks) -> None:
        self._n_passes = n_passes
        self._masks = masks
        self._done = 0
        self._kept: list[Tensor] = []
        """Keys and values, each (n_passes * n, heads, t, width)."""

    def run(self, block: nn.Module, piece: Pass, hidden: Tensor) -> Tensor:
        """Run a decoder of one block on the next pass (n, t, d), inside ``attending``.

        A decoder that has no block at all only adds what stands before its blocks.
        """
        token = _running.set((self, piece))
        try:
            out: Tensor = block(inputs_embeds=hidden, position_ids=piece.positions, use_cache=False).last_hidden_state
        finally:
            _running.reset(token)
        self._done += 1
        return out

    def attend(self, module: nn.Module, piece: Pass, query: Tensor, key: Tensor, value: Tensor, **given: Any) -> Tensor:
        """Attention (n, t, heads, width) of a pass's queries to its own keys and those before them.

        All of one depth at a time: their number of keys is the same, and what one gets does not depend on the others.
        """
        self._keep(key, value)
        window = given.pop("sliding_window", None)
        found = []
        for depth in piece.depths:
            seen = [self._before(kept, depth) for kept in self._kept]
            mask = self._mask(query.shape[2], seen[0].shape[2], window, query.device)
            found.append(sdpa_attention_forward(module, query[depth.places], *seen, mask, **given)[0])
        return torch.cat(found)

    def _keep(self, key: Tensor, value: Tensor) -> None:
        n = len(key)
        if not self._kept:
            self._kept = [part.new_empty(self._n_passes * n, *part.shape[1:]) for part in (key, value)]
        for kept, part in zip(self._kept, (key, value), strict=True):
            kept[self._done * n : (self._done + 1) * n] = part

    @staticmethod
    def _before(kept: Tensor, depth: Depth) -> Tensor:
        """What the rows (g, k + 1) hold, one behind the other: (g, heads, (k + 1) * t, width)."""
        g, k = depth.rows.shape
        found = kept.index_select(0, depth.rows.flatten()).view(g, k, *kept.shape[1:])
        return found.transpose(1, 2).flatten(2, 3)

    def _mask(self, t: int, keys: int, window: int | None, device: torch.device) -> Tensor | None:
        """Which keys the last t queries see; None where that is all up to their own."""
        if keys == t and (window is None or window >= t):
            return None
        if (t, keys, window) not in self._masks:
            asks = torch.arange(keys - t, keys, device=device).unsqueeze(1)
            is_asked = torch.arange(keys, device=device)
            mask = is_asked <= asks
            if window is not None:
                mask &= is_asked > asks - window
            self._masks[t, keys, window] = mask
        return self._masks[t, keys, window]


_running: ContextVar[tuple[KeysAndValues, Pass]] = ContextVar("running")


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **given: Any
) -> tuple[Tensor, None]:
    kept, piece = _running.get()
    return kept.attend(module, piece, query, key, value, **given), None


AttentionInterface.register(NAME, _attention)


@contextmanager
def attending(config: PretrainedConfig) -> Iterator[None]:
    """Inside the block the models of a config attend as pieces do."""
    usual = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = usual
