"""The optimiser of an editor: Adam in one pass over memory. Knows parameters and rates, nothing of schedules."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def make_adam(
    parameters: Iterable[Tensor] | Iterable[dict[str, Any]], lr: float = 1e-3, fused: bool = True
) -> torch.optim.Adam:
    """Make the Adam that editors are trained with.

    Fused, a step reads and writes weights, gradients and moments once; torch's plain loop does so about ten times,
    which at the paper's 123 to 232 million parameters takes longer than a small batch's own products. What it
    computes is the same but for rounding.

    Args:
        parameters: parameters, or groups of them with rates of their own.
        lr: the rate of those without one of their own.
        fused: False is torch's plain loop.
    """
    return torch.optim.Adam(parameters, lr, fused=fused)
