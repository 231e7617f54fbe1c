"""The formulas of scale.py: bytes that ranks give to collectives in a step, and the time of a step on many GPUs.

Loads no torch. Everything that is assumed is a field of ``Text`` or ``Cluster``, with the words it is printed with.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import ceil, log2
from typing import Any, Literal

from instructedit.base.sizes import BaseSize, EditorSize, Placing, StepSize, accelerator_memory

Strategy = Literal["ddp", "zero_2"]
Kind = Literal["all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce"]

FP32, FP64 = 4, 8
DDP_BUCKET = 25 * 2**20
"""Bytes of gradients that DDP gives to one all-reduce, its default."""

MOST_EDITS = 1_000_000
"""Nobody's memory holds so many at once."""

MEANS = 8
"""Columns of the table of means that ranks add up: counts, losses and six parts of the loss, per task."""


def told(default: float, words: str) -> Any:
    """A field with the words it is printed with."""
    return field(default=default, metadata={"words": words})


@dataclass(frozen=True)
class Text:
    """What one edit brings into a step, as in ``sizes.StepSize``."""

    tokens: float = told(64, "tokens in a row")
    targets: float = told(8, "target tokens in a row")
    inner: float = told(1, "rows whose gradient the editor is given, an edit")
    outer: float = told(4, "rows under the edit: edit input, rephrase, 2 locality inputs, an edit")
    kept: float = told(2, "rows run once more without it: the locality inputs, an edit")


@dataclass(frozen=True)
class Cluster:
    """The machines."""

    node: float = told(8, "GPUs in a node")
    intra: float = told(300, "GB/s a GPU sends to others of its node")
    inter: float = told(50, "GB/s a node sends to other nodes (one link of 400 Gb/s)")
    latency: float = told(10, "microseconds between two ranks")
    tail_rate: float = told(300, "TFLOP/s of the base's bf16 products, reached")
    editor_rate: float = told(40, "TFLOP/s of the hypernetwork's fp32 products, reached")
    memory_rate: float = told(2500, "GB/s of GPU memory, reached; Adam is bound by it")
    memory: float = told(72, "GB of GPU memory that a step may fill")


@dataclass(frozen=True)
class Collective:
    """One kind of traffic in a step: bytes that each rank gives to so many calls."""

    what: str
    kind: Kind
    bytes: float
    calls: int = 1

    def sent(self, ranks: int) -> float:
        """Bytes one rank sends, on average, as a ring sends them."""
        return (2 if self.kind == "all_reduce" else 1) * (ranks - 1) / ranks * self.bytes

    def seconds(self, ranks: int, cluster: Cluster) -> float:
        """Time of a ring, or of a tree where that is quicker: few bytes among many ranks."""
        if ranks == 1:
            return 0.0
        # Across nodes the rings of all of a node's GPUs share its links.
        rate = 1e9 * (cluster.intra if ranks <= cluster.node else min(cluster.intra, cluster.inter))
        hop, rounds = 1e-6 * cluster.latency, 2 if self.kind == "all_reduce" else 1
        ring = self.calls * rounds * (ranks - 1) * hop + self.sent(ranks) / rate
        tree = self.calls * rounds * ceil(log2(ranks)) * hop + rounds * self.bytes / rate
        return min(ring, tree)


def traffic(strategy: Strategy, editor: EditorSize, n_sites: int, n_tasks: int) -> list[Collective]:
    """What each rank gives to collectives in one optimiser step without micro-batches.

    ddp: all gradients, all-reduced; DDP also sends rank zero's buffers, the running moments, at each forward.
    zero_2: DeepSpeed all-reduces each bucket of gradients, although a rank keeps its part alone; then each rank
    sends the parameters it has stepped to all. Both: the sums for the moments (count, first and second, 8
    bytes each), the table of means, and a flag or a norm.
    """
    weights = FP32 * editor.parameters
    sums = Collective("moments' sums", "all_reduce", FP64 * (n_sites + 2 * editor.width))
    means = Collective("table of means", "all_reduce", FP64 * n_tasks * MEANS, 0)  # in the same message
    if strategy == "ddp":
        buckets = ceil(weights / DDP_BUCKET)
        buffers = FP64 * n_sites + 2 * FP32 * editor.width
        return [
            Collective("gradients", "all_reduce", weights, buckets),
            Collective("moments' buffers", "broadcast", buffers),
            sums,
            means,
        ]
    return [
        Collective("gradients", "all_reduce", weights, ceil(weights / (FP32 * 50_000_000))),
        Collective("stepped parameters", "all_gather", weights, 2),
        sums,
        means,
    ]


