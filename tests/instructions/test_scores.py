"""The best ten and a round's gain: nothing is won by choosing among equals, and what is better is told so."""

import math

import numpy as np
import pytest

from instructedit.instructions.scores import Scores, best, gain, intervals, means

OLD = [f"old {n}" for n in range(10)]
NEW = [f"new {n}" for n in range(10)]


def tables(seed: int, better: float = 0.0, seeds: int = 2, records: int = 16, taste: float = 0.0) -> list[Scores]:
    """Scores of noise over seeds and records; new ones are better by a number, each by a taste of its own."""
    draw = np.random.default_rng(seed)
    hard = draw.normal(0.5, 0.2, records)  # records differ in how hard they are
    lucky = draw.normal(0, 0.05, seeds)  # and editors in how good
    own = {text: draw.normal(0, taste) + (better if text in NEW else 0.0) for text in OLD + NEW}
    return [
        {
            text: {
                "score": {f"r{r}": float(hard[r] + lucky[s] + own[text] + draw.normal(0, 0.05)) for r in range(records)}
            }
            for text in OLD + NEW
        }
        for s in range(seeds)
    ]


def test_among_equals_no_gain_is_told() -> None:
    found = [gain(tables(seed), OLD, 10) for seed in range(200)]
    told = sum(each.told for each in found) / len(found)
    assert told <= 0.05
    # Choosing the best by what they are compared on, all of them would look like gains.
    naive = []
    for seed in range(20):
        table = tables(seed)
        values = means(table)
        chosen = best(table, OLD, 10)
        naive.append(np.mean([values[t]["score"] for t in chosen]) - np.mean([values[t]["score"] for t in OLD]))
    assert min(naive) > 0
    assert abs(np.mean([each.mean for each in found])) < 0.1 * np.mean(naive)


def test_what_is_better_is_told_as_a_gain_of_its_size() -> None:
    found = [gain(tables(seed, better=0.08), OLD, 10) for seed in range(50)]
    assert sum(each.told for each in found) >= 45
    assert np.mean([each.mean for each in found]) == pytest.approx(0.08, abs=0.01)


def test_seeds_that_disagree_make_noise() -> None:
    one, other = tables(0, better=0.2, seeds=1)[0], tables(1, better=-0.15, seeds=1)[0]
    assert not gain([one, other], OLD, 10).told


def test_one_seed_says_nothing_about_the_noise() -> None:
    found = gain(tables(0, better=0.5, seeds=1), OLD, 10)
    assert found.mean > 0.4 and found.noise == math.inf and not found.told


def test_more_seeds_make_less_noise() -> None:
    few, many = ([gain(tables(seed, 0.05, seeds=n, taste=0.02), OLD, 10).noise for seed in range(20)] for n in (2, 6))
    assert np.mean(many) < np.mean(few)


def test_the_best_come_first_and_of_equals_the_old_ones() -> None:
    table = tables(3, better=1.0)
    assert set(best(table, OLD, 10)) == set(NEW)
    values = means(table)
    chosen = [values[text]["score"] for text in best(table, OLD, 20)]
    assert chosen == sorted(chosen, reverse=True)
    flat: Scores = {text: {"score": {"a": 0.5, "b": 0.5}} for text in NEW + OLD}
    assert set(best([flat, flat], OLD, 10)) == set(OLD)
    nothing = gain([flat, flat], OLD, 10)
    assert (nothing.mean, nothing.noise, nothing.told) == (0, 0, False)


def test_intervals_are_over_records() -> None:
    table: list[Scores] = [{"a": {"score": {"x": 0.0, "y": 1.0}}}, {"a": {"score": {"x": 0.5, "y": 1.0}}}]
    found = intervals(table, "a")["score"]
    assert (found.mean, found.n) == (0.625, 2) and found.low == 0.25 and found.high == 1.0
