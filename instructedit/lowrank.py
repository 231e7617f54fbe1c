"""Low-rank updates and the context in which a base computes with them.

An update never touches a weight: inside ``applied`` a site returns y + (x u^T) v. One hook serves
``Linear`` and ``Conv1D`` alike, because it acts on inputs and outputs; orientation matters in
``materialise`` alone. Knows nothing about how an update was made.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import LongTensor, Tensor, nn

from instructedit.gradients import frobenius
from instructedit.hooks import replace


class _Repeated(torch.autograd.Function):
    """Entries of a tensor (b, ...) by index, some of them several times.

    The backward pass adds them up as a product with a matrix of zeros and ones: adding by index goes number by number
    on a CPU, and in another order each time on a GPU.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.entries = len(values)
        return values.index_select(0, rows)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_out: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        which = torch.arange(ctx.entries, device=rows.device).unsqueeze(1) == rows
        added = which.to(of_out.dtype) @ of_out.flatten(1)
        return added.view(ctx.entries, *of_out.shape[1:]), None


@dataclass(frozen=True)
class LowRankUpdate:
    """The change of one site for each of b requests: dW = sum_r u_r^T v_r for y = x W.

    Shapes: u (b, r, d_in), v (b, r, d_out).
    """

    u: Tensor
    v: Tensor

    def __post_init__(self) -> None:
        if self.u.ndim != 3 or self.v.ndim != 3 or self.u.shape[:2] != self.v.shape[:2]:
            raise ValueError(
                f"A low-rank update needs u (b, r, d_in) and v (b, r, d_out) with the same b and r; "
                f"found u {tuple(self.u.shape)} and v {tuple(self.v.shape)}."
            )

    @property
    def n_requests(self) -> int:
        """How many requests the update holds."""
        return self.u.shape[0]

    def for_rows(self, rows: LongTensor) -> "LowRankUpdate":
        """Repeat the requests' changes so that entry n is the change row n of a batch sees."""
        rows = rows.to(self.u.device)  # type: ignore[assignment]
        return LowRankUpdate(_Repeated.apply(self.u, rows), _Repeated.apply(self.v, rows))

    def merged(self) -> "LowRankUpdate":
        """Add all requests' changes into one: (1, b * r, ...)."""
        return LowRankUpdate(self.u.flatten(0, 1).unsqueeze(0), self.v.flatten(0, 1).unsqueeze(0))

    def live(self) -> "LowRankUpdate":
        """Add all requests' changes into one without the ranks that add nothing, but for one: (1, k, ...)."""
        u, v = self.u.flatten(0, 1), self.v.flatten(0, 1)
        live = ((u != 0).any(1) & (v != 0).any(1)).nonzero().flatten()
        live = live if len(live) else live.new_zeros(1)
        return LowRankUpdate(u[live].unsqueeze(0), v[live].unsqueeze(0))

    def compact(self) -> "LowRankUpdate":
        """Add all requests' changes into one of the fewest ranks that need no approximation: (1, k, ...).

        Ranks that add nothing are left out. More of them than the smaller side has, as many edits make, become that
        many: the identity on that side and the change itself on the other.
        """
        merged = self.live()
        u, v = merged.u[0], merged.v[0]
        if len(u) > min(u.shape[1], v.shape[1]):
            # Summed in fp64: the ranks of many edits cancel each other in part.
            change = (u.double().T @ v.double()).to(u.dtype)
            eye = torch.eye(min(change.shape), dtype=u.dtype, device=u.device)
            u, v = (eye, change) if change.shape[0] <= change.shape[1] else (change.T, eye)
        return LowRankUpdate(u.unsqueeze(0).contiguous(), v.unsqueeze(0).contiguous())

    def norms(self) -> Tensor:
        """Return the Frobenius norm of each request's change: (b,)."""
        return frobenius(self.u, self.v)

    def materialise(self) -> Tensor:
        """Form the dense changes (b, d_in, d_out), as y = x W has them.

        A ``Linear`` stores its weight transposed, a ``Conv1D`` does not: see ``weight_change``.
        """
        return self.u.transpose(1, 2) @ self.v

    def to(self, dtype: torch.dtype) -> "LowRankUpdate":
        """Round the factors to a dtype."""
        return LowRankUpdate(self.u.to(dtype), self.v.to(dtype))

    def apply(self, x: Tensor, y: Tensor) -> Tensor:
        """Return y + (x u^T) v for x (n, t, d_in), y (n, t, d_out); n must be b unless b is 1."""
        return y + (x @ self.u.transpose(1, 2)) @ self.v


def whole_norms(updates: Mapping[str, LowRankUpdate]) -> Tensor:
    """Return the Frobenius norm (b,) of each request's update over all sites."""
    return torch.stack([update.norms() for update in updates.values()]).square().sum(0).sqrt()


def weight_change(update: LowRankUpdate, module: nn.Module) -> Tensor:
    """Form the change of one module's ``weight`` in the orientation it is stored in, all requests summed.

    Args:
        update: the site's update.
        module: a ``Linear`` (weight (d_out, d_in)) or a ``Conv1D`` (weight (d_in, d_out)).
    """
    change = update.merged().materialise()[0]
    return change.T if isinstance(module, nn.Linear) else change


@contextmanager
def applied(model: nn.Module, updates: Mapping[str, LowRankUpdate], rows: LongTensor | None = None) -> Iterator[None]:
    """Inside the block each site of ``updates`` computes y + (x u^T) v; no weight is touched.

    Args:
        model: the base's model; site names are relative to it.
        updates: per site name the requests' changes.
        rows: (n,), which request's change each of the n rows of the coming batches sees; None lets
            every row see all changes at once.
    """

    def function_for(update: LowRankUpdate) -> Callable[[Tensor, Tensor], Tensor]:
        def function(x: Tensor, y: Tensor) -> Tensor:
            # Rounded to the base's dtype once, before rows repeat it: the factors are fp32.
            rounded = update.to(x.dtype)
            return (rounded.merged() if rows is None else rounded.for_rows(rows)).apply(x, y)

        return function

    with replace(model, {name: function_for(update) for name, update in updates.items()}):
        yield
