"""Bootstrap intervals of a mean over examples, and p-values of a mean difference.

Knows numbers only, not what they measure; numpy alone, so that reading results loads no torch.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

EXACT_PAIRS = 12
"""Up to so many differences a sign-flip test counts every pattern of signs."""

_NUMBERS_AT_ONCE = 1 << 22
_NUMBERS_KEPT = 1 << 20

_Numbers = np.ndarray[Any, np.dtype[Any]]


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
    sample = np.array(sorted(values), dtype=np.float64)
    means = [sample[places].mean(1) for places in _samples(len(sample), draws, seed)]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2]).tolist()
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
    sample = np.array(sorted(value for value in differences if value != 0), dtype=np.float64)
    # Sums of the same numbers in another order differ by rounding.
    observed = abs(float(sample.sum())) - 1e-9 * float(np.abs(sample).sum())
    if len(sample) <= EXACT_PAIRS:
        patterns = np.arange(1 << len(sample))[:, None] >> np.arange(len(sample)) & 1
        return float((np.abs((1.0 - 2.0 * patterns) @ sample) >= observed).mean())
    total = float(sample.sum())
    # A sum with some signs turned is the whole without twice those.
    sums = (total - 2.0 * (turned.astype(np.float64) @ sample) for turned in _flips(len(sample), draws, seed))
    reached = sum(int((np.abs(each) >= observed).sum()) for each in sums)
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


def _samples(n: int, draws: int, seed: int) -> Iterable[_Numbers]:
    """Which examples each draw takes, some draws at a time.

    A table asks for the same again and again, a cell after the other: what is small is kept.
    """
    return _kept_samples(n, draws, seed) if n * draws <= _NUMBERS_KEPT else _new_samples(n, draws, seed)


@lru_cache(maxsize=8)
def _kept_samples(n: int, draws: int, seed: int) -> tuple[_Numbers, ...]:
    return tuple(_new_samples(n, draws, seed))


def _new_samples(n: int, draws: int, seed: int) -> Iterator[_Numbers]:
    generator = np.random.RandomState(seed)
    at_once = max(1, _NUMBERS_AT_ONCE // n)
    for start in range(0, draws, at_once):
        yield _drawn(generator, n, (min(at_once, draws - start), n))


def _flips(n: int, draws: int, seed: int) -> Iterable[_Numbers]:
    """Which of n signs each draw turns, some draws at a time; all lengths take them from one row of numbers."""
    if n * draws > _NUMBERS_AT_ONCE:
        generator = np.random.RandomState(seed)
        at_once = max(1, _NUMBERS_AT_ONCE // n)
        return (_drawn(generator, 2, (min(at_once, draws - start), n)) for start in range(0, draws, at_once))
    # Comparisons ask again and again, for other lengths: rounded up, most of them share what is kept.
    return (_kept_flips(1 << (n * draws - 1).bit_length(), seed)[: n * draws].reshape(draws, n),)


@lru_cache(maxsize=8)
def _kept_flips(count: int, seed: int) -> _Numbers:
    return _drawn(np.random.RandomState(seed), 2, (1, count))[0].astype(np.int8)


def _drawn(generator: np.random.RandomState, below: int, shape: tuple[int, int]) -> _Numbers:
    """Whole numbers from 0 to below - 1.

    The remainders of the Mersenne twister's raw numbers, as ``torch.randint`` draws them: intervals and p-values stay
    those that were once published with it.
    """
    return generator.randint(0, 1 << 32, size=shape, dtype=np.uint32) % np.uint32(below)
