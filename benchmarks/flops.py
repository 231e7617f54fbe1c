"""Floating-point operations of a step, by formula and as torch counts them.

A product of (m, k) and (k, n) is 2 m k n operations; attention is counted whole, not halved for causality, as torch
counts it. What is no product (norms, activations, optimisers) is not counted.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count
from transformers.pytorch_utils import Conv1D

from instructedit.base import Base
from instructedit.base.prefixes import cut
from instructedit.base.sites import Site
from instructedit.base.store import TrunkStore
from instructedit.data.collate import Batch
from instructedit.data.rows import Rows
from instructedit.hypernet.editor import HyperEditor


def counted(work: Callable[[], object]) -> int:
    """Count the operations of some work as torch does."""
    counter = _Counter()
    with counter:
        work()
    return counter.total


class _Counter(TorchDispatchMode):
    """Adds up what torch's own formulas give; its FlopCounterMode fails where a gradient is taken in a forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        attention = torch.ops.aten
        # The attention kernel of CPUs is not in torch's own table.
        self._formulas: dict[Any, Callable[..., Any]] = {
            **flop_registry,
            attention._scaled_dot_product_flash_attention_for_cpu: _attention,
            attention._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
        }

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = self._formulas.get(func.overloadpacket)
        if formula is not None:
            self.total += int(formula(*args, **(kwargs or {}), out_val=out))
        return out


def _attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query.shape, key.shape, value.shape))


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_backward_flop_count(grad.shape, query.shape, key.shape, value.shape))


