"""Points of which it is known how far their groups lie apart."""

from typing import Any

import numpy as np

Numbers = np.ndarray[Any, np.dtype[np.float64]]


def groups(
    apart: float, sizes: tuple[int, ...] = (30, 20, 25), d: int = 12, seed: int = 0
) -> tuple[Numbers, list[str]]:
    """Gaussian points (n, d) around a centre for each group, so far from 0, and the groups' names."""
    generator = np.random.default_rng(seed)
    names = [f"task-{group}" for group, size in enumerate(sizes) for _ in range(size)]
    centres = np.repeat(np.eye(d)[: len(sizes)] * apart, sizes, axis=0)
    return centres + generator.normal(size=(len(names), d)), names


def distances(points: Numbers) -> Numbers:
    found: Numbers = np.sqrt(((points[:, None] - points) ** 2).sum(-1))
    return found


def cosines(points: Numbers) -> Numbers:
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    found: Numbers = unit @ unit.T
    return found
