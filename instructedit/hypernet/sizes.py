"""Sizes of an editor that nobody has built: MEND's, which is InstructEdit's too, and KE's. Loads no torch.

The tests hold this against the editors themselves.
"""

from collections.abc import Sequence

from instructedit.base.sizes import EditorSize

Shapes = Sequence[tuple[int, int]]
"""(d_in, d_out) of every site."""


def mend_size(sites: Shapes, rank: int = 1920, n_blocks: int = 2) -> EditorSize:
    """Size of a ``HyperEditor`` with these settings of ``EditorConfig``."""
    networks = [_network(d_in + d_out, sites.count((d_in, d_out)), rank, n_blocks) for d_in, d_out in set(sites)]
    width = sum(d_in + d_out for d_in, d_out in sites)
    per_token = n_blocks * (3 * width + rank * len(sites))
    return EditorSize(sum(networks) + len(sites), max(networks), width, per_token)


def _network(width: int, n_sites: int, rank: int, n_blocks: int) -> int:
    rank = min(rank, width)
    return n_blocks * (2 * rank * width + width + 2 * n_sites * width)


def ke_size(sites: Shapes, embedding: int, hidden: int = 128, condition: int = 1024, head: int = 128) -> EditorSize:
    """Size of a ``KEEditor`` with these settings of ``KEConfig``, on a base with embeddings of so many numbers."""
    lstm = 2 * 4 * hidden * (embedding + hidden + 2)
    described = (2 * hidden + 1) * condition
    heads = [(condition + 1) * head + (head + 1) * (2 * (d_in + d_out) + 1) for d_in, d_out in sites]
    width = sum(d_in + d_out for d_in, d_out in sites)
    # Its change of a gradient keeps the gradient, the factors and the product of each.
    return EditorSize(lstm + described + sum(heads), max(lstm, described, *heads), width, 3 * width)
