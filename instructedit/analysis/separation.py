"""How far groups of points lie apart, as numbers with bootstrap intervals, from their distances and cosines alone.

Knows tables of distances and cosines and the group of each point; nothing of gradients, editors or files.

The bootstrap draws each group's points anew with replacement, as many as there are; a point's multiplicity is its
weight. The pairwise statistics are taken of weighted points: a pair (i, j) counts w_i w_j times, and i is never j. So
the copies of a point in a draw are not one another's neighbours at distance 0, which would make every draw look better
separated than the data; the copies of another point are as many neighbours as they are drawn, which keeps the share of
the points that the nearest k are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from instructedit.tasks.choice import stable_hash

Numbers = np.ndarray[Any, np.dtype[np.float64]]

MEASURES = ("silhouette", "purity", "cosine_within", "cosine_between", "cosine_gap")
"""``silhouette``: Rousseeuw 1987, between -1 and 1, 0 where groups lie in each other. ``purity``: the share of a
point's k nearest that are of its group. ``cosine_within``, ``_between``: mean cosine of two different points of one
group, of two groups; every pair counts once. ``cosine_gap``: their difference."""


@dataclass(frozen=True)
class Interval:
    """A number and its 95 % interval."""

    value: float
    low: float
    high: float


class Resamples:
    """The weights of the points in each draw; the first draw is the data itself, every weight 1.

    Draws depend on the seed, the group's name and its size alone: two tables over the same points share them, so that
    differences can be taken draw by draw.

    Args:
        groups: (n,) the group of each point.
        draws: bootstrap samples; 0 gives no intervals.
        seed: of the drawing.
    """

    def __init__(self, groups: Sequence[str], draws: int = 1000, seed: int = 0) -> None:
        self.groups = tuple(groups)
        self.names = tuple(dict.fromkeys(groups))
        member = np.array([[group == name for name in self.names] for group in groups], dtype=np.float64)
        self.member: Numbers = member.reshape(len(self.groups), len(self.names))
        self.weights: Numbers = np.ones((len(self.groups), draws + 1))
        for name in self.names:
            places = [index for index, group in enumerate(self.groups) if group == name]
            generator = np.random.RandomState(stable_hash("resample", str(seed), name) % 2**32)
            drawn = generator.randint(0, len(places), size=(draws, len(places)))
            counts = np.stack([np.bincount(row, minlength=len(places)) for row in drawn]) if draws else np.empty((0,))
            if draws:
                self.weights[places, 1:] = counts.T

    @cached_property
    def chance(self) -> float:
        """The purity that groups give which are no groups: the mean share of the other points that are of one's own."""
        n = len(self.groups)
        sizes = self.member.sum(0)
        return float((sizes / n * (sizes - 1) / max(1, n - 1)).sum())


def separation(distances: Numbers, cosines: Numbers, resamples: Resamples, k: int = 10) -> dict[str, Numbers]:
    """Return every measure at every draw (draws + 1,), by name; the first one is the data's own.

    Args:
        distances: (n, n), 0 on the diagonal.
        cosines: (n, n); the diagonal is not read.
        resamples: the groups and the draws; two groups or more, each with two points or more.
        k: neighbours whose group is looked at; of fewer points all others.

    A draw in which a group is one point many times over has no distance within it: its points take no part in that
    draw's silhouette and cosines.
    """
    within, between = _cosines(cosines, resamples)
    return {
        "silhouette": _silhouette(distances, resamples),
        "purity": _purity(distances, resamples, k),
        "cosine_within": within,
        "cosine_between": between,
        "cosine_gap": within - between,
    }


def interval(draws: Numbers) -> Interval:
    """Return the data's own number and the percentile interval of the draws behind it (Efron and Tibshirani 1993)."""
    of_draws = draws[1:][np.isfinite(draws[1:])]
    low, high = np.quantile(of_draws, [0.025, 0.975]).tolist() if len(of_draws) else (float("nan"),) * 2
    return Interval(float(draws[0]), low, high)


