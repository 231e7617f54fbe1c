"""Dense changes of whole matrices, one for each request, and the context in which a base computes with them.

The change never touches a weight: inside ``applied`` a site returns y + x dW. It acts on inputs and outputs, so
``Linear`` and ``Conv1D`` need no branch. Knows nothing about how a change was made.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from torch import LongTensor, Tensor, cat, nn

from instructedit.base.model import Base
from instructedit.hooks import replace


@dataclass(frozen=True)
class DenseEdit:
    """Per site name the b requests' changes dW (b, d_in, d_out) of y = x W, in fp32."""

    base: Base
    changes: dict[str, Tensor]

    def applied(self, rows: LongTensor | None = None) -> AbstractContextManager[None]:
        """Let the base compute with the changes inside the block; see ``methods.base.Edit``."""
        return applied(self.base.model, self.changes, rows)

    def tensors(self) -> dict[str, Tensor]:
        """Return the changes by site name."""
        return dict(self.changes)

    def settings(self) -> dict[str, Any]:
        """Return nothing: the changes are all there is."""
        return {}

    @classmethod
    def from_tensors(cls, base: Base, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> "DenseEdit":
        """Make the edit again from what ``tensors`` and ``settings`` gave."""
        return cls(base, dict(tensors))


@contextmanager
def applied(model: nn.Module, changes: Mapping[str, Tensor], rows: LongTensor | None = None) -> Iterator[None]:
    """Inside the block each site computes y + x dW, in the dtype of dW; no weight is touched.

    Args:
        model: the base's model; site names are relative to it.
        changes: per site name the requests' changes (b, d_in, d_out).
        rows: (n,), which request's change each of the n rows of the coming batches sees; None lets
            every row see the sum of all.
    """

    def function_for(change: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        total = change.sum(0) if rows is None else None

        def function(x: Tensor, y: Tensor) -> Tensor:
            # Not in a narrow base's dtype: a change of 5e-4 would be rounded against the x it is summed over.
            wide = x.to(change.dtype)
            product = wide @ total if total is not None else _by_row(wide, change, rows)
            return y + product.to(y.dtype)

        return function

    with replace(model, {name: function_for(change) for name, change in changes.items()}):
        yield


def _by_row(x: Tensor, change: Tensor, rows: LongTensor | None) -> Tensor:
    """Multiply row n of x (n, t, d_in) by change[rows[n]]: (n, t, d_out).

    One product per request, on all its rows: a change is too large to be repeated for each row.
    """
    assert rows is not None
    if len(rows) != len(x):
        raise ValueError(f"The edit was applied for {len(rows)} rows, but the batch has {len(x)}.")
    rows = rows.to(x.device)  # type: ignore[assignment]
    order = rows.argsort(stable=True)
    parts = x.index_select(0, order).split(rows.bincount(minlength=len(change)).tolist())
    # unbind: the gradient of each entry is its own, where indexing would make a whole (b, d_in, d_out) for every one.
    products = cat([part @ own for part, own in zip(parts, change.unbind(), strict=True) if len(part)])
    return products.index_select(0, order.argsort())
