"""Inner products of many large matrices that are known by low-rank factors; no matrix is formed as a whole.

For G_i = sum_r l_ir^T m_ir the Frobenius inner product is <G_i, G_j> = sum_rs (l_ir . l_js)(m_ir . m_js). Distances,
cosines and principal components all follow from the table of these numbers. Knows tensors; nothing of editors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

BLOCK = 1 << 24
"""Numbers held at once while a table is computed: 64 MiB in fp32."""

Way = Literal["auto", "tokens", "slabs"]


@dataclass(frozen=True)
class Factors:
    """n matrices G_i = sum_r left_r^T right_r of one shape (d_in, d_out), their factors packed one after the other.

    Shapes: left (k, d_in), right (k, d_out), fp32; counts (n,) integers that sum to k, 0 for a matrix of zeros.
    """

    left: Tensor
    right: Tensor
    counts: Sequence[int]

    @classmethod
    def joined(cls, parts: "Sequence[Factors]") -> "Factors":
        """Put several lists of matrices into one."""
        counts = [count for part in parts for count in part.counts]
        return cls(torch.cat([part.left for part in parts]), torch.cat([part.right for part in parts]), counts)

    @property
    def spans(self) -> list[slice]:
        """Where each matrix's factors lie."""
        ends = torch.tensor([0, *self.counts]).cumsum(0).tolist()
        return [slice(start, end) for start, end in zip(ends, ends[1:], strict=False)]


@torch.no_grad()
def gram(factors: Factors, device: str | torch.device = "cpu", way: Way = "auto", block: int = BLOCK) -> Tensor:
    """Return the table (n, n) of Frobenius inner products in fp64, on the CPU.

    Two ways lead to the same numbers; ``auto`` takes the one with fewer multiplications. ``tokens`` multiplies every
    factor with every other, k^2 (d_in + d_out). ``slabs`` forms some columns of all matrices at a time,
    n^2 d_in d_out. Products are made in fp32, of factors that are first brought to one size, and added up in fp64.

    Args:
        factors: of the n matrices.
        device: where the products are made.
        way: see above.
        block: numbers held at once, besides the factors.
    """
    n, k = len(factors.counts), len(factors.left)
    d_in, d_out = factors.left.shape[1], factors.right.shape[1]
    if way == "auto":
        way = "tokens" if k * k * (d_in + d_out) < (n * n + k) * d_in * d_out else "slabs"
    left, scales = _one_size(factors, factors.left.to(device))
    right, more = _one_size(factors, factors.right.to(device))
    made = Factors(left, right, factors.counts)
    found = _by_tokens(made, block) if way == "tokens" else _by_slabs(made, block)
    upper = found.triu()
    scales = scales * more
    return (upper + upper.triu(1).T) * (scales.unsqueeze(1) * scales)


def _one_size(factors: Factors, packed: Tensor) -> tuple[Tensor, Tensor]:
    """Divide each matrix's vectors (k, d) by their common norm; return them and the norms (n,), fp64 on the CPU."""
    counts = torch.tensor(list(factors.counts), device=packed.device)
    squares = packed.double().square().sum(1)
    request = torch.repeat_interleave(torch.arange(len(counts), device=packed.device), counts)
    norms = torch.zeros(len(counts), dtype=torch.float64, device=packed.device).index_add(0, request, squares).sqrt()
    safe = torch.where(norms > 0, norms, 1.0)
    return (packed.double() / safe[request].unsqueeze(1)).float(), norms.cpu()


def _by_tokens(factors: Factors, block: int) -> Tensor:
    """The table's upper triangle, factor by factor: rows of some matrices at a time against all that follow."""
    n, spans = len(factors.counts), factors.spans
    counts = torch.tensor(list(factors.counts), device=factors.left.device)
    found = torch.zeros(n, n, dtype=torch.float64)
    start = 0
    while start < n:
        first, end = spans[start].start, start + 1
        after = len(factors.left) - first
        while end < n and (spans[end].stop - first) * after <= block:
            end += 1
        rows = slice(first, spans[end - 1].stop)
        products = factors.left[first:] @ factors.left[rows].T
        products *= factors.right[first:] @ factors.right[rows].T
        by_column = _sums(products.double(), counts[start:])
        found[start:end, start:] = _sums(by_column.T.contiguous(), counts[start:end]).cpu()
        start = end
    return found


def _sums(values: Tensor, counts: Tensor) -> Tensor:
    """Add up the rows (k, m) of each group of neighbours: (n, m)."""
    return torch.segment_reduce(values, "sum", lengths=counts, axis=0, initial=0)


def _by_slabs(factors: Factors, block: int) -> Tensor:
    """The table's upper triangle, some columns of every matrix at a time."""
    left, right = factors.left, factors.right
    if left.shape[1] > right.shape[1]:  # the transposed matrices have the same inner products
        left, right = right, left
    n, height, width = len(factors.counts), left.shape[1], right.shape[1]
    at_once = max(1, min(width, block // max(1, n * height)))
    found = torch.zeros(n, n, dtype=torch.float64, device=left.device)
    quarter = max(1, -(-n // 4))
    slab = left.new_zeros(n, height, at_once)
    for column in range(0, width, at_once):
        some = right[:, column : column + at_once]
        slab = slab[:, :, : some.shape[1]].contiguous()
        for index, span in enumerate(factors.spans):
            torch.mm(left[span].T, some[span], out=slab[index])
        flat = slab.flatten(1)
        for start in range(0, n, quarter):
            found[start : start + quarter, start:] += flat[start : start + quarter] @ flat[start:].T
    return found.cpu()


def directions(table: Tensor) -> Tensor:
    """Return the table (n, n) of the same matrices at norm 1: their cosines; a matrix of zeros has 0 with all."""
    norms = table.diagonal().clamp_min(0).sqrt()
    scale = torch.where(norms > 0, 1 / norms, 0.0)
    return table * (scale.unsqueeze(1) * scale)


def distances(table: Tensor) -> Tensor:
    """Return the Euclidean distances (n, n) between the matrices of a table, exactly 0 on the diagonal."""
    squares = table.diagonal()
    found = (squares.unsqueeze(1) + squares - 2 * table).clamp_min(0).sqrt()
    return found.fill_diagonal_(0)
