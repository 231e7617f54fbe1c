"""Which run comes first, by metrics of either direction, with ties and gaps."""

import pytest

from instructedit.comparison.curves import CurveTable, smoothed, thinned
from instructedit.comparison.ranking import choose, lower_is_better, rank, value_of, variant_of
from instructedit.comparison.runs import Cell, ComparedRun, Curve, cell_of
from instructedit.errors import InputError


def run(name: str, **curves: list[float]) -> ComparedRun:
    made = {key.replace("_", "/", 1): Curve(range(1, 1 + len(found)), found) for key, found in curves.items()}
    return ComparedRun(name, name, curves=made)


def test_higher_is_better_ties_share_a_place_and_gaps_come_last() -> None:
    runs = [run("none"), run("b", val_score=[1.0, 70.001, 5.0]), run("a", val_score=[90.0]), run("c", val_score=[70.0])]
    found = [(each.run.name, each.place, each.tied) for each in rank(runs, "val/score")]
    assert found == [("a", 1, False), ("b", 2, True), ("c", 2, True), ("none", None, False)]


def test_losses_rank_the_other_way_by_the_mean_of_their_last_steps() -> None:
    runs = [run("a", train_loss=[9.0] * 38 + [1.0, 3.0]), run("b", train_loss=[0.0] * 38 + [1.0, 1.5])]
    assert value_of(runs[0], "train/loss") == (2.0, None, None)
    assert [each.run.name for each in rank(runs, "train/loss")] == ["b", "a"]


@pytest.mark.parametrize(
    ("metric", "lower"),
    [
        ("val/score", False),
        ("val/zsre/locality", False),
        ("test/zsre/reliability_exact", False),
        ("train/zsre/locality", True),
        ("train/zsre/reliability", False),
        ("train/zsre/kept", False),
        ("train/loss", True),
        ("throughput/seconds_per_step", True),
        ("throughput/edits_per_second", False),
        ("throughput/memory_gib", True),
        ("device_hours", True),
    ],
)
def test_the_direction_is_known(metric: str, lower: bool) -> None:
    assert lower_is_better(metric) is lower


def test_other_validation_metrics_are_those_of_the_best_score() -> None:
    made = run("a", val_score=[1.0, 3.0, 2.0], val_other=[10.0, 20.0, 30.0])
    assert value_of(made, "val/other") == (20.0, None, None)


def test_test_metrics_have_intervals_and_rows_of_their_own() -> None:
    cells = {
        ("zsre", "Base", "reliability"): Cell(0.1),
        ("zsre", "X (seen)", "reliability"): Cell(0.5, 0.4, 0.6, 10),
        ("zsre", "X (unseen)", "reliability"): Cell(0.3),
        ("zsre", "X (seen)", "fluency"): Cell(600.0),
    }
    made = ComparedRun("a", "a", cells=cells)
    assert value_of(made, "test/zsre/reliability") == (50.0, 40.0, 60.0)
    assert value_of(made, "test/unseen/zsre/reliability") == (30.0, None, None)
    assert value_of(made, "test/Base/zsre/reliability") == (10.0, None, None)
    assert value_of(made, "test/zsre/fluency") == (600.0, None, None)
    assert value_of(made, "test/recent/reliability") is None
    assert choose([made], None) == "test/zsre/reliability"
    assert variant_of("test/zsre/locality_greedy_exact") == "greedy_exact" and variant_of("val/x_exact") == ""
    assert cell_of("test/X (seen)/zsre/reliability", 0.5) == (("zsre", "X (seen)", "reliability"), Cell(0.5))
    assert cell_of("test/X/zsre/reliability", float("nan")) is None and cell_of("val/score", 1.0) is None


def test_an_unknown_metric_names_near_ones() -> None:
    with pytest.raises(InputError, match=r"'val/scor'\. Did you mean 'val/score'\? Known: val/score\."):
        choose([run("a", val_score=[1.0])], "val/scor")
    with pytest.raises(InputError, match="has metrics yet"):
        choose([run("a")], None)


def test_smoothing_is_a_mean_of_neighbours_and_thinning_keeps_the_ends() -> None:
    curve = Curve(range(100), [float(n % 2) for n in range(100)])
    smooth = smoothed(curve)
    assert smooth.values[50] == pytest.approx(0.4) and smooth.values[0] == pytest.approx(1 / 3)
    assert [thinned(curve, 10).steps[place] for place in (0, 1, -1)] == [0, 10, 99]
    assert thinned(Curve([1, 2], [3.0, 4.0]), 10) == Curve([1, 2], [3.0, 4.0])


def test_values_that_are_no_numbers_are_left_out() -> None:
    table = CurveTable([1, 2, 3, 4], {"a": ["1", "", "nan", "x"]})
    assert table["a"] == Curve([1], [1.0])
