"""Inner gradients: what one request's loss says about every site, as rank-one factors per token.

For a site y = x W the gradient of a request's loss is dL/dW = sum_t x_t^T delta_t with
delta_t = dL/dy_t (PAPER.md, The hypernetwork; Mitchell et al. 2022, eq. 2). The weight gradient
itself is never formed and nothing is stored on parameters. Knows sites and rows; knows nothing
about the hypernetwork.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import LongTensor, Tensor

from instructedit.base.model import Base
from instructedit.base.sites import Site
from instructedit.base.split import Split
from instructedit.data.rows import Rows, mean_by
from instructedit.hooks import record


@dataclass(frozen=True)
class EditGradients:
    """Factors of the gradients of ``n_requests`` requests at one site, packed over tokens.

    Only tokens the loss depends on are kept: for a site in the last block those are the few that
    predict the target, since nothing after the block mixes tokens.

    Shapes: x (k, d_in), delta (k, d_out), request (k,) not decreasing. All fp32 but ``request``.
    """

    x: Tensor
    delta: Tensor
    request: LongTensor
    n_requests: int

    def by_request(self, packed: Tensor) -> Tensor:
        """Lay packed vectors (k, d) out by request: (n_requests, r, d), zeros where a request has fewer."""
        count = torch.bincount(self.request, minlength=self.n_requests)
        start = torch.cumsum(count, 0) - count
        slot = torch.arange(len(self.request), device=packed.device) - start[self.request]
        rank = int(count.max()) if len(self.request) else 0
        out = packed.new_zeros(self.n_requests, rank, packed.shape[-1])
        return out.index_put((self.request, slot), packed)

    def norms(self) -> Tensor:
        """Return the Frobenius norm of each request's whole weight gradient: (n_requests,)."""
        return frobenius(self.by_request(self.x), self.by_request(self.delta))

    def scaled(self, factor: Tensor) -> "EditGradients":
        """Multiply each request's gradient by its factor (n_requests,)."""
        return replace(self, delta=self.delta * factor[self.request].unsqueeze(-1))

    def materialise(self) -> Tensor:
        """Form the weight gradients (n_requests, d_in, d_out), as y = x W has them; for tests and analysis."""
        return self.by_request(self.x).transpose(1, 2) @ self.by_request(self.delta)


def frobenius(u: Tensor, v: Tensor) -> Tensor:
    """Norms (b,) of sum_r u_r^T v_r for u (b, r, d_in), v (b, r, d_out), without forming the products."""
    squares = ((u @ u.transpose(1, 2)) * (v @ v.transpose(1, 2))).sum((1, 2))
    return squares.clamp_min(0).sqrt()


def inner_loss(split: Split, tail_states: Tensor, rows: Rows, n_requests: int) -> Tensor:
    """Return the mean NLL of the target tokens of each request, over all of its rows: (n_requests,)."""
    targets = rows.targets(tail_states.device)
    logits = split.logits(targets.select(tail_states)).float()
    nll = torch.nn.functional.cross_entropy(logits, targets.label, reduction="none")
    return mean_by(nll, rows.request_index(nll.device)[targets.row], n_requests)


def inner_gradients(
    base: Base, split: Split, sites: Sequence[Site], hidden: Tensor, rows: Rows, n_requests: int
) -> tuple[dict[str, EditGradients], Tensor]:
    """Compute every site's gradient factors for a batch of requests with one ``autograd.grad``.

    The graph starts at the tail's input, not at a site: two sites may share an input (gate and up),
    and an earlier site's gradient flows through the later ones.

    Args:
        base: the frozen base.
        split: its trunk / tail split; every site must lie in the tail.
        sites: the edited matrices.
        hidden: (n, t, d), the states entering the tail for ``rows``.
        rows: the edit inputs, one or more per request.
        n_requests: how many requests the rows belong to.

    Returns:
        Per site name its factors, detached and fp32; and the requests' losses (n_requests,).
    """
    with torch.enable_grad(), record(base.model, [site.name for site in sites]) as seen:
        losses = inner_loss(split, split.tail(hidden.detach().requires_grad_()), rows, n_requests)
        # Requests share no computation, so the gradient of the sum holds each one's own gradient.
        deltas = torch.autograd.grad(losses.sum(), [seen[site.name].y for site in sites])
    row_request = rows.request_index(hidden.device)
    lengths = torch.tensor([len(ids) for ids in rows.ids], device=hidden.device)
    real = torch.arange(hidden.shape[1], device=hidden.device) < lengths.unsqueeze(1)
    gradients = {}
    for site, delta in zip(sites, deltas, strict=True):
        keep = real & (delta != 0).any(-1)
        request: LongTensor = row_request.unsqueeze(1).expand_as(keep)[keep]  # type: ignore[assignment]
        x = seen[site.name].x[keep]
        gradients[site.name] = EditGradients(x.float(), delta[keep].float(), request, n_requests)
    return gradients, losses.detach()
