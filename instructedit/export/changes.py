"""What an edit changes of the weights: per site one matrix, as factors or whole, and what of it a file keeps.

Knows tensors only, nothing of files or other libraries' formats. Legend: k terms of a sum.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from instructedit.base.model import Base
from instructedit.errors import InputError
from instructedit.lowrank import LowRankUpdate
from instructedit.methods.base import Edit
from instructedit.methods.dense import DenseEdit
from instructedit.methods.hyper import HyperEdit

NO_WEIGHTS = {
    "SlotEdit": "CaliNet's slots are new neurons beside an MLP",
    "CodebookEdit": "GRACE's codebook replaces states where a key is near",
}
"""Kinds of edits that are no change of a weight, and what they are."""


@dataclass(frozen=True)
class Factors:
    """dW (d_in, d_out) = u^T v of y = x W, with u (k, d_in) and v (k, d_out)."""

    u: Tensor
    v: Tensor

    @classmethod
    def of(cls, update: LowRankUpdate) -> "Factors":
        """Take a change of one entry: (1, k, ...)."""
        return cls(update.u[0].float().cpu().contiguous(), update.v[0].float().cpu().contiguous())

    def as_update(self) -> LowRankUpdate:
        """Return it as a change of one entry."""
        return LowRankUpdate(self.u.unsqueeze(0), self.v.unsqueeze(0))

    @property
    def shape(self) -> tuple[int, int]:
        """(d_in, d_out)."""
        return self.u.shape[1], self.v.shape[1]

    @property
    def rank(self) -> int:
        """The number of terms."""
        return len(self.u)

    def to(self, dtype: torch.dtype) -> "Factors":
        """Round to a dtype."""
        return Factors(self.u.to(dtype), self.v.to(dtype))

    def whole(self) -> Tensor:
        """Form dW (d_in, d_out), summed in fp64: terms of many edits cancel each other in part."""
        return self.u.double().T @ self.v.double()

    def norm(self) -> float:
        """Return the Frobenius norm of dW, exact to fp64 and without forming it."""
        left, right = (torch.linalg.qr(side.double().T, mode="r").R for side in (self.u, self.v))
        return float(torch.linalg.matrix_norm(left @ right.T))

    def minus(self, other: "Factors") -> "Factors":
        """Return the difference, as factors of both ranks together."""
        return Factors(torch.cat([self.u.double(), other.u.double()]), torch.cat([self.v.double(), -other.v.double()]))


@dataclass(frozen=True)
class SiteChange:
    """The change of one site's weight, all requests of the edit summed.

    Args:
        site: the module's name in the model.
        transposed: whether the module stores its weight as (d_out, d_in): a ``Linear`` does, a ``Conv1D`` does not.
        change: factors, or dW (d_in, d_out) of y = x W.
    """

    site: str
    transposed: bool
    change: Factors | Tensor

    @property
    def weight(self) -> str:
        """The changed parameter's name in the model."""
        return f"{self.site}.weight"

    @property
    def most_ranks(self) -> int:
        """The rank no change of this site is above: its terms, or its smaller side."""
        smaller = min(self.change.shape)
        return min(smaller, self.change.rank) if isinstance(self.change, Factors) else smaller

    def whole(self) -> Tensor:
        """Return the change in the orientation the weight is stored in, in fp64."""
        change = self.change.whole() if isinstance(self.change, Factors) else self.change.double()
        return change.T if self.transposed else change

    def norm(self) -> float:
        """Return the Frobenius norm of the change."""
        if isinstance(self.change, Factors):
            return self.change.norm()
        return float(torch.linalg.matrix_norm(self.change.double()))

    def distance(self, other: Factors) -> float:
        """Return the Frobenius norm of the difference between the change and factors."""
        if isinstance(self.change, Factors):
            if torch.equal(self.change.u, other.u) and torch.equal(self.change.v, other.v):
                return 0.0
            return self.change.minus(other).norm()
        return float(torch.linalg.matrix_norm(self.change.double() - other.whole()))

    def exact(self) -> Factors:
        """Return factors of the fewest terms that need no approximation.

        More terms than the smaller side has, as many requests make, become that many: the identity on that side and
        the change itself on the other.
        """
        if isinstance(self.change, Factors):
            update = self.change.as_update()
        else:
            d_in = len(self.change)
            update = LowRankUpdate(torch.eye(d_in).unsqueeze(0), self.change.float().unsqueeze(0))
        return Factors.of(update.compact())

    def compressed(self, rank: int) -> Factors:
        """Return the nearest factors of at most so many terms, by singular values; both sides are equally large.

        From factors it takes two thin QR decompositions and the singular values of a small matrix.
        """
        if isinstance(self.change, Factors):
            left, right = (torch.linalg.qr(side.double().T) for side in (self.change.u, self.change.v))
            u, s, vh = torch.linalg.svd(left.R @ right.R.T, full_matrices=False)
            u, vh = left.Q @ u, vh @ right.Q.T
        else:
            u, s, vh = torch.linalg.svd(self.change.double(), full_matrices=False)
        kept = min(rank, int((s > 0).sum()) or 1)
        root = s[:kept].sqrt()
        return Factors(
            (u[:, :kept] * root).T.float().contiguous(), (root.unsqueeze(1) * vh[:kept]).float().contiguous()
        )


