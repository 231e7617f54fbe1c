"""What one optimiser step leaves behind beside gradients: sums for the moments, means per task, tokens, a bad loss.

Collected over micro-batches where the results are, and added over ranks in one message; a device is not read before
somebody wants a number. Knows numbers and tasks' names.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from instructedit.hypernet.moments import TokenSums
from instructedit.metatrain import PER_REQUEST, MetaLoss


class StepTally:
    """Sums and counts of a step; divided once, when they are looked at.

    Args:
        tasks: every task a batch may hold, in the same order on all ranks.

    Attributes:
        tokens: of all rows so far, padding not counted.
    """

    def __init__(self, tasks: Sequence[str]) -> None:
        self.tasks = list(tasks)
        self.tokens = 0
        self._table: Tensor | None = None
        self._sums: list[TokenSums] = []
        self._not_finite: Tensor | None = None

    def add(self, tasks: Sequence[str], result: MetaLoss) -> None:
        """Add one micro-batch; ``tasks`` names each request's task."""
        loss = result.loss.detach()
        # In float64: a run's curves are compared to the last digit.
        parts = [getattr(result, part).to(torch.float64) for part in PER_REQUEST]
        share = (loss.to(torch.float64) / len(tasks)).expand(len(tasks))
        columns = torch.stack([torch.ones_like(share), share, *parts], 1)
        rows = torch.tensor([self.tasks.index(task) for task in tasks], device=loss.device)
        table = self._empty(loss.device) if self._table is None else self._table
        self._table = table.index_add_(0, rows, columns)
        pairs = zip(self._sums, result.sums, strict=True)
        self._sums = [kept + new for kept, new in pairs] if self._sums else list(result.sums)
        bad = (~loss.isfinite()).double()
        self._not_finite = bad if self._not_finite is None else torch.maximum(self._not_finite, bad)
        self.tokens += result.n_tokens

    def not_finite(self, device: torch.device) -> Tensor:
        """Return 1 if a loss so far was not finite, else 0: (), float64."""
        return torch.zeros((), dtype=torch.float64, device=device) if self._not_finite is None else self._not_finite

    def take(self, over_ranks: Callable[[Tensor], Tensor], device: torch.device) -> tuple[list[TokenSums], Tensor]:
        """Add up over ranks and start anew.

        Args:
            over_ranks: adds a float64 vector over the ranks; called once.
            device: where the rank's tensors are.

        Returns:
            The moments' sums, and the table (n_tasks, 2 + parts) of counts, losses and parts.
        """
        table = self._empty(device) if self._table is None else self._table
        # Counts in float64 too, which holds every integer they reach.
        sums = [value.double() for part in self._sums for value in (part.count, part.first, part.second)]
        flat = over_ranks(torch.cat([*sums, table.flatten()]))
        parts = flat.split([*map(len, sums), table.numel()])
        found = [TokenSums(parts[i].long(), parts[i + 1], parts[i + 2]) for i in range(0, len(sums), 3)]
        self._table, self._sums, self._not_finite, self.tokens = None, [], None, 0
        return found, parts[-1].reshape(table.shape)

    def values(self, table: Tensor) -> dict[str, float]:
        """Turn a table into ``train/loss`` and ``train/<task>/<part>`` for the tasks that took part."""
        rows = table.tolist()
        values = {"train/loss": sum(row[1] for row in rows) / sum(row[0] for row in rows)}
        for task, row in zip(self.tasks, rows, strict=True):
            if row[0]:
                values |= {
                    f"train/{task}/{part}": value / row[0] for part, value in zip(PER_REQUEST, row[2:], strict=True)
                }
        return values

    def _empty(self, device: torch.device) -> Tensor:
        return torch.zeros(len(self.tasks), 2 + len(PER_REQUEST), dtype=torch.float64, device=device)
