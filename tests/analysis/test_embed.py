"""Components and t-SNE from inner products against scikit-learn on the points themselves."""

import numpy as np
import pytest

from instructedit.analysis.embed import components, tsne, usable_perplexity
from tests.analysis.planted import distances, groups

sklearn = pytest.importorskip("sklearn")


def test_components_are_scikit_learns() -> None:
    from sklearn.decomposition import PCA

    points, _ = groups(3.0)
    found = components(points @ points.T)
    wanted = PCA().fit(points)
    assert found.coordinates.shape == (75, 12)
    np.testing.assert_allclose(found.explained, wanted.explained_variance_ratio_, atol=1e-9)
    np.testing.assert_allclose(np.abs(found.coordinates), np.abs(wanted.transform(points)), atol=1e-7)
    np.testing.assert_allclose(distances(found.coordinates), distances(points), atol=1e-7)
    largest = np.abs(found.coordinates).argmax(0)
    assert (found.coordinates[largest, np.arange(12)] > 0).all()


@pytest.mark.slow
def test_tsne_keeps_planted_groups_together_and_comes_out_the_same() -> None:
    from sklearn.metrics import silhouette_score

    points, names = groups(8.0)
    found = components(1e-9 * points @ points.T)  # as small as the gradients' inner products are
    placed = tsne(found, perplexity=10)
    assert placed.shape == (75, 2) and silhouette_score(placed, names) > 0.6
    assert np.array_equal(placed, tsne(found, perplexity=10))
    assert not np.array_equal(placed, tsne(found, perplexity=20))
    points, names = groups(0.0)
    assert silhouette_score(tsne(components(points @ points.T), 10), names) < 0.1


def test_few_points_and_points_that_are_one() -> None:
    assert usable_perplexity(30, 400) == 30 and usable_perplexity(30, 13) == 4 and usable_perplexity(5, 3) == 1
    points, _ = groups(1.0, sizes=(2, 2))
    assert np.isfinite(tsne(components(points @ points.T))).all()
    same = components(np.ones((5, 5)))
    assert same.coordinates.shape == (5, 1) and not same.coordinates.any() and not tsne(same).any()
