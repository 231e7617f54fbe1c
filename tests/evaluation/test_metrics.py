"""The metrics on hand-made tokens."""

import math

import pytest

from instructedit.evaluation.metrics import (
    METRICS,
    NAMES,
    UNITS,
    VARIANTS,
    VARIED,
    begins_with,
    exact,
    hits,
    mean,
    named,
    share,
    success,
)


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


def test_names_are_every_variant_of_the_first_four_and_the_other_metrics_once() -> None:
    assert NAMES[:5] == (
        "reliability",
        "reliability_exact",
        "reliability_greedy",
        "reliability_greedy_exact",
        "generalization",
    )
    assert NAMES[-2:] == ("success", "fluency")
    assert len(set(NAMES)) == len(NAMES) == 4 * len(VARIED) + 2
    assert {named(metric, variant) for metric in VARIED for variant in VARIANTS} <= set(NAMES)
    assert list(UNITS) == list(METRICS)
    assert [metric for metric in METRICS if UNITS[metric] != "share"] == ["fluency"]


@pytest.mark.parametrize(
    "text, answer",
    [
        (" Paris, of course", "Paris"),
        ("\n PARIS", "paris"),
        ("New\n  York is", "new york"),
        ("Paris's mayor", "Paris"),
        ("U.S.A", "U.S."),
        ("Straße 5", "STRASSE"),
        ("C++ and", "C++"),
        ("a.b", "a.b"),
    ],
)
def test_an_answer_at_the_beginning_counts_in_any_case_and_spacing(text: str, answer: str) -> None:
    assert begins_with(text, answer)


@pytest.mark.parametrize(
    "text, answer",
    [
        ("Parisian", "Paris"),
        ("1990s", "1990"),
        ("in Paris", "Paris"),
        ('"Paris"', "Paris"),
        ("Par", "Paris"),
        ("", "Paris"),
        ("axb", "a.b"),
        ("NewYork", "New York"),
    ],
)
def test_another_word_or_a_later_place_does_not_count(text: str, answer: str) -> None:
    assert not begins_with(text, answer)
