"""Sizes: what one accelerator has to hold to meta-train an editor, computed from numbers of parameters alone.

Weights, gradients and optimiser states are counted; what a step adds at its peak is an estimate, of MEND's editor.
The peak is the end of the forward pass: the graphs of the edited texts and of the locality inputs are there, and
the logits of the last portion; the backward pass frees more than it makes. Knows no model and loads no torch:
``memory`` counts one that is there, ``config_sizes`` one by its config.json alone.
Not counted: the accelerator's own context, the allocator's gaps, an engine's communication buffers, and the passing
states of a trunk pass (it keeps none).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from instructedit.errors import InputError

FP32 = 4

DType = Literal["float32", "bfloat16"]
BYTES: dict[DType, int] = {"float32": FP32, "bfloat16": 2}
"""Of one number of a base."""

GATHERED = 300_000_000
"""Numbers of a sharded base that are whole on an accelerator at once, at most: what our ZeRO strategies allow."""

PORTION = 32 * 2**20
"""Bytes of the fp32 logits that a loss looks at at once: ``head_losses.PORTION_BYTES``."""


@dataclass(frozen=True)
class BaseSize:
    """Numbers in a base, by part; one that is split at its first edited block.

    Args:
        embeddings: token and position embeddings; without a token embedding that is also the head.
        trunk: the blocks below the first edited block.
        tail: the blocks from there on.
        head: last norm and output head.
        block: the largest block.
        tail_blocks: how many blocks the tail has.
        width: d, of the hidden states.
        inner: m, the output of the first of the MLP's matrices.
        vocabulary: tokens the head knows.
        gated: whether an MLP has a gate: three matrices, and twice as much to keep.
    """

    embeddings: int
    trunk: int
    tail: int
    head: int
    block: int
    tail_blocks: int
    width: int
    inner: int
    vocabulary: int
    gated: bool = True

    @property
    def whole(self) -> int:
        """All of the base's numbers."""
        return self.embeddings + self.trunk + self.tail + self.head


@dataclass(frozen=True)
class EditorSize:
    """Numbers in an editor, which are fp32.

    Args:
        parameters: all that is trained.
        largest: the largest network: what is gathered at once where the editor is cut.
        width: the sum over the sites of d_in + d_out.
        per_token: numbers a token's (x, delta) leaves behind on its way through the editor, over all sites.
        last_width: what of ``width`` is the sites' in the last block's MLP, which see target tokens alone.
        last_per_token: what of ``per_token`` is theirs.
    """

    parameters: int
    largest: int
    width: int
    per_token: int
    last_width: int = 0
    last_per_token: int = 0


def through_mend(sites: Sequence[tuple[int, int]], rank: int, n_blocks: int) -> tuple[int, int]:
    """Return ``width`` and ``per_token`` of MEND's editor on sites of the sizes (d_in, d_out).

    Each of its blocks keeps its input, its inner width and its product; what the last one gives is kept for alpha.
    """
    width = sum(map(sum, sites))
    return width, n_blocks * (2 * width + sum(min(rank, sum(site)) for site in sites)) + width


@dataclass(frozen=True)
class Placing:
    """Where things lie.

    Args:
        base: ``replicated``, ``sharded`` (ZeRO-3 over the ranks) or ``tail_only``.
        dtype: the base's dtype.
        ranks: accelerators that an engine cuts over.
        zero: the stage of ZeRO: 1 cuts the optimiser's state, 2 gradients as well, 3 weights as well; 0 is no engine.
        trunk_device: where the blocks below the tail compute under ``tail_only``.
        offload: whether the engine keeps Adam's moments and its own copy, and under stage 3 weights, in main memory.
    """

    base: Literal["replicated", "sharded", "tail_only"]
    dtype: DType
    ranks: int = 1
    zero: Literal[0, 1, 2, 3] = 0
    trunk_device: Literal["accelerator", "cpu"] = "accelerator"
    offload: bool = False

    def __post_init__(self) -> None:
        if self.base == "sharded" and self.zero != 3:
            raise InputError(f"A sharded base is cut by ZeRO-3; found stage {self.zero}. Set zero to 3.")
        if self.ranks < 1:
            raise InputError(f"There is at least 1 rank; found {self.ranks}.")


@dataclass(frozen=True)
class StepSize:
    """How much text one accelerator's step looks at.

    Args:
        rows: rows that are edited: edit inputs, rephrases, texts to avoid, locality inputs.
        inner_rows: those of them whose gradient the editor is given, one a request.
        local_rows: those of them that are locality inputs.
        tokens: tokens in a row, padding included; where rows differ, the mean.
        targets: target tokens in a row, likewise.
        inner_tokens: tokens in one of the ``inner_rows``; None: ``tokens``.
    """

    rows: int = 8
    inner_rows: int = 2
    local_rows: int = 4
    tokens: float = 64
    targets: float = 8
    inner_tokens: float | None = None


