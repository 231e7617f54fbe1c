"""Running mean and variance of the vectors a hypernetwork reads, saved and merged exactly.

Step k standardises with what steps before k saw; the step's own tokens are summed over
micro-batches and ranks and merged once, at the optimiser step. So nothing in a batch depends on
its neighbours, and a resumed run goes on as if it had not stopped. Knows vectors only.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class TokenSums:
    """Sums over tokens of vectors z, shifted by the running mean: what ranks add up.

    Shapes: count (1,) int64, first (d,) = sum of (z - mean), second (d,) = sum of (z - mean)^2, both
    in float64: a mean far from zero would otherwise eat the variance's digits in the first pass.
    """

    count: Tensor
    first: Tensor
    second: Tensor

    def __add__(self, other: "TokenSums") -> "TokenSums":
        """Add the sums of two parts of a batch taken under the same running mean."""
        return TokenSums(self.count + other.count, self.first + other.first, self.second + other.second)


class RunningMoments(nn.Module):
    """Count, mean and summed squared deviation per element, all of them buffers.

    The update is Chan, Golub and LeVeque's parallel formula, vectorised over elements. The count is
    an integer: in fp32 it would stop growing after 16 million tokens.

    Args:
        width: d, the length of the vectors.
        floor: the smallest standard deviation used, as a share of the mean one; an element that
            never varied would otherwise be divided by zero.
    """

    count: Tensor
    mean: Tensor
    m2: Tensor

    def __init__(self, width: int, floor: float = 1e-3) -> None:
        super().__init__()
        self.floor = floor
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("m2", torch.zeros(width))
        self._started = False

    @property
    def started(self) -> bool:
        """Whether two tokens or more have been seen; before that nothing can be standardised."""
        # Asked of the device only until it is so: the count never falls, but when a state is loaded.
        self._started = self._started or int(self.count) > 1
        return self._started

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        self._started = False
        super()._load_from_state_dict(*args, **kwargs)

    def std(self) -> Tensor:
        """Return the standard deviation per element (d,), floored."""
        std = (self.m2 / (self.count - 1).clamp_min(1)).sqrt()
        return torch.maximum(std, self.floor * std.mean() + 1e-30)

    def standardise(self, z: Tensor) -> Tensor:
        """Return (z - mean) / std for z (k, d)."""
        return (z - self.mean) / self.std()

    @torch.no_grad()
    def sums(self, z: Tensor, live: Tensor | None = None) -> TokenSums:
        """Sum up the vectors z (k, d), shifted by the running mean so that no digits are lost.

        Args:
            z: the vectors.
            live: (k, 1), 0 for those that do not count, 1 for the others; None counts all.
        """
        shifted = z.double() - self.mean
        if live is None:
            count = torch.tensor([len(z)], dtype=torch.int64, device=z.device)
        else:
            shifted *= live
            count = live.sum().long().unsqueeze(0)
        return TokenSums(count, shifted.sum(0), shifted.square_().sum(0))

    @torch.no_grad()
    def merge(self, sums: TokenSums) -> None:
        """Merge the sums of one optimiser step; they must have been taken under the present mean."""
        # Of no token at all nothing changes; told by arithmetic, which does not wait for a device.
        total = self.count + sums.count
        offset = sums.first / sums.count.clamp_min(1)
        share = sums.count / total.clamp_min(1)
        self.m2 += sums.second - offset * sums.first + offset.square() * (self.count * share)
        self.mean += offset * share
        self.count.copy_(total)
