"""The metrics on hand-made tokens."""

import math

import pytest

from instructedit.evaluation.metrics import exact, hits, mean, share, success


def test_hits_compare_position_by_position() -> None:
    assert hits([5, 6, 7, 8], [5, 9, 7, 7]) == [True, False, True, False]
    with pytest.raises(ValueError):
        hits([5, 6], [5])


def test_share_and_exact() -> None:
    assert share([True, False, True, True]) == 0.75
    assert (exact([True, False, True, True]), exact([True, True]), exact([False])) == (0.0, 1.0, 0.0)


def test_probes_weigh_the_same_however_long_they_are() -> None:
    assert mean([share([True] * 9 + [False]), share([False])]) == pytest.approx(0.45)


def test_success_is_side_times_topic() -> None:
    assert success(-2.0, -2.0, -2.0) == 0.5
    assert success(-1.0, -3.0, -4.0) == pytest.approx(1 / (1 + math.exp(-2)))
    assert success(-3.0, -1.0, -2.0) == pytest.approx(math.exp(-2) / (1 + math.exp(-2)) * math.exp(-1))
    assert success(-1.0, -9000.0, -1.0) == 1.0
    assert success(-9000.0, -1.0, -1.0) == 0.0