@dataclass(frozen=True)
class Memory:
    """Bytes on one accelerator: base, editor (with gradients and optimiser), and what a step keeps (estimated)."""

    base: int
    editor: int
    step: int

    @property
    def total(self) -> int:
        """All of it."""
        return self.base + self.editor + self.step


def accelerator_memory(base: BaseSize, editor: EditorSize, placing: Placing, step: StepSize = StepSize()) -> Memory:  # noqa: B008
    """Compute what one accelerator holds; the formulas are those of docs/placement.md."""
    return Memory(_base(base, placing), _editor(editor, placing), _step(base, editor, placing, step))


def _base(base: BaseSize, placing: Placing) -> int:
    """Bytes of the frozen base.

    replicated: all. sharded: all / ranks (none where the engine offloads), and what is gathered of the rest: as much
    as is allowed, at least the larger of a block and the head. tail_only: tail and head (a tied embedding is the
    head).
    """
    if placing.base == "replicated":
        numbers = base.whole
    elif placing.base == "sharded":
        own = 0 if placing.offload else -(-base.whole // placing.ranks)
        numbers = min(base.whole, own + max(base.block, base.head, GATHERED))
    else:
        numbers = base.tail + base.head
    return numbers * BYTES[placing.dtype]


def _editor(editor: EditorSize, placing: Placing) -> int:
    """Bytes of the editor: weights 4, gradients 4, Adam's moments 8 a parameter, each cut from its stage of ZeRO on.

    An engine steps a copy of its own of each rank's part of the weights: 4 more, cut over the ranks.
    """
    n = editor.parameters

    def cut(stage: int) -> int:
        return -(-n // placing.ranks) if placing.zero >= stage else n

    gathered = editor.largest if placing.zero == 3 else 0
    copy = cut(1) if placing.zero else 0
    weights = 0 if placing.offload and placing.zero == 3 else cut(3)
    states = 0 if placing.offload else 2 * cut(1) + copy
    return FP32 * (weights + gathered + cut(2) + states)


def _step(base: BaseSize, editor: EditorSize, placing: Placing, step: StepSize) -> int:
    """Bytes a step adds at its peak, an estimate."""
    of_base = BYTES[placing.dtype]
    tokens, targets, inner = step.rows * step.tokens, step.rows * step.targets, step.inner_rows
    inner_tokens = step.tokens if step.inner_tokens is None else step.inner_tokens
    above = base.tail_blocks - 1

    # Inputs of the norms, which are fp32 in any dtype; queries, keys, values, what attention gives, the MLP's input;
    # and the activation's input and output, where it is gated also both factors. The first block's attention has no
    # gradient.
    norms = tokens * (2 * above + 1) * base.width * FP32
    attention = tokens * 5 * above * base.width * of_base
    mlps = (tokens * above + targets) * (4 if base.gated else 2) * base.inner * of_base
    entering = (tokens + inner * inner_tokens) * base.width * of_base

    # An update has a rank for each token of its edit input: once per request in fp32, once per row in the base's dtype.
    update = (editor.width - editor.last_width) * inner_tokens + editor.last_width * step.targets
    updates = update * (inner * FP32 + step.rows * of_base)
    early = (editor.per_token - editor.last_per_token) * inner_tokens
    through_editor = inner * (early + editor.last_per_token * step.targets) * FP32

    # Likelihood: log-softmax and two gradients. Divergence: two times logits, and five fp32 numbers for each.
    likelihood = _positions(base, placing, (step.rows - step.local_rows) * step.targets) * 3 * FP32
    divergence = _positions(base, placing, step.local_rows * step.targets) * (5 * FP32 + 2 * of_base)
    logits = base.vocabulary * max(likelihood, divergence)
    peak = norms + attention + mlps + entering + updates + through_editor + logits

    # A paged block has come and gone before anything of a step is there.
    paged = placing.base == "tail_only" and placing.trunk_device == "accelerator" and base.trunk > 0
    return int(max(peak, base.block * of_base if paged else 0))


def _positions(base: BaseSize, placing: Placing, positions: float) -> float:
    """How many positions have their logits at once: a sharded base's head is asked for all of them."""
    return positions if placing.base == "sharded" else min(positions, max(1, PORTION // (FP32 * base.vocabulary)))
