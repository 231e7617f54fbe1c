"""Sizes of an editor that nobody has built: MEND's, which is InstructEdit's too, and KE's. Loads no torch.

The tests hold this against the editors themselves.
"""

from collections.abc import Sequence

from instructedit.base.sizes import EditorSize, through_mend

Shapes = Sequence[tuple[int, int]]
"""(d_in, d_out) of every site."""


def mend_size(sites: Shapes, rank: int = 1920, n_blocks: int = 2, in_last: int = 0) -> EditorSize:
    """Size of a ``HyperEditor`` with these settings of ``EditorConfig``.

    ``in_last`` is how many of the sites, at the end, lie in the last block's MLP.
    """
    networks = [_network(d_in + d_out, sites.count((d_in, d_out)), rank, n_blocks) for d_in, d_out in set(sites)]

    everywhere, last = (through_mend(some, rank, n_blocks) for some in (sites, sites[len(sites) - in_last :]))
    return EditorSize(sum(networks) + len(sites), max(networks), *everywhere, *last)


def _network(width: int, n_sites: int, rank: int, n_blocks: int) -> int:
    rank = min(rank, width)
    return n_blocks * (2 * rank * width + width + 2 * n_sites * width)


def ke_size(
    sites: Shapes, embedding: int, hidden: int = 128, condition: int = 1024, head: int = 128, in_last: int = 0
) -> EditorSize:
    """Size of a ``KEEditor`` with these settings of ``KEConfig``, on a base with embeddings of so many numbers.

    ``in_last`` is as in ``mend_size``.
    """
    lstm = 2 * 4 * hidden * (embedding + hidden + 2)
    described = (2 * hidden + 1) * condition
    heads = [(condition + 1) * head + (head + 1) * (2 * (d_in + d_out) + 1) for d_in, d_out in sites]
    width, last = (sum(map(sum, some)) for some in (sites, sites[len(sites) - in_last :]))
    # Its change of a gradient keeps the gradient, and the factor of each number.
    return EditorSize(lstm + described + sum(heads), max(lstm, described, *heads), width, 2 * width, last, 2 * last)
