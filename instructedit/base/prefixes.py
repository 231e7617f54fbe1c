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
class Depth:
    """The pieces of a pass that stand behind the same number of others.

    Args:
        places: where in the pass its g pieces are, one behind the other.
        rows: (g, k + 1), the rows that hold each piece's k pieces before it, in order, and its own.
    """

    places: slice
    rows: Tensor

    @property
    def before(self) -> int:
        """How many pieces stand before each."""
        return self.rows.shape[1] - 1


@dataclass(frozen=True)
class Pass:
    """Pieces that go through the trunk together, of the same number of tokens.

    Rows are counted through all passes of a cut: row r of pass p is p * n + r. What stands before a piece is in an
    earlier pass or in its own.

    Args:
        ids: (n, t) token ids.
        starts: (n,), position of the first token of each piece.
        depths: the pieces by how many stand before them, in order.
    """

    ids: Tensor
    starts: Tensor
    depths: tuple[Depth, ...]

    @property
    def positions(self) -> Tensor:
        """Positions (n, t) of all tokens."""
        return self.starts.unsqueeze(1) + torch.arange(self.ids.shape[1], device=self.ids.device)


@dataclass(frozen=True)
class Cut:
    """Some inputs as passes, each behind those it needs.

    Args:
        passes: all of n rows and t tokens, those of the shallowest pieces first.
        rows: per input the rows of its pieces, in order.
    """

    passes: list[Pass]
    rows: dict[Ids, list[int]]


def cut(inputs: Sequence[Ids], tokens: int, rows_per_pass: int, device: torch.device) -> Cut:
    """Cut inputs into pieces of so many tokens and share those whose whole beginning is the same.

    The last piece of an input is filled up with token 0, the last pass by repeating its last piece: all passes have
    one shape, and what a piece becomes does not depend on which others are there.

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
    pieces = [(depth, piece) for depth, found in enumerate(depths) for piece in found]
    rows: dict[Ids, list[int]] = {(): []}
    passes: list[Pass] = []
    for first in range(0, len(pieces), rows_per_pass):
        together = pieces[first : first + rows_per_pass]
        together += together[-1:] * (rows_per_pass - len(together))
        behind: dict[int, list[list[int]]] = {}
        for place, (depth, piece) in enumerate(together):
            own = [*rows[piece[: depth * tokens]], len(passes) * rows_per_pass + place]
            rows.setdefault(piece, own)
            behind.setdefault(depth, []).append(own)
        filled = [_filled(piece[depth * tokens :], tokens) for depth, piece in together]
        passes.append(_pass(filled, [depth for depth, _ in together], behind, device))
    return Cut(passes, {ids: rows[ids] for ids in inputs})


def idle(tokens: int, rows_per_pass: int, device: torch.device) -> Pass:
    """Return a pass of nothing, for a rank that has less to compute than the others."""
    return in_all_places([0] * tokens, rows_per_pass, 0, device)


def in_all_places(beginning: Sequence[int], rows_per_pass: int, number: int, device: torch.device) -> Pass:
    """Return pass ``number`` with one piece, which has nothing before it, in every place."""
    rows = [[number * rows_per_pass + place] for place in range(rows_per_pass)]
    return _pass([list(beginning)] * rows_per_pass, [0] * rows_per_pass, {0: rows}, device)


def _pass(ids: list[list[int]], depths: list[int], rows: dict[int, list[list[int]]], device: torch.device) -> Pass:
    found, place = [], 0
    for own in rows.values():
        found.append(Depth(slice(place, place + len(own)), torch.tensor(own, device=device)))
        place += len(own)
    starts = torch.tensor(depths, device=device) * len(ids[0])
    return Pass(torch.tensor(ids, device=device), starts, tuple(found))


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
