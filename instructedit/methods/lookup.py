"""Looking up in codebooks while the base computes: which token fires, and what takes the layer's output's place.

Knows a layer's inputs and outputs, token by token; nothing about prompts, nor how a codebook was made. Legend: b
codebooks of at most k entries, n sequences of t tokens.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import torch
from torch import LongTensor, Tensor

from instructedit.base.model import Base
from instructedit.hooks import replace
from instructedit.methods.codebook import Codebook, Expansion, joined

Replacement = Literal["replace_last", "replace_prompt"]
"""Where a key's value goes: to the token that fires alone, or to it and all tokens before it."""

ROUNDING = {torch.float32: 24, torch.bfloat16: 4}
"""Multiples of the dtype's rounding step, times a key's length, that a radius reaches further: the same prompt, in
another batch or before a cache, gives another input by about so much. On SmolLM2-135M in bf16 (blocks 14 to 24) it is
2 % of the key's length in the median, which is 3 steps, 4 % at the 95th percentile, 12 % at most; in fp32 (32 prompts)
12 steps in the median and 19 at most, which is 2e-6 of the length."""


@dataclass(frozen=True)
class Shelf:
    """Codebooks beside one another, padded to one size: keys (b, k, d_in), values (b, k, d_out), radii (b, k)."""

    keys: Tensor
    values: Tensor
    radii: Tensor

    @classmethod
    def of(cls, books: Sequence[Codebook]) -> "Shelf":
        """Stack codebooks; where one has fewer entries its radii are -1, which no distance is within."""
        keys, values = (
            torch.nn.utils.rnn.pad_sequence(list(tensors), batch_first=True)
            for tensors in ([book.keys for book in books], [book.values for book in books])
        )
        radii = torch.nn.utils.rnn.pad_sequence([book.radii for book in books], batch_first=True, padding_value=-1.0)
        return cls(keys, values, radii)

    def for_rows(self, rows: Tensor) -> "Shelf":
        """Repeat the codebooks so that entry n is the one row n of a batch looks into."""
        rows = rows.to(self.keys.device)
        return Shelf(*(tensor.index_select(0, rows) for tensor in (self.keys, self.values, self.radii)))

    def look_up(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Find what fires for inputs x (n, t, d_in): whether (n, t) bool, and the nearest entry (n, t).

        A token fires where its nearest key is no further than that key's radius, in Euclidean distance and but for
        rounding (see ``ROUNDING``). The shelf holds n codebooks, or one for all rows.
        """
        # Not by a product of matrices: beside the large activations of some tokens, near distances would drown.
        distance = torch.cdist(x.float(), self.keys, compute_mode="donot_use_mm_for_euclid_dist")
        distance = distance.masked_fill(self.radii.unsqueeze(1) < 0, torch.inf)
        smallest, nearest = distance.min(-1)
        reach = self.radii + ROUNDING.get(x.dtype, 4) * torch.finfo(x.dtype).eps * self.keys.norm(dim=-1)
        return smallest <= reach.expand(len(x), -1).gather(1, nearest), nearest

    def answer(self, x: Tensor, y: Tensor, replacement: Replacement) -> Tensor:
        """Put values where keys fire: inputs x (n, t, d_in), outputs y (n, t, d_out) to outputs (n, t, d_out).

        ``replace_prompt`` also replaces all tokens before the first that fires, with its value. That a token further on
        fires does not reach back: what was computed for a text stays as it is when the text goes on,
        so that a pass over the whole text and passes of one token with a cache agree.
        """
        fires, nearest = self.look_up(x)
        if not fires.any():
            return y
        if replacement == "replace_prompt":
            place = torch.arange(x.shape[1], device=x.device)
            first = fires.int().argmax(1, keepdim=True)
            before = fires.any(1, keepdim=True) & (place < first)
            nearest = torch.where(before, nearest.gather(1, first), nearest)
            fires = fires | before
        values = self.values.expand(len(x), -1, -1)
        chosen = values.gather(1, nearest.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
        return torch.where(fires.unsqueeze(-1), chosen.to(y.dtype), y)


@dataclass(frozen=True)
class CodebookEdit:
    """One codebook for each request, at one layer.

    Args:
        base: the base it belongs to.
        module: dotted path of the layer in the base's model.
        replacement: where a value goes.
        expand: how keys grow where the codebooks are put together.
        books: the codebooks; one alone for requests edited together or in sequence.
    """

    base: Base
    module: str
    replacement: Replacement
    expand: Expansion
    books: tuple[Codebook, ...]

    @cached_property
    def together(self) -> Codebook:
        """All entries in one codebook, conflicts resolved in order; a grown key keeps its value."""
        return joined(self.books, self.expand)

    def applied(self, rows: LongTensor | None = None) -> AbstractContextManager[None]:
        """Let the base look into the codebooks inside the block; see ``methods.base.Edit``."""
        shelf = Shelf.of([self.together]) if rows is None else Shelf.of(self.books).for_rows(rows)
        return replace(self.base.model, {self.module: lambda x, y: shelf.answer(x, y, self.replacement)})

    def tensors(self) -> dict[str, Tensor]:
        """Return keys, values and radii of all books, and ``book`` (m,), which each entry is in."""
        parts = {name: torch.cat([getattr(book, name) for book in self.books]) for name in ("keys", "values", "radii")}
        return {**parts, "book": torch.tensor([index for index, book in enumerate(self.books) for _ in book.labels])}

    def settings(self) -> dict[str, Any]:
        """Return the layer, the options of looking up and the labels."""
        labels = [list(label) for book in self.books for label in book.labels]
        return {"module": self.module, "replacement": self.replacement, "expand": self.expand, "labels": labels}

    @classmethod
    def from_tensors(cls, base: Base, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """Make the edit again from what ``tensors`` and ``settings`` returned."""
        labels = tuple(tuple(label) for label in settings["labels"])
        parts = [tensors["book"].tolist().count(index) for index in range(int(tensors["book"].max()) + 1)]
        cut = [tensors[name].split(parts) for name in ("keys", "values", "radii")]
        ends = [sum(parts[: index + 1]) for index in range(len(parts))]
        books = (
            Codebook(keys, values, radii, labels[end - len(keys) : end])
            for keys, values, radii, end in zip(*cut, ends, strict=True)
        )
        return cls(base, settings["module"], settings["replacement"], settings["expand"], tuple(books))
