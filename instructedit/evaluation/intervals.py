"""Bootstrap intervals of a mean over examples. Knows numbers only, not what they measure."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

_NUMBERS_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class Estimate:
    """A mean over n examples, and its interval."""

    mean: float
    low: float
    high: float
    n: int


def estimate(values: Sequence[float], level: float = 0.95, draws: int = 2000, seed: int = 0) -> Estimate:
    """Average values and give the percentile bootstrap interval of the mean (Efron and Tibshirani 1993, chapter 13).

    The examples are drawn with replacement, ``draws`` times; the interval's ends are the quantiles
    (1 - level) / 2 and (1 + level) / 2 of the draws' means. One value gives an interval of no width:
    there is nothing to draw from, which n says beside it.

    Args:
        values: one per example; at least one.
        level: the interval's coverage, between 0 and 1.
        draws: bootstrap samples.
        seed: of the drawing; the same values and seed give the same interval everywhere.

    Raises:
        ValueError: there is no value, or the level is not between 0 and 1.
    """
    if not values:
        raise ValueError("An interval needs at least one value.")
    if not 0 < level < 1:
        raise ValueError(f"The level of an interval lies between 0 and 1; found {level}.")
    # Sorted, so that the interval does not depend on the order the examples came in.
    sample = torch.tensor(sorted(values), dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    means = []
    at_once = max(1, _NUMBERS_AT_ONCE // len(sample))
    for start in range(0, draws, at_once):
        shape = (min(at_once, draws - start), len(sample))
        means.append(sample[torch.randint(len(sample), shape, generator=generator)].mean(1))
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = torch.cat(means).quantile(ends).tolist()
    return Estimate(float(sample.mean()), low, high, len(sample))
