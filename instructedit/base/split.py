"""Trunk and tail: a base cut in two before one block, sharing its modules, exact to the bit.

Both halves are shallow copies of the model's own decoder in which the blocks of the other half let
hidden states pass; no forward code of a model is repeated here. Knows nothing about edits or tokens.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cached_property

import torch
from torch import LongTensor, Tensor, nn
from transformers import PreTrainedModel

from instructedit.base.adaptors import Adaptor
from instructedit.base.kept import KeysAndValues, Masks, attending
from instructedit.base.paging import Pager
from instructedit.base.prefixes import Pass, cut
from instructedit.errors import InputError

GROUP_BYTES = 256 * 2**20
"""Hidden states held at once while several passes go through one block of the trunk after the other."""

PIECES_APART = 0.02
"""How far states computed in pieces may be from the others, as a share of their norm: what rounding does in bf16."""

PIECES = 256
"""Pieces of inputs that go through a trunk in memory together."""


class _Pass(nn.Module):
    """Stands where a block of the other half is, so that the remaining blocks keep their indices."""

    def forward(self, hidden: Tensor, *_args: object, **_kwargs: object) -> Tensor:
        return hidden


class _NoPositions(nn.Module):
    """Stands where the tail's absolute positions are: the trunk has added them already."""

    def forward(self, ids: Tensor) -> Tensor:
        # A 0-dim integer: adding it changes neither value nor dtype of the hidden states.
        return torch.zeros((), dtype=torch.int64, device=ids.device)


