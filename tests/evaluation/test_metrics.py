"""The metrics on hand-made tokens."""

import pytest

from instructedit.evaluation.metrics import exact, hits, mean, share


def test_hits_compare_position_by_position() -> None:
    assert hits([5, 6, 7, 8], [5, 9, 7, 7]) == [True, False, True, False]
    with pytest.raises(ValueError):
        hits([5, 6], [5])


def test_share_and_exact() -> None:
    assert share([True, False, True, True]) == 0.75
    assert (exact([True, False, True, True]), exact([True, True]), exact([False])) == (0.0, 1.0, 0.0)


def test_probes_weigh_the_same_however_long_they_are() -> None:
    assert mean([share([True] * 9 + [False]), share([False])]) == pytest.approx(0.45)