@dataclass(frozen=True)
class Sizes:
    """What the formulas need of a base.

    Args:
        blocks: how many.
        linear: per path in a block, d_in * d_out of its matrices.
        mlp: the paths that are the MLP's.
        last: the path of the MLP's output matrix.
        queries: width of all attention heads together.
        d: width of hidden states.
        vocabulary: of the head.
    """

    blocks: int
    linear: Mapping[str, int]
    mlp: tuple[str, ...]
    last: str
    queries: int
    d: int
    vocabulary: int

    @classmethod
    def of(cls, base: Base) -> "Sizes":
        """Look at a base's first block."""
        block = base.adaptor.blocks_of(base.model)[0]
        linear = {}
        for path, module in block.named_modules():
            if isinstance(module, Conv1D):
                linear[path] = module.nx * module.nf
            elif isinstance(module, nn.Linear):
                linear[path] = module.in_features * module.out_features
        config = base.model.config
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        mlp = tuple(path for path in linear if path.startswith(f"{base.adaptor.mlp}."))
        d, vocabulary = config.hidden_size, base.model.get_output_embeddings().weight.shape[0]
        return cls(base.n_blocks, linear, mlp, base.adaptor.matrices[-1], heads * width, d, vocabulary)

    def attention(self, n: int, t: int, before: int = 0) -> int:
        """Two products of every query with every key; there are so many keys before the first query's."""
        return 4 * n * t * (before + t) * self.queries

    def blocks_forward(self, n: int, t: int, count: int) -> int:
        """So many whole blocks on n rows of t tokens."""
        return count * (2 * n * t * sum(self.linear.values()) + self.attention(n, t))

    def tail_forward(self, n: int, t: int, m: int, count: int) -> int:
        """The last blocks; the last MLP at m positions of each row."""
        return self.blocks_forward(n, t, count) - 2 * n * (t - m) * sum(self.linear[path] for path in self.mlp)

    def tail_backward(self, n: int, t: int, m: int, count: int) -> int:
        """Gradients of activations alone, down to the first block's MLP's outputs of the first matrices."""
        if count == 1:
            return 2 * n * m * self.linear[self.last]
        whole = (count - 1) * (2 * n * t * sum(self.linear.values()) + 5 * self.attention(n, t) // 2)
        return (
            whole - 2 * n * (t - m) * sum(self.linear[path] for path in self.mlp) + 2 * n * t * self.linear[self.last]
        )

    def head(self, tokens: int) -> int:
        """The output head's product, or that of its backward pass."""
        return 2 * tokens * self.d * self.vocabulary


def editor_forward(editor: HyperEditor, tokens: Mapping[str, int]) -> int:
    """The hypernetwork's forward pass for so many tokens a site."""
    return sum(2 * 2 * editor.config.n_blocks * tokens[site.name] * _square(editor, site) for site in editor.sites)


def editor_backward(editor: HyperEditor, tokens: Mapping[str, int]) -> int:
    """Gradients of all matrices, and of all inputs but the first block's."""
    products = 4 * editor.config.n_blocks - 1
    return sum(2 * products * tokens[site.name] * _square(editor, site) for site in editor.sites)


def _square(editor: HyperEditor, site: Site) -> int:
    width = site.d_in + site.d_out
    return width * min(editor.config.rank, width)


def site_tokens(base: Base, editor: HyperEditor, rows: Rows) -> dict[str, int]:
    """How many tokens have a gradient at each site."""
    targets, mixed = sum(rows.n_target), sum(len(ids) - 1 for ids in rows.ids)
    return {site.name: targets if base.at_targets(site) else mixed for site in editor.sites}


def padded_length(rows: Rows) -> int:
    """The longest row's tokens."""
    return max(len(ids) for ids in rows.ids)


def textbook_flops(base: Base, editor: HyperEditor, batch: Batch, request: int) -> int:
    """One edit of the textbook: four forward and two backward passes of the whole model, and the hypernetwork."""
    sizes = Sizes.of(base)
    inner, rephrase, local = (
        rows.take(i for i, own in enumerate(rows.request) if own == request)
        for rows in (batch.inner, batch.rephrase, batch.locality)
    )
    tail = base.n_blocks - min(site.block for site in editor.sites)
    sites = sum(site.d_in * site.d_out for site in editor.sites)

    def forward(rows: Rows) -> int:
        n, t = len(rows), padded_length(rows)
        return sizes.blocks_forward(n, t, sizes.blocks) + sizes.head(n * t)

    def backward(rows: Rows) -> int:
        # Every token has logits, and every site a gradient of its whole weight.
        n, t = len(rows), padded_length(rows)
        return sizes.head(n * t) + sizes.tail_backward(n, t, t, tail) + 2 * n * t * sites

    outer = inner + rephrase
    tokens = site_tokens(base, editor, inner)
    passes = forward(inner) + forward(outer) + 2 * forward(local) + backward(inner) + backward(outer) + backward(local)
    network = editor_forward(editor, tokens) + editor_backward(editor, tokens)
    # The dense change, and the gradients of its two factors.
    dense = sum(3 * 2 * tokens[site.name] * site.d_in * site.d_out for site in editor.sites)
    return passes + network + dense


def trunk_flops(sizes: Sizes, store: TrunkStore, first_block: int, rows: Rows) -> int:
    """The passes of a store that shares prefixes, for rows it has not and that go together."""
    passes = cut(list(dict.fromkeys(rows.ids)), store.pad_to_tokens, store.rows_per_pass, torch.device("cpu")).passes
    total = 0
    for piece in passes:
        n, t = piece.ids.shape
        attention = sum(sizes.attention(len(depth.rows), t, depth.before * t) for depth in piece.depths)
        total += first_block * (2 * n * t * sum(sizes.linear.values()) + attention)
    return total


def low_rank_forward(base: Base, editor: HyperEditor, rows: Rows, ranks: Mapping[str, int]) -> int:
    """(x u^T) v at every site, for padded rows."""
    return sum(2 * _places(base, site, rows) * ranks[site.name] * (site.d_in + site.d_out) for site in editor.sites)


def low_rank_backward(base: Base, editor: HyperEditor, rows: Rows, ranks: Mapping[str, int], n_requests: int) -> int:
    """Gradients of u, v, what is between and, where something is below, x; u and v summed over a request's rows."""
    total = 0
    first = min(site.block for site in editor.sites)
    for site in editor.sites:
        below = site.block > first or site.name.endswith(base.adaptor.matrices[-1])
        total += 2 * _places(base, site, rows) * ranks[site.name] * (site.d_in * (1 + below) + 2 * site.d_out)
        total += 2 * n_requests * len(rows) * ranks[site.name] * (site.d_in + site.d_out)
    return total


def norm_flops(editor: HyperEditor, ranks: Mapping[str, int], n_requests: int) -> int:
    """Norms of low-rank matrices (r, d_in), (r, d_out) by u u^T and v v^T, once at every site."""
    return sum(2 * n_requests * ranks[site.name] ** 2 * (site.d_in + site.d_out) for site in editor.sites)


def most_ranks(base: Base, editor: HyperEditor, rows: Rows) -> dict[str, int]:
    """The rank of a batch's updates: per site the most tokens of any request that have a gradient there."""
    ranks = {}
    for site in editor.sites:
        used: dict[int, int] = {}
        for ids, n_target, request in zip(rows.ids, rows.n_target, rows.request, strict=True):
            used[request] = used.get(request, 0) + (n_target if base.at_targets(site) else len(ids) - 1)
        ranks[site.name] = max(used.values())
    return ranks


def _places(base: Base, site: Site, rows: Rows) -> int:
    return len(rows) * (rows.most_targets if base.at_targets(site) else padded_length(rows))
