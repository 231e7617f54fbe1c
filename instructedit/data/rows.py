"""Token sequences of a batch and where their targets are, ready for a model.

A row is one sequence; it belongs to one request of the batch. Rows are padded on the right and no
attention mask exists: causal attention never looks right, so padding cannot reach a real token.
This module knows integers only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import LongTensor, Tensor

from instructedit.data.tokenise import TokenisedText


@dataclass(frozen=True)
class Rows:
    """Sequences of one role in a batch (edit inputs, locality inputs, ...).

    Args:
        ids: the token ids of each row.
        n_target: how many of each row's last tokens are its target.
        request: which request of the batch each row belongs to, not decreasing.
    """

    ids: tuple[tuple[int, ...], ...] = ()
    n_target: tuple[int, ...] = ()
    request: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(cls, texts: Iterable[tuple[int, TokenisedText]]) -> "Rows":
        """Build rows from (request index, tokenised text) pairs; sorts them by request, stably."""
        ordered = sorted(texts, key=lambda pair: pair[0])
        return cls(
            tuple(text.ids for _, text in ordered),
            tuple(text.n_target for _, text in ordered),
            tuple(index for index, _ in ordered),
        )

    def __add__(self, other: "Rows") -> "Rows":
        """These rows, then the other ones."""
        return Rows(self.ids + other.ids, self.n_target + other.n_target, self.request + other.request)

    def take(self, indices: Iterable[int]) -> "Rows":
        """Return the rows of these indices, in that order."""
        chosen = list(indices)
        return Rows(
            tuple(self.ids[index] for index in chosen),
            tuple(self.n_target[index] for index in chosen),
            tuple(self.request[index] for index in chosen),
        )

    @property
    def n_tokens(self) -> int:
        """All tokens, padding not counted."""
        return sum(len(ids) for ids in self.ids)

    def request_index(self, device: torch.device | str = "cpu") -> LongTensor:
        """Return (n,): the request of each row."""
        return torch.tensor(self.request, dtype=torch.long, device=device)  # type: ignore[return-value]

    @property
    def most_targets(self) -> int:
        """The most target tokens any row has."""
        return max(self.n_target, default=0)

    def windows(self, device: torch.device | str = "cpu") -> LongTensor:
        """Return (n, m): for each row m neighbouring positions that hold all that predict its target.

        m is ``most_targets``. The positions of a row are different ones, also where its own target is shorter.
        """
        starts = torch.tensor(self._window_starts, dtype=torch.long, device=device)
        offsets = torch.arange(self.most_targets, device=device)
        return starts.unsqueeze(1) + offsets  # type: ignore[return-value]

    @property
    def _window_starts(self) -> list[int]:
        return [max(0, len(ids) - 1 - self.most_targets) for ids in self.ids]

    def gradient_tokens(self, n_requests: int, mixed: bool, device: torch.device | str = "cpu") -> "Tokens":
        """Return the tokens that the targets' loss depends on, told from lengths alone.

        Args:
            n_requests: how many requests the rows belong to.
            mixed: whether attention follows: then all tokens up to the last that predicts; else only those
                that predict, at their places in ``windows``.
            device: where the indices are wanted.
        """
        row: list[int] = []
        position: list[int] = []
        request: list[int] = []
        slot: list[int] = []
        used = [0] * n_requests
        lengths = zip(self.ids, self.n_target, self.request, self._window_starts, strict=True)
        for index, (ids, n_target, own, start) in enumerate(lengths):
            places = range(len(ids) - 1) if mixed else range(len(ids) - n_target - 1 - start, len(ids) - 1 - start)
            row += [index] * len(places)
            position += places
            request += [own] * len(places)
            slot += range(used[own], used[own] + len(places))
            used[own] += len(places)
        row_, position_, request_, slot_ = (
            torch.tensor(v, dtype=torch.long, device=device) for v in (row, position, request, slot)
        )
        return Tokens(row_, position_, request_, slot_, max(used, default=0), n_requests)

    def targets(self, device: torch.device | str = "cpu") -> "Targets":
        """Return where the target tokens are predicted, for all rows in order."""
        row: list[int] = []
        position: list[int] = []
        label: list[int] = []
        for index, (ids, n_target) in enumerate(zip(self.ids, self.n_target, strict=True)):
            row += [index] * n_target
            # The token at position p is predicted by the state at position p - 1.
            position += range(len(ids) - n_target - 1, len(ids) - 1)
            label += ids[len(ids) - n_target :]
        row_, position_, label_ = (torch.tensor(v, dtype=torch.long, device=device) for v in (row, position, label))
        return Targets(row_, position_, label_, len(self))


@dataclass(frozen=True)
class Targets:
    """Where target tokens are predicted: m of them, over n rows.

    Shapes: row (m,), position (m,), label (m,).
    """

    row: Tensor
    position: Tensor
    label: Tensor
    n_rows: int

    def select(self, states: Tensor) -> Tensor:
        """Pick the states (m, d) that predict the targets out of (n, t, d)."""
        return states[self.row, self.position]


@dataclass(frozen=True)
class Tokens:
    """Some tokens of padded rows (n, t), and where each lies among those of its request.

    Shapes: row (k,), position (k,), request (k,) not decreasing, slot (k,); all integers.

    Args:
        row: the row of each token.
        position: its position in the row.
        request: the request the row belongs to.
        slot: the token's number among its request's, from 0.
        most: the most tokens any request has.
        n_requests: how many requests there are.
    """

    row: Tensor
    position: Tensor
    request: Tensor
    slot: Tensor
    most: int
    n_requests: int

    def __len__(self) -> int:
        return len(self.row)

    def pick(self, states: Tensor) -> Tensor:
        """Pick the tokens' vectors (k, d) out of (n, t, d)."""
        return states[self.row, self.position]

    def by_request(self, packed: Tensor) -> Tensor:
        """Lay packed vectors (k, d) out by request: (n_requests, most, d), zeros where a request has fewer."""
        out = packed.new_zeros(self.n_requests, self.most, packed.shape[-1])
        return out.index_put((self.request, self.slot), packed)


def mean_by(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Average values (m,) over the members of each group: (n_groups,); an empty group gives 0."""
    return _total(values, group, n_groups) / _total(torch.ones_like(values), group, n_groups).clamp_min(1)


def mean_of_means(values: Tensor, row: Tensor, row_request: Tensor, n_requests: int) -> Tensor:
    """Average values (m,) within rows, then rows within requests: (n_requests,), 0 where there is no row.

    Args:
        values: of tokens.
        row: (m,), the row of each.
        row_request: (n,), the request of each row; rows without values take no part.
        n_requests: how many requests there are.
    """
    count = _total(torch.ones_like(values), row, len(row_request))
    per_row = _total(values, row, len(row_request)) / count.clamp_min(1)
    return _total(per_row, row_request, n_requests) / _total(
        (count > 0).to(values.dtype), row_request, n_requests
    ).clamp_min(1)


def _total(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    # Not bincount or unique: a device would have to tell the host how long their answer is.
    return torch.zeros(n_groups, dtype=values.dtype, device=values.device).index_add(0, group, values)


def pad_states(states: Sequence[Tensor], device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """Stack states (t_i, d) of rows of different length into (n, t, d), padded with zeros on the right.

    They are stacked where they are and moved once, without waiting where the device is CUDA.
    """
    padded = torch.nn.utils.rnn.pad_sequence(list(states), batch_first=True)
    device = torch.device(device)
    if device.type == "cuda" and padded.device.type == "cpu":
        padded = padded.pin_memory()
    return padded.to(device, non_blocking=True).to(dtype)