@dataclass(frozen=True)
class SiteReport:
    """What a file keeps of one site's change.

    Args:
        site: the module's name.
        rank: terms that were written; None where the whole matrix was.
        norm: Frobenius norm of the edit's change.
        error: Frobenius norm of what was written minus that.
    """

    site: str
    rank: int | None
    norm: float
    error: float

    @property
    def relative(self) -> float:
        """The error as a share of the norm."""
        return self.error / self.norm if self.norm else 0.0


def total_error(reports: Sequence[SiteReport]) -> float:
    """Return the relative Frobenius error over all sites together."""
    norm = sum(report.norm**2 for report in reports) ** 0.5
    return sum(report.error**2 for report in reports) ** 0.5 / norm if norm else 0.0


def changes_of(edit: Edit, base: Base) -> list[SiteChange]:
    """Return what an edit changes, one entry a site, on the CPU; the base's weights need not be in memory.

    Raises:
        InputError: this kind of edit changes no weight, or it does not fit the base, or holds no finite numbers.
    """
    kind = type(edit).__name__
    if kind in NO_WEIGHTS:
        raise InputError(
            f"An edit of kind {kind!r} cannot be exported: {NO_WEIGHTS[kind]}, not a change of a weight. "
            "Use it with load_edit, or make the edit with MEND, InstructEdit, KE or FT-L."
        )
    found: Mapping[str, Factors | Tensor]
    if isinstance(edit, HyperEdit):
        found = {site: Factors.of(update.live()) for site, update in edit.updates.items()}
    elif isinstance(edit, DenseEdit):
        found = {site: change.sum(0).float().cpu() for site, change in edit.changes.items()}
    else:
        raise InputError(f"An edit of kind {kind!r} cannot be exported: what it changes of the weights is not known.")
    if not found:
        raise InputError("The edit changes no site: there is nothing to export. Make the edit again.")
    return [SiteChange(site, _checked(base, site, change), change) for site, change in sorted(found.items())]


def _checked(base: Base, site: str, change: Factors | Tensor) -> bool:
    """Check a change against its module; say whether that stores its weight transposed."""
    try:
        module: nn.Module | None = base.model.get_submodule(site)
    except AttributeError:
        module = None
    if not isinstance(module, nn.Linear | Conv1D):
        raise InputError(f"The edit changes {site!r}, which is no matrix of base {base.name!r}. Make the edit again.")
    transposed = isinstance(module, nn.Linear)
    d_in, d_out = tuple(module.weight.shape)[:: -1 if transposed else 1]
    if tuple(change.shape) != (d_in, d_out):
        raise InputError(
            f"The edit's change of {site} is for a matrix {tuple(change.shape)}, and base {base.name!r} has "
            f"({d_in}, {d_out}) there. Make the edit again."
        )
    parts = (change.u, change.v) if isinstance(change, Factors) else (change,)
    if not all(bool(part.isfinite().all()) for part in parts):
        raise InputError(f"The edit's change of {site} holds numbers that are not finite. Make the edit again.")
    return transposed
