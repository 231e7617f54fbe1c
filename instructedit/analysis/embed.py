"""Points in few dimensions from the table of their inner products: principal components and t-SNE.

Knows tables of numbers; nothing of gradients or figures.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.float64]]

TSNE_ROUNDS = 1000


@dataclass(frozen=True)
class Components:
    """Principal components of n points.

    Args:
        coordinates: (n, m), every component that is not 0, the largest first; distances in it are the points' own.
        explained: (m,), the share of the variance that each holds.
    """

    coordinates: Numbers
    explained: Numbers


def components(table: Numbers) -> Components:
    """Find the principal components of points from their inner products (n, n) (Gower 1966).

    Each component's largest coordinate is positive, so that no sign is left to chance.
    """
    centred = table - table.mean(0) - table.mean(1)[:, None] + table.mean()
    values, vectors = np.linalg.eigh((centred + centred.T) / 2)
    values, vectors = values[::-1], vectors[:, ::-1]
    # The inner products are rounded: what is this small is rounding. At least one is kept.
    kept = max(1, int((values > 1e-10 * max(values[0], 0)).sum()))
    values, vectors = np.clip(values[:kept], 0, None), vectors[:, :kept]
    signs = np.sign(vectors[np.abs(vectors).argmax(0), np.arange(kept)])
    total = values.sum()
    return Components(vectors * signs * np.sqrt(values), values / total if total > 0 else values)


def usable_perplexity(perplexity: float, n: int) -> float:
    """Return a perplexity that n points can have: at most a third of the others."""
    return min(perplexity, max(1.0, (n - 1) / 3))


def tsne(found: Components, perplexity: float = 30.0, seed: int = 0) -> Numbers:
    """Lay points out in the plane by t-SNE (van der Maaten and Hinton 2008): (n, 2).

    The distances are exact: all components are given. It starts from the first two of them, so that the same points
    come out the same with one release of scikit-learn.

    Args:
        found: the points' components.
        perplexity: about how many neighbours are kept near, see ``usable_perplexity``.
        seed: of what is left to chance.
    """
    from sklearn.manifold import TSNE

    points = found.coordinates
    n = len(points)
    start = np.zeros((n, 2))
    start[:, : points.shape[1]] = points[:, :2]
    spread = start[:, 0].std()
    if not spread > 0:  # all points are one
        return start
    # The size that van der Maaten starts from, and that scikit-learn gives its own components.
    start = (start / spread * 1e-4).astype(np.float32)
    # At one scale: sizes of 1e-8, as gradients have, are lost in scikit-learn's fp32.
    scaled = points / np.sqrt((points**2).sum() / n)
    made = TSNE(
        2,
        perplexity=usable_perplexity(perplexity, n),
        init=start,
        learning_rate="auto",
        max_iter=TSNE_ROUNDS,
        random_state=seed,
        n_jobs=1,
    )
    placed: Numbers = made.fit_transform(scaled.astype(np.float32)).astype(np.float64)
    return placed
