"""From scores of descriptions to the best ten, and to a round's gain with the noise it has to exceed.

Knows numbers by description, metric and record, one table a seed; nothing of editors or servers.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from instructedit.evaluation.intervals import Estimate, estimate
from instructedit.tasks.choice import stable_hash

Scores = dict[str, dict[str, dict[str, float]]]
"""Description, then metric (``score`` among them), then record id: one trial's values between 0 and 1."""

SCORE = "score"

_T_QUANTILES = {1: 12.71, 2: 4.31, 3: 3.19, 4: 2.78, 5: 2.58, 6: 2.45, 7: 2.37, 8: 2.31, 9: 2.27, 10: 2.23}
_T_QUANTILES |= {12: 2.18, 15: 2.14, 20: 2.09, 30: 2.05, 60: 2.01, 120: 1.98}
"""Student's t at 97.5 % by degrees of freedom, rounded up; between two, the lower one's counts."""


@dataclass(frozen=True)
class Gain:
    """How much better the new ten are than the old ten, measured on the same trial editors and records.

    The new ten are chosen by their scores, and the best of many equal ones always look better than the rest. So this
    is cross-fitted: for each seed and each half of the records, ten are chosen on the *other* seeds and the *other*
    half, and compared with the old ten where they were not chosen. The mean of that is no larger by the choosing.

    Args:
        mean: of the score, between -1 and 1.
        noise: half the width of its 95 % interval over seeds and records: Student's t, with Satterthwaite's degrees of
            freedom, times the root of the variance of the seeds' means over the number of seeds plus the same of
            the records'. Infinite for one seed.
        n_seeds: editors.
        n_records: records.
    """

    mean: float
    noise: float
    n_seeds: int
    n_records: int

    @property
    def told(self) -> bool:
        """Whether the gain exceeds its noise and may be reported as one."""
        return self.mean > self.noise


def means(trials: Sequence[Scores]) -> dict[str, dict[str, float]]:
    """Average over seeds and records: by description, by metric."""
    return {
        text: {
            metric: fmean(value for trial in trials for value in trial[text][metric].values())
            for metric in trials[0][text]
        }
        for text in trials[0]
    }


def intervals(trials: Sequence[Scores], text: str) -> dict[str, Estimate]:
    """Return a description's mean by metric with its bootstrap interval over records, each averaged over the seeds."""
    return {
        metric: estimate([fmean(trial[text][metric][id] for trial in trials) for id in values])
        for metric, values in trials[0][text].items()
    }


def best(trials: Sequence[Scores], before: Sequence[str], size: int, only: Sequence[str] | None = None) -> list[str]:
    """Return the ``size`` descriptions of the highest mean score, best first; of equals those from before.

    Args:
        trials: one table for each seed.
        before: the old descriptions.
        size: how many.
        only: choose among these; None is all.
    """
    records = list(_records(trials))
    order = _chosen(trials, list(range(len(trials))), records, before, len(trials[0]))
    return [text for text in order if only is None or text in only][:size]


def gain(trials: Sequence[Scores], before: Sequence[str], size: int) -> Gain:
    """Estimate the gain of choosing the best ``size`` over keeping those before; see `Gain`.

    Args:
        trials: one table for each seed; all of the same descriptions and records, 2 records or more.
        before: the old descriptions, all in the tables.
        size: how many are chosen.
    """
    records, seeds = _records(trials), range(len(trials))
    halves = [records[0::2], records[1::2]]
    differences: list[list[float]] = []
    for seed in seeds:
        others = [other for other in seeds if other != seed] or [seed]
        own: dict[str, float] = {}
        for half, rest in (halves, halves[::-1]):
            new = _chosen(trials, others, rest, before, size)
            for id in half:
                own[id] = _mean_at(trials[seed], new, id) - _mean_at(trials[seed], before, id)
        differences.append([own[id] for id in records])
    by_seed = [fmean(row) for row in differences]
    by_record = [fmean(column) for column in zip(*differences, strict=True)]
    return Gain(fmean(by_seed), _noise(by_seed, by_record), len(trials), len(records))


def _noise(by_seed: Sequence[float], by_record: Sequence[float]) -> float:
    if len(by_seed) < 2:
        return math.inf
    parts = [(variance(values) / len(values), len(values) - 1) for values in (by_seed, by_record)]
    whole = sum(part for part, _ in parts)
    if whole == 0:
        return 0.0
    freedom = whole**2 / sum(part**2 / degrees for part, degrees in parts)
    quantile = _T_QUANTILES[max(degrees for degrees in _T_QUANTILES if degrees <= max(1.0, freedom + 1e-9))]
    return quantile * math.sqrt(whole)


def _records(trials: Sequence[Scores]) -> list[str]:
    """Record ids in an order that has nothing to do with what is in them."""
    first = next(iter(trials[0].values()))
    return sorted(first[SCORE], key=lambda id: stable_hash("half", id))


def _chosen(
    trials: Sequence[Scores], seeds: Sequence[int], records: Sequence[str], before: Sequence[str], size: int
) -> list[str]:
    known = set(before)

    def place(text: str) -> tuple[float, bool, int]:
        mean = fmean(trials[seed][text][SCORE][id] for seed in seeds for id in records)
        return -round(mean, 9), text not in known, stable_hash("tie", text)

    return sorted(trials[0], key=place)[:size]


def _mean_at(trial: Scores, texts: Sequence[str], id: str) -> float:
    return fmean(trial[text][SCORE][id] for text in texts)


def told_gain(found: Gain) -> str:
    """Say a gain where it may be said, in points of the mean score.

    >>> told_gain(Gain(0.021, 0.011, 2, 16))
    'gain of 2.1 points (noise 1.1, 2 seeds, 16 records)'
    >>> told_gain(Gain(0.021, 0.03, 2, 16))
    'no gain beyond the noise of 3.0 points (2 seeds, 16 records)'
    """
    if found.n_seeds < 2:
        return "no gain can be told from one seed; set trial.seeds to 2 or more"
    if found.told:
        return f"gain of {100 * found.mean:.1f} points (noise {100 * found.noise:.1f}, {_of(found)})"
    return f"no gain beyond the noise of {100 * found.noise:.1f} points ({_of(found)})"


def _of(found: Gain) -> str:
    return f"{found.n_seeds} seeds, {found.n_records} records"
