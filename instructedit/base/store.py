"""The trunk store: hidden states of distinct inputs, computed once, in memory and if wanted on disk.

Content-addressed: a state's key holds everything its bits depend on. Knows nothing about records,
edits or where the inputs come from.
"""

import hashlib
import json
import logging
import os
import tempfile
from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from instructedit.base.split import Split

logger = logging.getLogger(__name__)


class TrunkStore:
    """Hidden states entering the tail, one tensor for each distinct input, at most computed once.

    A state never depends on when, or beside what, it was computed: every pass has the same number of
    rows (filled up by repeating its last input), and an input's padded length follows from
    its own length alone.

    Args:
        split: the split whose trunk computes.
        fingerprint: the base's fingerprint.
        rows_per_pass: sequences in one computing pass.
        pad_to_tokens: lengths are rounded up to a multiple of this.
        memory_mib: limit on the states kept in memory, in MiB; the least recently used go first.
            0 keeps none.
        folder: where states are also kept as one safetensors file each, between runs; None for memory only.

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
    ) -> None:
        if rows_per_pass < 1 or pad_to_tokens < 1 or memory_mib < 0:
            raise ValueError(f"{rows_per_pass=} and {pad_to_tokens=} must be at least 1, {memory_mib=} at least 0")
        self.split = split
        self.fingerprint = fingerprint
        self.rows_per_pass = rows_per_pass
        self.pad_to_tokens = pad_to_tokens
        self.folder = folder
        self.hits = 0
        self.misses = 0
        self._limit = memory_mib * 2**20
        self._size = 0
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def states(self, inputs: Sequence[tuple[int, ...]]) -> list[Tensor]:
        """Return the states (t, d) of each input, on the CPU, in the trunk's dtype.

        The tensors are the store's own: read them, never write to them.

        Args:
            inputs: token ids, each at least one token and within the base's context.
        """
        found: dict[tuple[int, ...], Tensor] = {}
        missing: list[tuple[int, ...]] = []
        for ids in dict.fromkeys(inputs):
            state = self._look_up(self._key(ids))
            if state is None:
                missing.append(ids)
            else:
                found[ids] = state
        self.hits += len(found)
        self.misses += len(missing)
        for ids, state in self._compute(missing):
            found[ids] = state
            key = self._key(ids)
            self._keep(key, state)
            self._write(key, state)
        return [found[ids] for ids in inputs]

    def _compute(self, inputs: Iterable[tuple[int, ...]]) -> Iterator[tuple[tuple[int, ...], Tensor]]:
        """Run the trunk over inputs of one padded length at a time, always the same number of rows."""
        by_length: defaultdict[int, list[tuple[int, ...]]] = defaultdict(list)
        for ids in inputs:
            by_length[-(-len(ids) // self.pad_to_tokens) * self.pad_to_tokens].append(ids)
        for length, group in by_length.items():
            for start in range(0, len(group), self.rows_per_pass):
                rows = group[start : start + self.rows_per_pass]
                padded = [ids + (0,) * (length - len(ids)) for ids in rows]
                padded += padded[-1:] * (self.rows_per_pass - len(rows))
                hidden = self.split.trunk(torch.tensor(padded, device=self.split.device)).cpu()
                for row, ids in enumerate(rows):
                    # A copy: a view would keep the whole padded pass alive.
                    yield ids, hidden[row, : len(ids)].clone()

    def _key(self, ids: tuple[int, ...]) -> str:
        """Hash everything the bits of a state depend on."""
        split = self.split
        made_by = [self.fingerprint, split.first_block, str(split.dtype), split.device.type, torch.__version__]
        return hashlib.sha256(json.dumps([*made_by, self.rows_per_pass, self.pad_to_tokens, ids]).encode()).hexdigest()

    def _look_up(self, key: str) -> Tensor | None:
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        state = self._read(key)
        if state is not None:
            self._keep(key, state)
        return state

    def _keep(self, key: str, state: Tensor) -> None:
        self._kept[key] = state
        self._size += state.nbytes
        while self._size > self._limit:
            _, dropped = self._kept.popitem(last=False)
            self._size -= dropped.nbytes

    def _path(self, key: str) -> Path | None:
        return None if self.folder is None else self.folder / key[:2] / f"{key}.safetensors"

    def _read(self, key: str) -> Tensor | None:
        path = self._path(key)
        if path is None or not path.is_file():
            return None
        try:
            return load_file(path)["state"]
        except (OSError, SafetensorError, KeyError) as error:
            logger.warning("Trunk store: %s cannot be read (%s); its state is computed again", path, error)
            return None

    def _write(self, key: str, state: Tensor) -> None:
        """Write under a temporary name, then rename: a reader sees the whole file or none."""
        path = self._path(key)
        if path is None:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        os.close(handle)
        save_file({"state": state}, temporary)
        os.replace(temporary, path)
