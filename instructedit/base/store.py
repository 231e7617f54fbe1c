"""The trunk store: hidden states of distinct inputs, computed once, in memory and if wanted on disk.

Content-addressed: a state's address holds everything its bits depend on. Knows nothing about records,
edits or where the inputs come from; how states lie on disk is the business of ``packs``.
"""

import hashlib
import logging
import struct
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from instructedit.base.packs import Packs
from instructedit.base.prefixes import Ids, cut, groups, idle, in_all_places
from instructedit.base.split import Split
from instructedit.errors import InputError

logger = logging.getLogger(__name__)

PACK_BYTES = 32 * 2**20
"""New states are written when there are so many of them: file systems of clusters are slow with small files."""

PASS_ROWS, PASS_TOKENS = 16, 8
"""Rows and tokens of a pass where nothing else is asked for, with shared prefixes: of six shapes on two cores the
fastest for GPT2-XL's width, and a tenth behind the fastest for SmolLM2-135M."""


class TrunkStore:
    """Hidden states entering the tail, one tensor for each distinct input, at most computed once.

    A state never depends on when, or beside what, it was computed: every pass has the same number of
    rows (filled up by repeating its last input), and an input's padded length follows from
    its own length alone. That a row's place in a pass does not count either was seen for passes of one row and of whole
    tiles of the processor's matrix product: a multiple of 48 tokens for each thread (12 rows of 8, 6 of 16 or 32)
    always; 16 rows of 8 too, but for bases narrower than 128 on processors with AVX2 alone. Where prefixes are shared,
    the first pass also goes through with one row in all places, and a warning says so if that is not the same.

    Args:
        split: the split whose trunk computes.
        fingerprint: the base's fingerprint.
        rows_per_pass: sequences in one computing pass.
        pad_to_tokens: lengths are rounded up to a multiple of this.
        share_prefixes: cut inputs into pieces of ``pad_to_tokens`` and compute a beginning that several share once.
        memory_mib: limit on the states kept in memory, in MiB; the least recently used go first.
            0 keeps none.
        folder: where states are also kept between runs; None for memory only. Any number of processes may share it.
        disk_gib: how large the folder may become, in GiB; nothing is written beyond that.
        dtype: dtype of the states; None is the base's.
        agree: where ranks share a base, all of them must run its trunk the same number of times: called exactly
            once in a call of ``states``, with the passes it needs, and returns how many passes all ranks run.

    Attributes:
        hits: distinct inputs found, in memory or on disk, summed over calls.
        misses: distinct inputs computed, summed over calls.
    """

    def __init__(
        self,
        split: Split,
        fingerprint: str,
        rows_per_pass: int = 1,
        pad_to_tokens: int = 1,
        memory_mib: int = 2048,
        folder: Path | None = None,
        disk_gib: float = 100.0,
        dtype: torch.dtype | None = None,
        agree: Callable[[int], int] | None = None,
        share_prefixes: bool = False,
    ) -> None:
        if rows_per_pass < 1 or pad_to_tokens < 1 or memory_mib < 0 or not disk_gib > 0:
            raise ValueError(
                f"{rows_per_pass=} and {pad_to_tokens=} must be at least 1, {memory_mib=} at least 0, {disk_gib=} more"
            )
        self.split = split
        self.fingerprint = fingerprint
        self.rows_per_pass = rows_per_pass
        self.pad_to_tokens = pad_to_tokens
        self.share_prefixes = share_prefixes
        self.folder = folder
        self.disk_gib = disk_gib
        self.hits = 0
        self.misses = 0
        self._dtype = dtype
        self._agree = agree
        self._limit = memory_mib * 2**20
        self._size = 0
        self._kept: OrderedDict[bytes, Tensor] = OrderedDict()
        self._new: dict[bytes, Tensor] = {}
        self._new_size = 0
        # Ranks that share a base count their passes; a pass of one row has one place.
        self._places_checked = agree is not None or rows_per_pass == 1

    @property
    def keeps(self) -> bool:
        """Whether a state that was asked for is likely to be there when it is asked for again."""
        return self._limit > 0 or self.folder is not None

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the states."""
        return self._dtype or self.split.dtype

    @cached_property
    def packs(self) -> Packs | None:
        """The states on disk; None without a folder."""
        # Made at the first use: the base may be moved until then.
        if self.folder is None:
            return None
        split = self.split
        address: dict[str, str | int] = {
            "fingerprint": self.fingerprint,
            "first_block": split.first_block,
            "base_dtype": str(split.dtype),
            "dtype": str(self.dtype),
            "device": split.trunk_device.type,
            "rows_per_pass": self.rows_per_pass,
            "pad_to_tokens": self.pad_to_tokens,
            "torch": torch.__version__,
            **({"share_prefixes": True} if self.share_prefixes else {}),
        }
        return Packs(self.folder, address, self.fingerprint[:16], self.dtype, int(self.disk_gib * 2**30))

    def states(self, inputs: Sequence[Ids]) -> list[Tensor]:
        """Return the states (t, d) of each input, on the CPU, in the store's dtype.

        The tensors are the store's own: read them, never write to them.

        Args:
            inputs: token ids, each at least one token and within the base's context.
        """
        found: dict[Ids, Tensor] = {}
        missing: list[Ids] = []
        for ids in dict.fromkeys(inputs):
            state = self._look_up(ids)
            if state is None:
                missing.append(ids)
            else:
                found[ids] = state
        if missing and self.packs:
            # Another process may have written them since.
            self.packs.refresh()
            found |= {ids: state for ids in missing if (state := self._look_up(ids)) is not None}
            missing = [ids for ids in missing if ids not in found]
        if self.packs:
            # A pack may have been found broken, or gone, after some of its states were read from it whole.
            there = (self.packs, self._new)
            self._buffer({ids: state for ids, state in found.items() if not any(_key(ids) in place for place in there)})
        self.hits += len(found)
        self.misses += len(missing)
        for rows in self._computed(missing, self._agree):
            found |= rows
            for ids, state in rows.items():
                self._keep(_key(ids), state)
        return [found[ids] for ids in inputs]

    def missing(self, inputs: Iterable[Ids]) -> list[Ids]:
        """Return the distinct inputs that are not there, in memory or on disk; reads no state."""
        if self.packs:
            self.packs.refresh()
        there = (self._kept, self._new, self.packs or ())
        return [ids for ids in dict.fromkeys(inputs) if not any(_key(ids) in place for place in there)]

    def fill(self, inputs: Iterable[Ids]) -> Iterator[int]:
        """Compute what is missing and write it to the folder, and keep nothing in memory.

        What was computed and not yet written when the iteration is left is written by ``flush``.

        Yields:
            After each pass the number of tokens of its inputs.

        Raises:
            InputError: the folder is full or cannot be written; nothing more could be kept.
        """
        if self.packs is None:
            raise ValueError("a store without a folder cannot be filled")
        for rows in self._computed(self.missing(inputs), None):
            if self.packs.stopped:
                raise InputError(f"{self.packs.stopped}.")
            yield sum(map(len, rows))

    def flush(self) -> None:
        """Write the states that are not on disk yet; without a folder, nothing happens."""
        if self.packs and self._new:
            self.packs.put(self._new)
            self._new, self._new_size = {}, 0

    def _computed(self, inputs: Sequence[Ids], agree: Callable[[int], int] | None) -> Iterator[dict[Ids, Tensor]]:
        """Run the trunk over inputs, and let the folder have what came out."""
        for states in (self._in_pieces if self.share_prefixes else self._whole)(inputs, agree):
            self._buffer(states)
            yield states

    def _in_pieces(self, inputs: Sequence[Ids], agree: Callable[[int], int] | None) -> Iterator[dict[Ids, Tensor]]:
        """Each distinct beginning once; as many inputs at a time as there is room for."""
        tokens, rows, device = self.pad_to_tokens, self.rows_per_pass, self.split.device
        # Ranks that share a base ask for a step's inputs, which are few, and can agree on one number of passes alone.
        most = self.split.pieces_at_once(tokens) if agree is None else sys.maxsize
        together = list(groups(inputs, tokens, most)) or ([] if agree is None else [[]])
        for group in together:
            shared = cut(group, tokens, rows, device)
            passes = shared.passes
            if agree is not None:
                passes += [idle(tokens, rows, device)] * (agree(len(passes)) - len(passes))
            if not passes:
                continue
            if self._places_checked:
                computed = self.split.trunk_pieces(passes)
            else:
                one = in_all_places(passes[0].ids[0].tolist(), rows, len(passes), device)
                *computed, everywhere = self.split.trunk_pieces([*passes, one])
                self._check_places(everywhere)
            hidden = torch.cat(computed).to(self.dtype).cpu()
            # Copies: views would keep all the pieces alive.
            yield {ids: hidden[places].flatten(0, 1)[: len(ids)].clone() for ids, places in shared.rows.items()}

    def _check_places(self, states: Tensor) -> None:
        """Warn where one row (n, t, d) in all places of a pass is not the same everywhere."""
        self._places_checked = True
        if not torch.equal(states, states[:1].expand_as(states)):
            logger.warning(
                "On this processor a text's states depend on its place in a pass, by rounding: a run that is taken up "
                "again ends like one that was not broken off, but not to the bit (found with %d rows of %d tokens a "
                "pass). For the bit, set model.store.rows_per_pass: 12 and pad_to_tokens: 8; or one row, which always "
                "holds and is slower.",
                self.rows_per_pass,
                self.pad_to_tokens,
            )

    def _whole(self, inputs: Sequence[Ids], agree: Callable[[int], int] | None) -> Iterator[dict[Ids, Tensor]]:
        """Inputs of one padded length at a time, always the same number of rows; pass by pass."""
        by_length: defaultdict[int, list[Ids]] = defaultdict(list)
        for ids in inputs:
            by_length[self.padded(len(ids))].append(ids)
        rows, passes = [], []
        for length, group in by_length.items():
            for start in range(0, len(group), self.rows_per_pass):
                rows.append(group[start : start + self.rows_per_pass])
                padded = [ids + (0,) * (length - len(ids)) for ids in rows[-1]]
                padded += padded[-1:] * (self.rows_per_pass - len(rows[-1]))
                passes.append(torch.tensor(padded, device=self.split.device))
        if agree is not None:
            idle = torch.zeros((self.rows_per_pass, self.pad_to_tokens), dtype=torch.int64, device=self.split.device)
            passes += [idle] * (agree(len(passes)) - len(passes))
        # All at once: blocks that are read from disk are then read once for many passes.
        computed = self.split.trunk_many(passes)
        for group, padded_states in zip(rows, computed, strict=False):
            hidden = padded_states.to(self.dtype).cpu()
            # Copies: views would keep the whole padded pass alive.
            yield {ids: hidden[row, : len(ids)].clone() for row, ids in enumerate(group)}
        for _ in computed:  # what is run beside other ranks
            pass

    def padded(self, tokens: int) -> int:
        """Return the length that an input of so many tokens is computed at."""
        return -(-tokens // self.pad_to_tokens) * self.pad_to_tokens

    def _look_up(self, ids: Ids) -> Tensor | None:
        key = _key(ids)
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        state = self._new.get(key)
        if state is None and self.packs:
            state = self.packs.get(key, len(ids))
        if state is not None:
            self._keep(key, state)
        return state

    def _keep(self, key: bytes, state: Tensor) -> None:
        self._kept[key] = state
        self._size += state.nbytes
        while self._size > self._limit:
            _, dropped = self._kept.popitem(last=False)
            self._size -= dropped.nbytes

    def _buffer(self, states: dict[Ids, Tensor]) -> None:
        """Remember new states until there are enough for a pack."""
        if self.packs is None or self.packs.stopped:
            return
        for ids, state in states.items():
            self._new[_key(ids)] = state
            self._new_size += state.nbytes
        if self._new_size >= PACK_BYTES:
            self.flush()


def _key(ids: Ids) -> bytes:
    return hashlib.blake2b(struct.pack(f"<{len(ids)}i", *ids), digest_size=16).digest()
