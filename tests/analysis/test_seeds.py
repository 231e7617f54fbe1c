"""Intervals over seeds and records: against the truth of synthetic runs."""

import dataclasses
from collections.abc import Iterable

import numpy as np
import pytest

from instructedit.analysis import seeds
from instructedit.analysis.seeds import Pooled, difference, difference_over, pooled, pooled_over
from instructedit.evaluation.intervals import estimate
from instructedit.records import Outcome


def run(values: Iterable[float], row: str = "A", task: str = "recent", metric: str = "reliability") -> list[Outcome]:
    return [Outcome(f"{task}-{n}", task, row, metric, float(value)) for n, value in enumerate(values)]


def given(found: Pooled | None) -> Pooled:
    assert found is not None
    return found


def synthetic(
    random: np.random.RandomState, n_seeds: int, n: int, of_seeds: float, of_records: float = 0.2, task: str = "recent"
) -> list[list[Outcome]]:
    """Runs with true mean 0.5: records differ, seeds differ, and each record of each seed a little."""
    records = random.normal(0, of_records, n)
    return [
        run(0.5 + records + random.normal(0, of_seeds) + random.normal(0, 0.05, n), task=task) for _ in range(n_seeds)
    ]


def test_one_seed_has_the_interval_of_its_records() -> None:
    values = [0.0, 1.0, 1.0, 0.5, 0.25]
    found = given(pooled([run(values)], "recent", "reliability", "A"))
    wanted = estimate(values)
    assert (found.mean, found.low, found.high) == (wanted.mean, wanted.low, wanted.high)
    assert (found.n_records, found.n_seeds, found.tasks) == (5, 1, ("recent",))


def test_the_mean_is_of_seeds_over_the_records_that_all_have() -> None:
    runs = [run([1.0, 0.0, 1.0]), run([0.0, 0.0])]
    found = given(pooled(runs, "recent", "reliability", "A"))
    assert (found.mean, found.n_records, found.n_seeds) == (0.25, 2, 2)


def test_wider_than_records_alone_exactly_when_seeds_differ() -> None:
    values = np.random.RandomState(0).uniform(0.3, 0.7, 100)
    same = given(pooled([run(values)] * 3, "recent", "reliability", "A"))
    apart = given(pooled([run(values - 0.1), run(values), run(values + 0.1)], "recent", "reliability", "A"))
    alone = estimate(values.tolist())
    assert same.high - same.low == pytest.approx(alone.high - alone.low, rel=0.1)
    assert apart.mean == pytest.approx(same.mean)
    assert apart.high - apart.low > 3 * (same.high - same.low)


@pytest.mark.slow
@pytest.mark.parametrize(
    "n_seeds, of_seeds, most",
    # Two seeds, or seeds that hardly differ, are covered more often than said: on the safe side.
    [(2, 0.05, 1.0), (3, 0.0, 1.0), (3, 0.05, 0.985), (3, 0.2, 0.985), (5, 0.1, 0.985)],
)
def test_covers_the_true_mean_about_as_often_as_it_says(n_seeds: int, of_seeds: float, most: float) -> None:
    random = np.random.RandomState(1)
    covered = 0
    for trial in range(300):
        runs = synthetic(random, n_seeds, 60, of_seeds, of_records=0.1)
        found = given(pooled(runs, "recent", "reliability", "A", draws=400, seed=trial))
        covered += found.low <= 0.5 <= found.high
    assert 0.93 <= covered / 300 <= most, covered / 300


def test_plain_percentiles_of_three_seeds_cover_too_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seeds, "_stretch", lambda k: 1.0)
    random = np.random.RandomState(1)
    covered = 0
    for trial in range(300):
        found = given(pooled(synthetic(random, 3, 60, 0.2), "recent", "reliability", "A", draws=400, seed=trial))
        covered += found.low <= 0.5 <= found.high
    assert covered / 300 < 0.85


def test_a_difference_is_paired_by_record() -> None:
    values = np.random.RandomState(0).uniform(0, 0.9, 100)
    found = given(difference([run(values + 0.1, "A")], [run(values, "B")], "recent", "reliability", "A", "B"))
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))
    assert found.excludes_zero and found.n_seeds == 1


def test_as_many_seeds_are_paired_by_place_and_others_drawn_apart() -> None:
    values = np.random.RandomState(0).uniform(0.2, 0.7, 100)
    a = [run(values + shift + 0.1, "A") for shift in (-0.1, 0.0, 0.1)]
    b = [run(values + shift, "B") for shift in (-0.1, 0.0, 0.1)]
    paired = given(difference(a, b, "recent", "reliability", "A", "B"))
    assert (paired.low, paired.high) == pytest.approx((0.1, 0.1))
    against_one = given(difference(a, b[1:2], "recent", "reliability", "A", "B"))
    assert against_one.mean == pytest.approx(0.1)
    # The seeds of a alone are left to vary; of b's chance nothing is known.
    assert against_one.high - against_one.low > 0.2
    assert (paired.n_seeds, against_one.n_seeds) == (3, 1)
    both = given(difference(a, [*b, run(values, "B")], "recent", "reliability", "A", "B"))
    assert both.high - both.low > against_one.high - against_one.low
    assert both.n_seeds == 3


def test_two_rows_of_the_same_runs() -> None:
    runs = [[*run([1.0, 0.5], "A (seen)"), *run([0.5, 0.5], "A (empty)")] for _ in range(2)]
    found = given(difference(runs, runs, "recent", "reliability", "A (seen)", "A (empty)"))
    assert (found.mean, found.n_seeds) == (0.25, 2)


@pytest.mark.slow
@pytest.mark.parametrize("n_seeds", [1, 3])
def test_differences_cover_too(n_seeds: int) -> None:
    random = np.random.RandomState(2)
    covered = 0
    for trial in range(200):
        a = synthetic(random, 3, 50, 0.05)
        b = synthetic(random, n_seeds, 50, 0.0 if n_seeds == 1 else 0.05)
        found = given(difference(a, b, "recent", "reliability", "A", "A", draws=400, seed=trial))
        covered += found.low <= 0.0 <= found.high
    assert covered / 200 >= 0.93, covered / 200


def test_tasks_have_the_same_weight_however_many_records() -> None:
    runs = [[*run([1.0] * 90, task="recent"), *run([0.0] * 10, task="convsent")] for _ in range(2)]
    found = given(pooled_over(runs, ("recent", "convsent", "zsre"), "reliability", "A"))
    assert (found.mean, found.n_records, found.tasks) == (0.5, 100, ("recent", "convsent"))
    gain = given(difference_over(runs, runs[:1], ("recent", "convsent"), "reliability", "A", "A"))
    assert (gain.mean, gain.low, gain.high) == (0.0, 0.0, 0.0)


def test_the_same_rows_do_not_differ_by_rounding() -> None:
    a = synthetic(np.random.RandomState(0), 3, 30, 0.0)
    same = [[dataclasses.replace(outcome, method="B") for outcome in run] for run in a]
    found = given(difference(a, same, "recent", "reliability", "A", "B"))
    assert (found.mean, found.low, found.high, found.excludes_zero) == (0.0, 0.0, 0.0, False)
    apart = given(difference([a[0], a[0]], same[:1], "recent", "reliability", "A", "B"))
    assert (apart.mean, apart.low, apart.high, apart.excludes_zero) == (0.0, 0.0, 0.0, False)


def test_a_mean_over_tasks_covers_with_the_same_seeds_for_all_tasks() -> None:
    random = np.random.RandomState(3)
    covered = 0
    for trial in range(200):
        shifts = random.normal(0, 0.05, 3)
        tasks = [[run(0.5 + random.normal(0, 0.2, 50) + shift, task=task) for shift in shifts] for task in ("a", "b")]
        runs = [[*first, *second] for first, second in zip(*tasks, strict=True)]
        found = given(pooled_over(runs, ("a", "b"), "reliability", "A", draws=400, seed=trial))
        covered += found.low <= 0.5 <= found.high
    assert covered / 200 >= 0.93, covered / 200


def test_nothing_to_average_is_none() -> None:
    runs = [run([1.0, 0.0])]
    assert pooled([], "recent", "reliability", "A") is None
    assert pooled(runs, "recent", "generalization", "A") is None
    assert pooled(runs, "recent", "reliability", "B") is None
    assert pooled_over(runs, (), "reliability", "A") is None
    assert difference(runs, [], "recent", "reliability", "A", "A") is None
    assert difference(runs, [run([1.0], task="zsre")], "recent", "reliability", "A", "A") is None


def test_shares_stay_shares_and_entropies_do_not_end_at_one() -> None:
    apart = [run([0.9] * 10), run([1.0] * 10)]
    found = given(pooled(apart, "recent", "reliability", "A"))
    assert found.high == 1.0 and found.low < 0.9
    entropies = [run([500.0] * 10, metric="fluency"), run([600.0] * 10, metric="fluency")]
    assert given(pooled(entropies, "recent", "fluency", "A")).high > 600


def test_the_same_runs_in_any_order_of_records_give_the_same_interval() -> None:
    runs = synthetic(np.random.RandomState(0), 3, 30, 0.1)
    assert pooled(runs, "recent", "reliability", "A") == pooled(
        [each[::-1] for each in runs], "recent", "reliability", "A"
    )
    assert pooled(runs, "recent", "reliability", "A") != pooled(runs, "recent", "reliability", "A", seed=1)
