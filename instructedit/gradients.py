"""Inner gradients: what one request's loss says about every site, as rank-one factors per token.

For a site y = x W the gradient of a request's loss is dL/dW = sum_t x_t^T delta_t with
delta_t = dL/dy_t (PAPER.md, The hypernetwork; Mitchell et al. 2022, eq. 2). The weight gradient
itself is never formed and nothing is stored on parameters. Knows sites and rows; knows nothing
about the hypernetwork.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from instructedit.base.model import Base
from instructedit.base.sites import Site
from instructedit.base.split import Split
from instructedit.data.rows import Rows, Tokens, mean_by
from instructedit.head_losses import nll_at
from instructedit.hooks import record


@dataclass(frozen=True)
class EditGradients:
    """Factors of the gradients of ``n_requests`` requests at one site, packed over tokens.

    Only tokens the loss depends on are kept: for an MLP's site in the last block those are the few that
    predict the target, since nothing after it mixes tokens. Which they are follows from the rows'
    lengths, so that nobody has to wait for a device to look.

    Shapes: x (k, d_in), delta (k, d_out), live (k, 1). All fp32.

    Args:
        x: what the site was given.
        delta: the loss's gradient with respect to what it gave.
        live: 1, but 0 for a token whose delta is exactly zero (its target's probability rounds to 1): it takes no part
            in moments and updates.
        tokens: which tokens these are.
    """

    x: Tensor
    delta: Tensor
    live: Tensor
    tokens: Tokens

    @property
    def request(self) -> Tensor:
        """The request of each token (k,), not decreasing."""
        return self.tokens.request

    @property
    def n_requests(self) -> int:
        """How many requests there are."""
        return self.tokens.n_requests

    def by_request(self, packed: Tensor) -> Tensor:
        """Lay packed vectors (k, d) out by request: (n_requests, r, d), zeros where a request has fewer."""
        return self.tokens.by_request(packed)

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
    nll, _ = nll_at(split, targets.select(tail_states), targets.label)
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
    device = hidden.device
    with torch.enable_grad(), record(base.model, [site.name for site in sites]) as seen:
        states = split.tail(hidden.detach().requires_grad_(), rows.windows(device))
        losses = inner_loss(split, states, rows, n_requests)
        # Requests share no computation, so the gradient of the sum holds each one's own gradient.
        deltas = torch.autograd.grad(losses.sum(), [seen[site.name].y for site in sites])
    mixed, last = (rows.gradient_tokens(n_requests, what, device) for what in (True, False))
    gradients = {}
    for site, delta in zip(sites, deltas, strict=True):
        tokens = last if base.at_targets(site) else mixed
        x, d = tokens.pick(seen[site.name].x).float(), tokens.pick(delta).float()
        gradients[site.name] = EditGradients(x, d, (d != 0).any(1, keepdim=True).float(), tokens)
    return gradients, losses.detach()
