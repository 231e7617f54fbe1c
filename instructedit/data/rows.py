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


def mean_by(values: Tensor, group: Tensor, n_groups: int) -> Tensor:
    """Average values (m,) over the members of each group: (n_groups,); an empty group gives 0."""
    total = torch.zeros(n_groups, dtype=values.dtype, device=values.device).index_add(0, group, values)
    count = torch.bincount(group, minlength=n_groups).clamp_min(1)
    return total / count


def pad_states(states: Sequence[Tensor], device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """Stack states (t_i, d) of rows of different length into (n, t, d), padded with zeros on the right."""
    return torch.nn.utils.rnn.pad_sequence([state.to(device, dtype) for state in states], batch_first=True)
