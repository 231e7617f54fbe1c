"""The residual low-rank block of MEND and the network that stacks it.

Mitchell et al. 2022, section 3.2: h = z + relu(s * (U V z + b) + o) with a scale s and an offset
o per site, so that one network serves every site of its shape. Knows vectors and site numbers.
"""

import torch
from torch import Tensor, nn


def relu_alive(z: Tensor) -> Tensor:
    """Rectify z, with derivative 1 at exactly 0.

    Blocks start as the identity because U is zero, so every pre-activation starts at exactly 0. There
    relu's derivative is 0 and clamp's depends on the torch version (1 in 2.13, 0 in 2.15): with
    either, a block could stay dead for ever without an error. This form does not depend on it.
    """
    return torch.where(z >= 0, z, torch.zeros_like(z))


class LowRankBlock(nn.Module):
    """One residual block, the identity at the start.

    Args:
        width: length of the vectors, d_in + d_out of the sites.
        rank: inner width of the block.
        n_sites: how many sites share the block; each has a scale and an offset of its own.
    """

    def __init__(self, width: int, rank: int, n_sites: int) -> None:
        super().__init__()
        self.down = nn.Parameter(torch.empty(rank, width))
        self.up = nn.Parameter(torch.zeros(width, rank))
        self.bias = nn.Parameter(torch.zeros(width))
        self.scale = nn.Parameter(torch.ones(n_sites, width))
        self.offset = nn.Parameter(torch.zeros(n_sites, width))
        nn.init.xavier_normal_(self.down)

    def forward(self, z: Tensor, site: int) -> Tensor:
        """Transform the vectors z (k, width) of one site, numbered within the block."""
        inner = (z @ self.down.T) @ self.up.T + self.bias
        return z + relu_alive(self.scale[site] * inner + self.offset[site])


class MendNetwork(nn.Module):
    """A stack of blocks for all sites of one shape (d_in, d_out).

    Args:
        d_in: width of x.
        d_out: width of delta.
        rank: inner width of each block, at most d_in + d_out.
        n_blocks: how many blocks are stacked.
        n_sites: how many sites share the network.
    """

    def __init__(self, d_in: int, d_out: int, rank: int, n_blocks: int, n_sites: int) -> None:
        super().__init__()
        self.d_in = d_in
        rank = min(rank, d_in + d_out)
        self.blocks = nn.ModuleList(LowRankBlock(d_in + d_out, rank, n_sites) for _ in range(n_blocks))

    def forward(self, z: Tensor, site: int) -> tuple[Tensor, Tensor]:
        """Map standardised (x, delta) pairs z (k, d_in + d_out) to pseudo (k, d_in) and (k, d_out)."""
        for block in self.blocks:
            z = block(z, site)
        return z[:, : self.d_in], z[:, self.d_in :]
