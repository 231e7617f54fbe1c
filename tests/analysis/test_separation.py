"""Separation against scikit-learn and plain loops, on planted groups and on none, and what its intervals cover."""

import numpy as np
import pytest

from instructedit.analysis.separation import MEASURES, Numbers, Resamples, differences, interval, separation
from tests.analysis.planted import cosines, distances, groups


def measured(points: Numbers, names: list[str], k: int = 10, draws: int = 200, seed: int = 0) -> dict[str, Numbers]:
    return separation(distances(points), cosines(points), Resamples(names, draws, seed), k)


def plainly(points: Numbers, names: list[str], k: int) -> dict[str, float]:
    """The measures of points as the definitions read, each copy of a point told by its place; pair by pair."""
    n = len(points)
    apart, alike = distances(points), cosines(points)
    shares = []
    within, between = [], []
    for i in range(n):
        near = sorted((j for j in range(n) if j != i), key=lambda j: (apart[i, j], j))[:k]
        shares.append(np.mean([names[j] == names[i] for j in near]))
        for j in range(n):
            if i != j:
                (within if names[i] == names[j] else between).append(alike[i, j])
    return {
        "purity": float(np.mean(shares)),
        "cosine_within": float(np.mean(within)),
        "cosine_between": float(np.mean(between)),
        "cosine_gap": float(np.mean(within) - np.mean(between)),
    }


@pytest.mark.parametrize("apart", [0.0, 1.5, 8.0])
@pytest.mark.parametrize("k", [1, 7, 500])
def test_the_numbers_are_what_their_definitions_say(apart: float, k: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    points, names = groups(apart)
    found = {name: float(draws[0]) for name, draws in measured(points, names, k, draws=0).items()}
    wanted = plainly(points, names, k) | {"silhouette": float(metrics.silhouette_score(points, names))}
    assert set(found) == set(MEASURES) == set(wanted)
    for name, value in wanted.items():
        assert found[name] == pytest.approx(value, abs=1e-9), name


def test_planted_groups_are_seen_and_none_are_not() -> None:
    points, names = groups(8.0)
    found = {name: interval(draws) for name, draws in measured(points, names).items()}
    chance = Resamples(names).chance
    assert found["silhouette"].low > 0.4 and found["purity"].low > 0.95 > 0.5 > chance
    assert found["cosine_gap"].low > 0.5
    points, names = groups(0.0)
    found = {name: interval(draws) for name, draws in measured(points, names).items()}
    assert found["silhouette"].high < 0.05
    assert found["purity"].low < chance < found["purity"].high
    assert found["cosine_gap"].low < 0 < found["cosine_gap"].high
    assert chance == pytest.approx((30 * 29 + 20 * 19 + 25 * 24) / (75 * 74))


def test_the_copies_of_a_point_in_a_draw_are_not_its_neighbours() -> None:
    """A draw equals the plain measures of its points, less every pair of a point with a copy of itself."""
    points, names = groups(1.0, sizes=(6, 5))
    resamples = Resamples(names, draws=20, seed=3)
    found = separation(distances(points), cosines(points), resamples, k=4)
    for draw in range(1, 21):
        places = np.repeat(np.arange(11), resamples.weights[:, draw].astype(int))
        assert [names[i] for i in places] == names  # as many of each group as there were
        apart = distances(points)[places][:, places]
        shares, silhouettes = [], []
        for i, place in enumerate(places):
            others = [j for j in range(11) if places[j] != place]
            near = sorted(others, key=lambda j: (apart[i, j], places[j]))[:4]
            shares.append(np.mean([names[j] == names[i] for j in near]))
            own, other = ([apart[i, j] for j in others if (names[j] == names[i]) == same] for same in (True, False))
            if own:
                silhouettes.append((np.mean(other) - np.mean(own)) / max(np.mean(other), np.mean(own)))
        assert found["purity"][draw] == pytest.approx(np.mean(shares))
        assert found["silhouette"][draw] == pytest.approx(np.mean(silhouettes))


def test_groups_that_are_none_look_no_better_in_the_draws() -> None:
    """A bootstrap that takes copies for neighbours would put purity far above chance here, and the silhouette too."""
    points, names = groups(0.0, sizes=(40, 40))
    found = measured(points, names, k=5, draws=300)
    assert abs(found["purity"][1:].mean() - found["purity"][0]) < 0.03
    assert abs(found["silhouette"][1:].mean() - found["silhouette"][0]) < 0.02


def test_intervals_cover_what_other_samples_give() -> None:
    """Of the intervals of 40 samples about 95 % should hold the mean over very many samples."""
    whole = np.mean([plainly(*groups(1.5, (15, 15), seed=1000 + s), k=5)["purity"] for s in range(60)])
    gap = np.mean([plainly(*groups(1.5, (15, 15), seed=1000 + s), k=5)["cosine_gap"] for s in range(60)])
    inside = {"purity": 0, "cosine_gap": 0}
    for seed in range(40):
        found = measured(*groups(1.5, (15, 15), seed=seed), k=5)
        for name, value in (("purity", whole), ("cosine_gap", gap)):
            one = interval(found[name])
            inside[name] += one.low <= value <= one.high
    assert min(inside.values()) >= 34, inside


def test_differences_are_taken_draw_by_draw() -> None:
    points, names = groups(2.0)
    near, far = measured(points, names), measured(points * np.where(np.arange(12) < 3, 3.0, 1.0), names)
    same = differences(near, near)
    assert all(one.value == one.low == one.high == 0 for one in same.values())
    found = differences(far, near)["silhouette"]
    assert 0 < found.low < found.value < found.high
    # Narrower than of two samples that have nothing to do with each other: the draws are shared.
    other = measured(points, names, seed=1)
    assert found.high - found.low < np.ptp(np.quantile(far["silhouette"] - other["silhouette"], [0.025, 0.975]))


def test_a_groups_draws_do_not_depend_on_the_other_groups() -> None:
    three, two = Resamples(["a"] * 4 + ["b"] * 3 + ["c"] * 5, 10), Resamples(["c"] * 5 + ["a"] * 4, 10)
    assert np.array_equal(three.weights[:4], two.weights[5:]) and np.array_equal(three.weights[7:], two.weights[:5])


def test_groups_of_two_points_and_equal_points() -> None:
    points = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]])
    found = {name: interval(draws) for name, draws in measured(points, ["a", "a", "b", "b"], k=1).items()}
    assert found["silhouette"].value == 1 and found["purity"].value == 1 and found["cosine_gap"].value == 1
    assert all(np.isfinite([one.low, one.high]).all() for one in found.values())
    points[:] = 1.0
    assert measured(points, ["a", "a", "b", "b"])["silhouette"][0] == 0