def by_kind(parts: Iterable[Collective]) -> dict[str, float]:
    """Bytes given to each kind of collective."""
    found: dict[str, float] = {}
    for part in parts:
        found[part.kind] = found.get(part.kind, 0) + part.bytes
    return found


@dataclass(frozen=True)
class Model:
    """A base with its editor on a cluster, the trunk's states stored.

    Args:
        base: sizes of the base.
        shapes: (d_in, d_out) of every site, in forward order.
        in_last: how many of them, at the end, lie in the last block.
        editor: sizes of the editor.
        rank: inner width of its blocks.
        n_blocks: how many blocks each of its networks has.
        n_tasks: tasks trained on.
    """

    base: BaseSize
    shapes: Sequence[tuple[int, int]]
    in_last: int
    editor: EditorSize
    rank: int
    n_blocks: int
    n_tasks: int = 3

    def flops(self, text: Text) -> tuple[float, float]:
        """Floating-point operations of one edit: of the base, and of the hypernetwork.

        Two a number and token forward; backward to activations two more, to weights two more. Attention's
        scores and what is not a matrix product are left out. Sites of the last block have a gradient at target
        tokens alone.
        """
        rows = 2 * text.inner + 2 * text.outer + text.kept  # forward and backward, forward and backward, forward
        tail = 2 * rows * text.tokens * self.base.tail
        head = 2 * rows * text.targets * self.base.width * self.base.vocabulary
        update = network = 0.0
        for place, (d_in, d_out) in enumerate(self.shapes):
            last = place >= len(self.shapes) - self.in_last
            tokens, width = text.inner * (text.targets if last else text.tokens), d_in + d_out
            update += 3 * 2 * text.outer * text.tokens * tokens * width
            network += 3 * 2 * tokens * self.n_blocks * 2 * min(self.rank, width) * width
        return tail + head + update, network

    def edit_seconds(self, text: Text, cluster: Cluster) -> float:
        """Computing time of one edit."""
        base, editor = self.flops(text)
        return base / (1e12 * cluster.tail_rate) + editor / (1e12 * cluster.editor_rate)

    def adam_seconds(self, strategy: Strategy, ranks: int, cluster: Cluster) -> float:
        """Adam reads four numbers of each parameter and writes three; under ZeRO of a rank's part alone."""
        parameters = self.editor.parameters / (ranks if strategy == "zero_2" else 1)
        return 7 * FP32 * parameters / (1e9 * cluster.memory_rate)

    def talk_seconds(self, strategy: Strategy, ranks: int, cluster: Cluster) -> float:
        """Time of all collectives of a step, none hidden behind computing."""
        parts = traffic(strategy, self.editor, len(self.shapes), self.n_tasks)
        return sum(part.seconds(ranks, cluster) for part in parts)

    def step_seconds(self, strategy: Strategy, ranks: int, edits: float, text: Text, cluster: Cluster) -> float:
        """Time of a step of ``edits`` edits on each rank."""
        own = edits * self.edit_seconds(text, cluster) + self.adam_seconds(strategy, ranks, cluster)
        return own + self.talk_seconds(strategy, ranks, cluster)

    def least_edits(self, strategy: Strategy, ranks: int, share: float, text: Text, cluster: Cluster) -> int:
        """Edits a rank needs for its collectives to take no more than a share of the step; 1 or more."""
        own = self.talk_seconds(strategy, ranks, cluster) * (1 - share) / share
        left = own - self.adam_seconds(strategy, ranks, cluster)
        return max(1, ceil(left / self.edit_seconds(text, cluster)))

    def most_edits(self, strategy: Strategy, ranks: int, text: Text, cluster: Cluster) -> int:
        """Edits a rank has memory for at once, by the formulas of docs/placement.md, the base replicated in bf16."""
        placing = Placing("replicated", "bfloat16", ranks=ranks, zero=2 if strategy == "zero_2" else 0)

        def needed(edits: int) -> int:
            rows, inner, local = (int(each * edits) for each in (text.outer, text.inner, text.kept))
            step = StepSize(rows, inner, local, text.tokens, text.targets)
            return accelerator_memory(self.base, self.editor, placing, step).total

        return bisect_right(range(MOST_EDITS), 1e9 * cluster.memory, key=needed) - 1
