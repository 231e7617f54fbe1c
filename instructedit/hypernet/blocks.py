"""The residual low-rank block of MEND and the network that stacks it.

Mitchell et al. 2022, section 3.2: h = z + relu(s * (U V z + b) + o) with a scale s and an offset
o per site, so that one network serves every site of its shape. Knows vectors and site numbers.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


class _Residual(torch.autograd.Function):
    """z + relu(scale * inner + offset), with derivative 1 of the rectifier at exactly 0.

    Blocks start as the identity because U is zero, so every pre-activation starts at exactly 0. There
    relu's derivative is 0 and clamp's depends on the torch version (1 in 2.13, 0 in 2.15): with
    either, a block could stay dead for ever without an error. This form does not depend on it. Between
    forward and backward pass it keeps ``inner`` alone, and it makes few passes over memory: next to the
    matrix products they are what a block costs.

    Shapes: z, inner (k, width), scale, offset (width,).
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor, inner: Tensor, scale: Tensor, offset: Tensor) -> Tensor:
        ctx.save_for_backward(inner, scale, offset)
        return torch.addcmul(offset, scale, inner).clamp_min_(0).add_(z)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_out: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        inner, scale, offset = ctx.saved_tensors
        of_pre = torch.addcmul(offset, scale, inner).ge_(0).mul_(of_out)
        return of_out, of_pre * scale, (of_pre * inner).sum(0), of_pre.sum(0)


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

    def forward(self, z: Tensor, counts: Sequence[int]) -> Tensor:
        """Transform vectors z (k, width), those of each site behind those of the one before.

        Args:
            z: the vectors of all sites that share the block.
            counts: how many of them are each site's, in the sites' order.
        """
        inner = torch.addmm(self.bias, z @ self.down.T, self.up.T)
        # One matrix product for all sites; what a site has of its own is a vector.
        sizes = list(counts)
        parts = [
            _Residual.apply(*each)
            for each in zip(z.split(sizes), inner.split(sizes), self.scale, self.offset, strict=True)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts)


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

    def forward(self, z: Tensor, counts: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Map standardised (x, delta) pairs to pseudo ones.

        Args:
            z: (k, d_in + d_out), the pairs of all sites, those of each site behind those of the one before.
            counts: how many of them are each site's, in the sites' order.

        Returns:
            Pseudo x (k, d_in) and pseudo delta (k, d_out), in the same order.
        """
        for block in self.blocks:
            z = block(z, counts)
        return z[:, : self.d_in], z[:, self.d_in :]