@contextmanager
def _at_positions(mlp: nn.Module, positions: LongTensor) -> Iterator[None]:
    """Inside the block an MLP computes at chosen positions alone, and gives zeros at the others.

    Hooks, not another module in its place: an engine that cuts the base has marks on the block.

    Args:
        mlp: maps (n, t, d) to (n, t, d), each token by itself.
        positions: (n, m), different ones in each row.
    """
    places: list[Tensor] = []
    shape: list[torch.Size] = []

    def choose(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        n, t, d = args[0].shape
        # Whole rows of (n * t, d): gather's backward pass would add number by number.
        places[:] = [(positions + t * torch.arange(n, device=args[0].device).unsqueeze(1)).flatten()]
        shape[:] = [args[0].shape]
        return args[0].reshape(n * t, d).index_select(0, places[0]).view(n, -1, d), *args[1:]

    def spread(_: nn.Module, _args: tuple[Tensor, ...], output: Tensor) -> Tensor:
        n, t, d = shape[0]
        return output.new_zeros(n * t, d).index_copy(0, places[0], output.reshape(-1, d)).view(n, t, d)

    handles = [mlp.register_forward_pre_hook(choose), mlp.register_forward_hook(spread)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class Split:
    """A base cut before ``first_block``: ``logits(tail(trunk(ids)))`` equals the whole model's logits.

    Sequences are right padded and no attention mask is passed: attention is causal, so padding never
    reaches a real token. The halves hold the same submodule objects as the model, so a hook on
    one of the model's submodules acts here as well. Legend: n sequences, t tokens, d hidden width.

    Attributes:
        whole_head: whether a loss must ask the head once for all positions: ranks that share a base must all ask it
            the same number of times.
        hold: gives a context for the index of a block of the trunk, inside which its weights stay in memory while
            several passes go through it.

    Args:
        model: a causal language model in ``eval()``.
        adaptor: the model's family.
        first_block: the first block of the tail; 0 leaves the embeddings alone to the trunk.
        pager: who brings the blocks' weights, where they are not all in memory.

    Raises:
        InputError: when the block does not exist, or when a model whose type our tests do not cover
            computes something between the halves that they would miss.
    """

    def __init__(self, model: PreTrainedModel, adaptor: Adaptor, first_block: int, pager: Pager | None = None) -> None:
        blocks = adaptor.blocks_of(model)
        if not 0 <= first_block < len(blocks):
            raise InputError(f"Cannot split before block {first_block}: the base has blocks 0-{len(blocks) - 1}.")
        self.first_block = first_block
        self._pager = pager
        self.hold: Callable[[int], AbstractContextManager[None]] = pager.holding if pager else lambda _: nullcontext()
        self._adaptor = adaptor
        below = [block if index < first_block else _Pass() for index, block in enumerate(blocks)]
        above = [block if index >= first_block else _Pass() for index, block in enumerate(blocks)]
        self._last_mlp = blocks[-1].get_submodule(adaptor.mlp)
        decoder = adaptor.decoder_of(model)
        self._embeddings = decoder.get_submodule(adaptor.embeddings)
        self._trunk = _with(decoder, {adaptor.blocks: nn.ModuleList(below), adaptor.norm: nn.Identity()})
        absolute: dict[str, nn.Module] = {adaptor.positions: _NoPositions()} if adaptor.positions else {}
        self._tail = _with(decoder, {adaptor.blocks: nn.ModuleList(above), **absolute})
        self._head = model.get_output_embeddings()
        self.whole_head = False
        if model.config.model_type not in adaptor.model_types:
            self._check(model, adaptor)

    @property
    def device(self) -> torch.device:
        """Where tail and head are, and where hidden states come out; in a base all in memory, all of it."""
        return self._weight.device

    @property
    def trunk_device(self) -> torch.device:
        """Where the blocks of the trunk compute."""
        return self.device if self._pager is None else self._pager.trunk_device

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the base's parameters, and of hidden states."""
        return self._weight.dtype

    @property
    def _weight(self) -> Tensor:
        return next(self._head.parameters())

    @torch.no_grad()
    def trunk(self, ids: Tensor) -> Tensor:
        """Token ids (n, t) to the hidden states (n, t, d) that enter block ``first_block``; no gradient."""
        return _run(self._trunk, self._embeddings(ids)).to(self.device)

    @torch.no_grad()
    def trunk_many(self, passes: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield ``trunk(ids)`` for several passes, in their order and to the bit.

        Where the trunk is paged, a block is read once for as many passes as ``GROUP_BYTES`` hold the states of.
        """
        if self._pager is None:
            for ids in passes:
                yield self.trunk(ids)
            return
        for group in self._groups(passes):
            states = [self._embeddings(ids) for ids in group]
            for block, alone in enumerate(self._blocks_alone):
                with self._pager.holding(block):
                    for place, hidden in enumerate(states):
                        states[place] = _run(alone, hidden)
            while states:
                yield states.pop(0).to(self.device)

    @torch.no_grad()
    def trunk_pieces(self, passes: Sequence[Pass]) -> list[Tensor]:
        """Pieces of inputs to the states (n, t, d) that enter block ``first_block``, pass by pass; no gradient.

        Block by block: all passes go through one before the next, and keys and values are kept for one block at a
        time. A block that is paged, or cut over ranks, is brought once.

        Args:
            passes: of one shape (n, t), each behind those that hold its beginnings.
        """
        states = [self._embeddings(piece.ids) for piece in passes]
        masks: Masks = {}
        with attending(self._trunk.config):
            for block, alone in enumerate(self._blocks_alone):
                with self.hold(block):
                    kept = KeysAndValues(len(passes), masks)
                    for place, piece in enumerate(passes):
                        states[place] = kept.run(alone, piece, states[place])
        return [state.to(self.device) for state in states]

    def pieces_at_once(self, tokens: int) -> int:
        """Return how many pieces of so many tokens have their states, keys and values in ``GROUP_BYTES``.

        Fewer where nothing is gained by more, so that a bar moves and a signal is heard.
        """
        fit = max(1, GROUP_BYTES // (3 * tokens * self._weight.shape[1] * self.dtype.itemsize))
        return min(fit, PIECES) if self._pager is None else fit

    def _groups(self, passes: Sequence[Tensor]) -> Iterator[list[Tensor]]:
        """Cut passes into groups whose states fit in ``GROUP_BYTES``; a pass that does not is a group of its own."""
        group: list[Tensor] = []
        taken = 0
        for ids in passes:
            size = ids.numel() * self._weight.shape[1] * self.dtype.itemsize
            if group and taken + size > GROUP_BYTES:
                yield group
                group, taken = [], 0
            group.append(ids)
            taken += size
        if group:
            yield group

    @cached_property
    def _blocks_alone(self) -> list[nn.Module]:
        """The trunk as a chain of decoders of one block each; the first also adds absolute positions.

        A trunk of no block is a chain of one: what the decoder does before its blocks.
        """
        adaptor = self._adaptor
        chain: list[nn.Module] = []
        for index in range(max(1, self.first_block)):
            blocks = self._trunk.get_submodule(adaptor.blocks)
            kept = [block if place == index else _Pass() for place, block in enumerate(blocks.children())]
            changes: dict[str, nn.Module] = {adaptor.blocks: nn.ModuleList(kept)}
            if adaptor.positions and index:
                changes[adaptor.positions] = _NoPositions()
            chain.append(_with(self._trunk, changes))
        return chain

    def tail(self, hidden: Tensor, positions: LongTensor | None = None) -> Tensor:
        """Hidden states (n, t, d) of the trunk to states (n, t, d) after the last norm; differentiable.

        Args:
            hidden: what enters the first block of the tail.
            positions: (n, m), the only positions whose states are wanted, different ones in each row. The last
                block's MLP computes at these alone, and its modules see (n, m, d); what is returned
                elsewhere means nothing. None: all, to the bit what the whole model computes.
        """
        with nullcontext() if positions is None else _at_positions(self._last_mlp, positions):
            return _run(self._tail, hidden)

    def logits(self, states: Tensor) -> Tensor:
        """States (..., d) after the last norm to logits (..., vocabulary)."""
        logits: Tensor = self._head(states)
        return logits

    def positions_at_once(self, portion_bytes: int) -> int | None:
        """Return how many positions' fp32 logits fit in so many bytes, at least 1; None where all go together."""
        if self.whole_head:
            return None
        return max(1, portion_bytes // (4 * self._head.weight.shape[0]))

    @torch.no_grad()
    def _check(self, model: PreTrainedModel, adaptor: Adaptor) -> None:
        """Compare with the whole model once: some models scale embeddings or logits on the way."""
        ids = torch.arange(4, device=self.device).remainder(model.config.vocab_size).unsqueeze(0)
        states = self.trunk(ids)
        both = cut([tuple(ids[0].tolist())], 2, 1, self.device)
        apart = (torch.cat(self.trunk_pieces(both.passes), 1) - states).norm() / states.norm()
        whole = model(ids, use_cache=False).logits
        if apart > PIECES_APART or not torch.equal(self.logits(self.tail(states)), whole):
            raise InputError(
                f"A base of type {model.config.model_type!r} is built like {adaptor.family}, but its trunk and tail do "
                f"not add up to the whole model. Supported: {adaptor.described}. Choose such a base."
            )


def _run(decoder: nn.Module, hidden: Tensor) -> Tensor:
    states: Tensor = decoder(inputs_embeds=hidden, use_cache=False).last_hidden_state
    return states


def _with(module: nn.Module, children: dict[str, nn.Module]) -> nn.Module:
    """Copy a module shallowly: same parameters, buffers and children, but for those given."""
    changed = copy.copy(module)
    changed.__dict__["_modules"] = {**module._modules, **children}
    return changed
