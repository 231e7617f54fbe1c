"""Inputs cut into pieces, so that a beginning several of them share is computed once.

An instruction stands in front of every text of a task: most of a batch's tokens are the same few beginnings. Attention
is causal, so what a piece becomes depends on the tokens up to its end alone. Knows tokens and places; runs no model.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Ids = tuple[int, ...]


@dataclass(frozen=True)
class Pass:
    """Pieces that go through the trunk together: the same number of tokens, each behind as many others.

    Rows are counted through all passes of a cut: row r of pass p is p * n + r.

    Args:
        ids: (n, t) token ids.
        before: (n, k), the rows of earlier passes that hold each piece's beginning, k pieces of t tokens, in order.
    """

    ids: Tensor
    before: Tensor

    @property
    def start(self) -> int:
        """Position of the first token of each piece."""
        return self.before.shape[1] * self.ids.shape[1]


@dataclass(frozen=True)
class Cut:
    """Some inputs as passes, each behind those it needs.

    Args:
        passes: all of n rows and t tokens.
        rows: per input the rows of its pieces, in order.
    """

    passes: list[Pass]
    rows: dict[Ids, list[int]]


def cut(inputs: Sequence[Ids], tokens: int, rows_per_pass: int, device: torch.device) -> Cut:
    """Cut inputs into pieces of so many tokens and share those whose whole beginning is the same.

    The last piece of an input is filled up with token 0, the last pass of pieces at one depth by repeating its last:
    all passes have one shape, and what a piece becomes does not depend on which others are there.

    Args:
        inputs: distinct token ids, each at least one.
        tokens: t, in a piece.
        rows_per_pass: n, pieces in a pass.
        device: where the passes' tensors are made.
    """
    depths: list[dict[Ids, None]] = []
    for ids in inputs:
        for depth, beginning in enumerate(_beginnings(ids, tokens)):
            if depth == len(depths):
                depths.append({})
            depths[depth][beginning] = None
    rows: dict[Ids, list[int]] = {(): []}
    passes: list[Pass] = []
    for depth, beginnings in enumerate(depths):
        pieces = list(beginnings)
        for first in range(0, len(pieces), rows_per_pass):
            group = pieces[first : first + rows_per_pass]
            group += group[-1:] * (rows_per_pass - len(group))
            before = [rows[piece[: depth * tokens]] for piece in group]
            for row, piece in enumerate(group):
                rows.setdefault(piece, [*before[row], len(passes) * rows_per_pass + row])
            filled = [_filled(piece[depth * tokens :], tokens) for piece in group]
            # Empty lists at depth 0 tell no dtype.
            places = torch.tensor(before, dtype=torch.int64, device=device)
            passes.append(Pass(torch.tensor(filled, device=device), places))
    return Cut(passes, {ids: rows[ids] for ids in inputs})


def idle(tokens: int, rows_per_pass: int, device: torch.device) -> Pass:
    """Return a pass of nothing, for a rank that has less to compute than the others."""
    return Pass(
        torch.zeros((rows_per_pass, tokens), dtype=torch.int64, device=device),
        torch.zeros((rows_per_pass, 0), dtype=torch.int64, device=device),
    )


def groups(inputs: Sequence[Ids], tokens: int, most: int) -> Iterator[list[Ids]]:
    """Cut inputs into groups of at most so many pieces, those with a common beginning side by side.

    A single input of more pieces is a group of its own.
    """
    group: list[Ids] = []
    found: set[Ids] = set()
    for ids in sorted(inputs):
        own = set(_beginnings(ids, tokens))
        if group and len(found) + len(own - found) > most:
            yield group
            group, found = [], set()
        group.append(ids)
        found |= own
    if group:
        yield group


def _beginnings(ids: Ids, tokens: int) -> Iterator[Ids]:
    """The input up to the end of each of its pieces; the last is all of it."""
    for end in range(tokens, len(ids) + tokens, tokens):
        yield ids[:end]


def _filled(piece: Ids, tokens: int) -> list[int]:
    return [*piece, *(0,) * (tokens - len(piece))]