def differences(a: Mapping[str, Numbers], b: Mapping[str, Numbers]) -> dict[str, Interval]:
    """Return a minus b for every measure, taken draw by draw; both must be over the same points and draws."""
    return {name: interval(a[name] - b[name]) for name in MEASURES}


def _silhouette(distances: Numbers, resamples: Resamples) -> Numbers:
    weights, member = resamples.weights, resamples.member
    n, groups, draws = len(weights), member.shape[1], weights.shape[1]
    # (n, groups, draws): how far each point is from each group's points, and from how many; its copies do not count.
    totals = np.empty((n, groups, draws))
    counts = np.empty((n, groups, draws))
    for group in range(groups):
        own = weights * member[:, group : group + 1]
        totals[:, group] = distances @ own
        counts[:, group] = own.sum(0) - own
    means = np.divide(totals, counts, out=np.full_like(totals, np.nan), where=counts > 0)
    mine = member.argmax(1)
    a = means[np.arange(n), mine]
    means[np.arange(n), mine] = np.nan
    b = np.fmin.reduce(means, axis=1)
    most = np.maximum(a, b)
    values = np.divide(b - a, most, out=np.zeros_like(a), where=most > 0)
    return _mean(np.where(np.isnan(a), np.nan, values), weights)


def _mean(values: Numbers, weights: Numbers) -> Numbers:
    """Average (n, draws) over points by weight, leaving out what is no number."""
    counted = np.where(np.isnan(values), 0.0, weights)
    total = counted.sum(0)
    found = (np.nan_to_num(values) * counted).sum(0)
    return np.divide(found, total, out=np.full_like(total, np.nan), where=total > 0)


def _purity(distances: Numbers, resamples: Resamples, k: int) -> Numbers:
    n = len(distances)
    k = min(k, n - 1)
    apart = distances.copy()
    np.fill_diagonal(apart, np.inf)
    # The sort is stable: of neighbours equally far the earlier one counts, on every machine. The last is the point.
    order = np.argsort(apart, axis=1, kind="stable")[:, :-1]
    mine = resamples.member.argmax(1)
    same = mine[order] == mine[:, None]
    shares = np.empty((n, resamples.weights.shape[1]))
    for point in range(n):
        shares[point] = _share(resamples.weights[order[point]], same[point], k)
    return _mean(shares, resamples.weights)


def _share(weights: Numbers, same: Numbers, k: int) -> Numbers:
    """Of the nearest k, copies counted, the share of the group; weights (m, draws) and same (m,), nearest first."""
    # Most draws have k neighbours among the nearest 4 k; the others need them all.
    near = min(len(weights), 4 * k)
    if near < len(weights) and (weights[:near].sum(0) < k).any():
        near = len(weights)
    before = weights[:near].cumsum(0)
    taken = np.clip(k - (before - weights[:near]), 0, weights[:near])
    total = taken.sum(0)
    return np.divide(same[:near] @ taken, total, out=np.full_like(total, np.nan), where=total > 0)


def _cosines(cosines: Numbers, resamples: Resamples) -> tuple[Numbers, Numbers]:
    """Mean cosine of pairs within groups and between them, each (draws,)."""
    weights, member = resamples.weights, resamples.member
    apart = cosines.copy()
    np.fill_diagonal(apart, 0)
    within, n_within = np.zeros(weights.shape[1]), np.zeros(weights.shape[1])
    for group in range(member.shape[1]):
        own = weights * member[:, group : group + 1]
        within += (own * (apart @ own)).sum(0)
        n_within += own.sum(0) ** 2 - (own**2).sum(0)
    everything = (weights * (apart @ weights)).sum(0)
    n_everything = weights.sum(0) ** 2 - (weights**2).sum(0)

    def share(sums: Numbers, counts: Numbers) -> Numbers:
        return np.divide(sums, counts, out=np.full_like(sums, np.nan), where=counts > 0)

    return share(within, n_within), share(everything - within, n_everything - n_within)
