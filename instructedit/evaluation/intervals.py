"""Bootstrap intervals of a mean over examples, and p-values of a mean difference.

Knows numbers only, not what they measure.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

EXACT_PAIRS = 12
"""Up to so many differences a sign-flip test counts every pattern of signs."""

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


def sign_flip_p(differences: Sequence[float], draws: int = 9999, seed: int = 0) -> float:
    """Two-sided p-value of a mean difference being this far from 0 by chance (a paired permutation test).

    Had the two sides of each pair the same distribution, each difference could as well have the other sign. Zeros
    are the same either way. Up to 2 ** EXACT_PAIRS sign patterns are all counted; beyond that ``draws`` patterns are
    drawn and the observed one counts as one more (Davison and Hinkley 1997, section 4.3), so p is never 0.

    Args:
        differences: one per pair; at least one.
        draws: sign patterns drawn where there are too many.
        seed: of the drawing.

    Raises:
        ValueError: there is no difference.
    """
    if not differences:
        raise ValueError("A p-value needs at least one difference.")
    # Sorted, so that p does not depend on the order the examples came in.
    sample = torch.tensor(sorted(value for value in differences if value != 0), dtype=torch.float64)
    # Sums of the same numbers in another order differ by rounding.
    observed = float(sample.sum().abs()) - 1e-9 * float(sample.abs().sum())
    if len(sample) <= EXACT_PAIRS:
        patterns = torch.arange(1 << len(sample)).unsqueeze(1) >> torch.arange(len(sample)) & 1
        return float(((sample * (1 - 2 * patterns)).sum(1).abs() >= observed).double().mean())
    generator = torch.Generator().manual_seed(seed)
    reached = 0
    at_once = max(1, _NUMBERS_AT_ONCE // len(sample))
    for start in range(0, draws, at_once):
        shape = (min(at_once, draws - start), len(sample))
        signs = 1 - 2 * torch.randint(2, shape, generator=generator)
        reached += int(((sample * signs).sum(1).abs() >= observed).sum())
    return (1 + reached) / (1 + draws)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for having asked several questions (Holm 1979), in their order.

    Calling those below 0.05 significant keeps the chance of even one false alarm among them all below 0.05.
    """
    corrected = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda index: p_values[index])):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected
