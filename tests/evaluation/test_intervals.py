"""Bootstrap intervals: against theory, and the same everywhere."""

import itertools
import math
import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from instructedit.evaluation import intervals
from instructedit.evaluation.intervals import estimate, holm, sign_flip_p


@pytest.mark.parametrize("level, z", [(0.95, 1.96), (0.68, 0.994)])
def test_near_the_normal_interval_for_many_values(level: float, z: float) -> None:
    values = [1.0] * 300 + [0.0] * 100
    found = estimate(values, level=level, draws=4000)
    half = z * math.sqrt(0.75 * 0.25 / 400)
    assert (found.mean, found.n) == (0.75, 400)
    assert found.low == pytest.approx(0.75 - half, abs=0.15 * half)
    assert found.high == pytest.approx(0.75 + half, abs=0.15 * half)


def test_covers_the_true_mean_about_as_often_as_it_says() -> None:
    drawing = random.Random(0)
    covered = 0
    for trial in range(300):
        found = estimate([drawing.random() for _ in range(40)], draws=400, seed=trial)
        covered += found.low <= 0.5 <= found.high
    assert 0.90 <= covered / 300 <= 0.98


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_holds_the_mean_and_does_not_depend_on_the_order(values: list[float], shuffler: random.Random) -> None:
    found = estimate(values, draws=50)
    assert min(values) - 1e-12 <= found.low <= found.high <= max(values) + 1e-12
    shuffled = values[:]
    shuffler.shuffle(shuffled)
    assert estimate(shuffled, draws=50) == found


def test_seed_and_draws_count() -> None:
    values = [n / 20 for n in range(20)]
    assert estimate(values, seed=1) == estimate(values, seed=1)
    assert estimate(values, seed=1) != estimate(values, seed=2)
    assert estimate(values, draws=10) != estimate(values, draws=20)


def test_drawing_in_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [n / 7 for n in range(7)]
    whole = estimate(values, draws=101)
    monkeypatch.setattr(intervals, "_NUMBERS_AT_ONCE", 30)
    intervals._kept_samples.cache_clear()
    assert estimate(values, draws=101) == whole
    assert len(intervals._kept_samples(7, 101, 0)) == 26
    monkeypatch.setattr(intervals, "_NUMBERS_KEPT", 0)
    assert estimate(values, draws=101) == whole


def test_the_numbers_are_those_that_torch_once_drew() -> None:
    values = [0.25, 0.5, 1.0, 0.0, 0.75, 0.125, 0.625]
    generator = torch.Generator().manual_seed(3)
    sample = torch.tensor(sorted(values), dtype=torch.float64)
    means = sample[torch.randint(len(sample), (2000, len(sample)), generator=generator)].mean(1)
    low, high = means.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    found = estimate(values, seed=3)
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-14)


def test_one_value_and_none() -> None:
    found = estimate([0.25])
    assert (found.mean, found.low, found.high, found.n) == (0.25, 0.25, 0.25, 1)
    with pytest.raises(ValueError, match="at least one"):
        estimate([])
    with pytest.raises(ValueError, match="between 0 and 1"):
        estimate([1.0], level=95)


def every_pattern(differences: list[float]) -> float:
    """The definition, written out: the share of all sign patterns whose sum is as far from 0."""
    sums = [abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in patterns(len(differences))]
    return sum(each >= abs(sum(differences)) - 1e-9 for each in sums) / len(sums)


def patterns(n: int) -> list[tuple[int, ...]]:
    return list(itertools.product((1, -1), repeat=n))


@pytest.mark.parametrize("differences", [[1.0], [0.5, 0.5, 0.5], [0.3, -0.1, 0.2, 0.25, -0.4], [1 / 3, 2 / 3, -1 / 3]])
def test_few_pairs_count_every_pattern_of_signs(differences: list[float]) -> None:
    assert sign_flip_p(differences) == pytest.approx(every_pattern(differences))
    assert sign_flip_p([*differences, 0.0, 0.0]) == sign_flip_p(differences), "a tie says nothing"
    assert sign_flip_p([-value for value in differences]) == sign_flip_p(differences)


def test_known_p_values() -> None:
    assert sign_flip_p([1.0] * 5) == 2 / 32
    assert sign_flip_p([0.0] * 40) == 1.0
    assert sign_flip_p([1.0] * 40, draws=999) == 1 / 1000, "never 0: what was observed is one of the patterns"


def test_drawn_patterns_agree_with_all_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    differences = [0.9, 0.4, -0.3, 0.5, 0.8, -0.2, 0.6, 0.1, -0.7, 0.35]
    exact = sign_flip_p(differences)
    monkeypatch.setattr(intervals, "EXACT_PAIRS", 3)
    drawn = sign_flip_p(differences, draws=20_000)
    assert drawn == pytest.approx(exact, abs=0.01) and drawn != exact
    assert sign_flip_p(differences, draws=20_000) == drawn != sign_flip_p(differences, draws=20_000, seed=1)
    monkeypatch.setattr(intervals, "_NUMBERS_AT_ONCE", 64)
    assert sign_flip_p(differences, draws=20_000) == drawn, "in pieces they are the same patterns"


def test_chance_alone_gives_p_below_a_level_about_that_often() -> None:
    drawing = random.Random(0)
    found = [sign_flip_p([drawing.gauss(0, 1) for _ in range(20)], draws=199, seed=trial) for trial in range(300)]
    assert 0.02 <= sum(p <= 0.05 for p in found) / 300 <= 0.08
    assert 0.42 <= sum(p <= 0.5 for p in found) / 300 <= 0.58


def test_no_differences_have_no_p() -> None:
    with pytest.raises(ValueError, match="at least one"):
        sign_flip_p([])


def test_holm_corrects_as_its_paper_does() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.6]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2] and holm([]) == []
