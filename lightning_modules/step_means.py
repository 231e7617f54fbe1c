"""Means of one optimiser step per task, summed over its micro-batches and ranks. Knows numbers and tasks' names."""

from collections.abc import Sequence

import torch
from torch import Tensor

from instructedit.metatrain import MetaLoss

PARTS = ("edit", "unlikelihood", "locality", "reliability", "kept", "update_norm")


class StepMeans:
    """Sums and counts per task; divided once, when they are taken.

    Args:
        tasks: every task a batch may hold, in the same order on all ranks.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = list(tasks)
        self._sums = torch.zeros(len(self.tasks), 3 + len(PARTS), dtype=torch.float64)

    def add(self, tasks: Sequence[str], result: MetaLoss) -> None:
        """Add one micro-batch; ``tasks`` names each request's task."""
        parts = torch.stack([getattr(result, part) for part in PARTS], 1).to("cpu", torch.float64)
        rows = torch.tensor([self.tasks.index(task) for task in tasks])
        share = result.loss.detach().to("cpu", torch.float64) / len(tasks)
        tokens = torch.zeros(len(tasks), 1)
        tokens[0] = result.n_tokens  # only their sum over the tasks is asked for
        columns = torch.cat([torch.ones(len(tasks), 1), share.expand(len(tasks), 1), tokens, parts], 1)
        self._sums.index_add_(0, rows, columns.double())

    def sums(self) -> Tensor:
        """Return the table (n_tasks, 3 + parts) of counts, losses, tokens and parts, to add over ranks; start anew."""
        sums, self._sums = self._sums, torch.zeros_like(self._sums)
        return sums

    def values(self, sums: Tensor) -> dict[str, float]:
        """Turn summed tables into ``train/loss`` and ``train/<task>/<part>`` for the tasks that took part."""
        values = {"train/loss": float(sums[:, 1].sum() / sums[:, 0].sum())}
        for task, row in zip(self.tasks, sums.tolist(), strict=True):
            if row[0]:
                values |= {f"train/{task}/{part}": value / row[0] for part, value in zip(PARTS, row[3:], strict=True)}
        return values

    def tokens(self, sums: Tensor) -> int:
        """Return the tokens of all rows in summed tables, padding not counted."""
        return int(sums[:, 2].sum())
