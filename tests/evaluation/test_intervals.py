"""Bootstrap intervals: against theory, and the same everywhere."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructedit.evaluation import intervals
from instructedit.evaluation.intervals import estimate


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
    assert estimate(values, draws=101) == whole


def test_one_value_and_none() -> None:
    found = estimate([0.25])
    assert (found.mean, found.low, found.high, found.n) == (0.25, 0.25, 0.25, 1)
    with pytest.raises(ValueError, match="at least one"):
        estimate([])
    with pytest.raises(ValueError, match="between 0 and 1"):
        estimate([1.0], level=95)
