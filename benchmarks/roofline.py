"""Where a step's time goes, and how near each phase comes to the machine's own matrix products.

    python benchmarks/roofline.py --base gpt2-xl --rank 1920 --batch 32
    python benchmarks/roofline.py --base smollm2-135m --rank 256 --batch 32 --dtype bfloat16

Operations of each phase follow from the formulas in flops.py; their sum is held against what torch counts in the very
step. The peak is the best rate of plain matrix products of the step's own sizes, measured in the same run. Times of
phases are medians; "the rest" is what lies between the phases.
"""

import argparse
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from flops import (
    Sizes,
    counted,
    editor_backward,
    editor_forward,
    low_rank_backward,
    low_rank_forward,
    most_ranks,
    norm_flops,
    padded_length,
    site_tokens,
    trunk_flops,
)
from output import print_json, print_table
from setting import BASES, DTYPES, make_base, make_batches, make_editor, stage_of, train_step

from instructedit.base import Base
from instructedit.data.collate import Batch
from instructedit.data.rows import Rows
from instructedit.head_losses import kl_at, nll_at
from instructedit.hypernet.editor import HyperEditor
from instructedit.lowrank import whole_norms
from instructedit.metatrain import LossWeights, Stage, edited_states, meta_loss, request_gradients, request_updates
from instructedit.optimisers import make_adam

WEIGHTS = LossWeights()
PHASES = ("trunk", "inner", "hypernetwork", "outer", "head", "optimiser")
TOLERANCE = 0.01
"""How far the formulas' sum may be from torch's count."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", choices=BASES, default="gpt2-xl")
    parser.add_argument("--rank", type=int, default=1920)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--blocks", type=int, help="another depth for a random base, for a quick look")
    parser.add_argument("--stored", action="store_true", help="trunk states are there already")
    parser.add_argument("--data", type=Path, help="prepared demo tasks; else they are made in memory")
    given = parser.parse_args()
    shape = (
        {} if given.blocks is None else {"n_layer" if given.base == "gpt2-xl" else "num_hidden_layers": given.blocks}
    )
    base = make_base(given.base, DTYPES[given.dtype], **shape)
    batches = make_batches(base, given.batch, given.rounds + 1, given.data)
    editor, _ = make_editor(base, given.rank, make_batches(base, 4, 2, given.data))
    stage = stage_of(base, keep=given.stored)
    check_count(base, editor, stage, batches[0], given.stored)
    peak = matmul_peak(base, editor, batches[0])
    times, whole = phase_times(editor, stage, batches)
    per_batch = [phase_flops(base, editor, stage, batch, given.stored) for batch in batches[1:]]
    flop = {name: statistics.mean(found[name] for found in per_batch) for name in PHASES}
    times["the rest"] = whole - sum(times.values())
    rows: list[dict[str, Any]] = []
    for name in (*PHASES, "the rest", "whole step"):
        seconds = whole if name == "whole step" else times[name]
        operations = sum(flop.values()) if name == "whole step" else flop.get(name, 0.0)
        rows.append({"phase": name, "flop": operations, "seconds": seconds, "of_peak": operations / seconds / peak})
    title = (
        f"{given.base}, {base.n_blocks} blocks, rank {given.rank}, batch {given.batch}, {given.dtype}, "
        f"{torch.get_num_threads()} threads, trunk {'stored' if given.stored else 'computed'}; "
        f"matrix products reach {peak / 1e9:.0f} GFLOP/s"
    )
    columns = ("phase", "GFLOP", "seconds", "% of the step", "GFLOP/s", "% of the peak")
    shown = [
        (name, flop / 1e9, seconds, 100 * seconds / whole, flop / seconds / 1e9, 100 * share)
        for name, flop, seconds, share in (row.values() for row in rows)
    ]
    print_table(columns, shown, title)
    about = {"base": given.base, "blocks": base.n_blocks, "rank": given.rank, "batch": given.batch}
    print_json("roofline", {**about, "stored": given.stored, "peak": peak, "phases": rows}, given.dtype)


def phase_flops(base: Base, editor: HyperEditor, stage: Stage, batch: Batch, stored: bool) -> dict[str, int]:
    """Operations of each phase of a step, by formula."""
    sizes, first = Sizes.of(base), stage.split.first_block
    tail, n = base.n_blocks - first, len(batch)
    outer = batch.inner + batch.rephrase + batch.avoid
    tokens = site_tokens(base, editor, batch.inner)
    ranks = most_ranks(base, editor, batch.inner)

    def forward(rows: Rows) -> int:
        return sizes.tail_forward(len(rows), padded_length(rows), rows.most_targets, tail)

    def backward(rows: Rows) -> int:
        return sizes.tail_backward(len(rows), padded_length(rows), rows.most_targets, tail)

    def changed(rows: Rows) -> int:
        return low_rank_forward(base, editor, rows, ranks) + low_rank_backward(base, editor, rows, ranks, n)

    inner_targets, outer_targets, local_targets = (sum(rows.n_target) for rows in (batch.inner, outer, batch.locality))
    edited = forward(outer) + backward(outer) + changed(outer)
    local = 2 * forward(batch.locality) + backward(batch.locality) + changed(batch.locality)
    # Each edited target has logits and a gradient; the unedited locality's have logits alone.
    heads = 2 * inner_targets + 2 * outer_targets + 3 * local_targets
    directions = {"none": 0, "site": 1}[editor.config.direction] * 2  # looked up for the moments, and for the pass
    norms = norm_flops(editor, ranks, n)
    return {
        "trunk": 0 if stored else trunk_flops(sizes, stage.store, first, outer + batch.locality),
        "inner": forward(batch.inner) + backward(batch.inner),
        "hypernetwork": editor_forward(editor, tokens) + editor_backward(editor, tokens) + directions * norms,
        "outer": edited + local + norms,
        "head": sizes.head(1) * heads,
        "optimiser": 0,
    }


def check_count(base: Base, editor: HyperEditor, stage: Stage, batch: Batch, stored: bool) -> None:
    """Hold the formulas' sum against torch's count of the very step.

    Raises:
        SystemExit: they are further apart than the tolerance.
    """
    stage.store.states([(0,)])  # the first pass of a store is looked at twice
    if stored:
        stage.store.states((batch.inner + batch.rephrase + batch.avoid + batch.locality).ids)
    wanted = sum(phase_flops(base, editor, stage, batch, stored).values())
    found = counted(lambda: (meta_loss(editor, stage, batch, WEIGHTS).loss / len(batch)).backward())
    editor.zero_grad()
    print(f"one step: {wanted / 1e9:.1f} GFLOP by formula, {found / 1e9:.1f} counted by torch")
    if abs(found - wanted) > TOLERANCE * found:
        raise SystemExit("error: the formulas and torch's count differ.")


def matmul_peak(base: Base, editor: HyperEditor, batch: Batch) -> float:
    """Operations a second of the best of the step's own products, each the best of some tries."""
    sizes = Sizes.of(base)
    tokens = sum(len(ids) for ids in batch.inner.ids)
    site = editor.sites[0]
    width = site.d_in + site.d_out
    passed = stage_of(base, keep=False).store
    shapes = [
        (len(batch) * 2 * padded_length(batch.inner), site.d_in, site.d_out, base.dtype),
        (len(batch) * 2 * padded_length(batch.inner), sizes.d, sizes.d, base.dtype),
        (passed.rows_per_pass * passed.pad_to_tokens, site.d_in, site.d_out, base.dtype),
        (tokens, width, min(editor.config.rank, width), torch.float32),
        (256, sizes.d, site.d_out, base.dtype),
    ]
    return max(_rate(*shape) for shape in shapes)


def _rate(m: int, k: int, n: int, dtype: torch.dtype) -> float:
    a, b, out = torch.randn(m, k).to(dtype), torch.randn(k, n).to(dtype), torch.empty(m, n, dtype=dtype)
    best = float("inf")
    end = time.perf_counter() + 2
    while time.perf_counter() < end:
        start = time.perf_counter()
        torch.mm(a, b, out=out)
        best = min(best, time.perf_counter() - start)
    return 2 * m * k * n / best


def phase_times(editor: HyperEditor, stage: Stage, batches: list[Batch]) -> tuple[dict[str, float], float]:
    """Return the seconds of each phase, and of a whole step made by ``meta_loss``: medians over batches."""
    optimizer = make_adam(editor.parameters(), 1e-6)
    found: dict[str, list[float]] = {name: [] for name in PHASES}
    whole = []
    for number, batch in enumerate(batches):
        if stage.store.keeps:
            stage.store.states((batch.inner + batch.rephrase + batch.avoid + batch.locality).ids)
        clock = Clock()
        timed_step(editor, stage, batch, optimizer, clock)
        start = time.perf_counter()
        train_step(editor, stage, batch, optimizer)
        if number:
            whole.append(time.perf_counter() - start)
            for name, seconds in clock.seconds.items():
                found[name].append(seconds)
    return {name: statistics.median(values) for name, values in found.items()}, statistics.median(whole)


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def of(self, phase: str) -> Iterator[None]:
        """Count a block to a phase."""
        start = time.perf_counter()
        yield
        self.seconds[phase] += time.perf_counter() - start


def timed_step(editor: HyperEditor, stage: Stage, batch: Batch, optimizer: torch.optim.Optimizer, clock: Clock) -> None:
    """``meta_loss`` and its backward pass taken apart, with a look at the clock between the parts.

    The backward pass of each part is run by itself, from the gradients of the one behind it.
    """
    outer, n = batch.inner + batch.rephrase + batch.avoid, len(batch)
    with clock.of("trunk"):
        inner_hidden, outer_hidden, local_hidden = stage.hidden_of(batch.inner, outer, batch.locality)
    split = stage.split
    with clock.of("inner"):
        gradients = request_gradients(editor, stage, batch.inner, n, inner_hidden)
    with clock.of("hypernetwork"):
        sums = editor.sums(gradients)
        updates = request_updates(editor, stage, gradients, batch.requests)
    cut = {name: _cut(update) for name, update in updates.items()}
    with clock.of("outer"):
        states = edited_states(stage, cut, outer, outer_hidden)
        with torch.no_grad():
            before = edited_states(stage, {}, batch.locality, local_hidden)
        after = edited_states(stage, cut, batch.locality, local_hidden)
        whole_norms(cut)
    at_head, local_at_head = (part.detach().requires_grad_() for part in (states, after))
    with clock.of("head"):
        nll, _ = nll_at(split, at_head, outer.targets().label)
        kl, _ = kl_at(split, before, local_at_head)
        (WEIGHTS.edit * nll.sum() + WEIGHTS.locality * kl.sum()).backward()
    factors = [part for update in cut.values() for part in (update.u, update.v)]
    with clock.of("outer"):
        torch.autograd.backward([states, after], [at_head.grad, local_at_head.grad])
    with clock.of("hypernetwork"):
        whole = [part for update in updates.values() for part in (update.u, update.v)]
        torch.autograd.backward(whole, [part.grad for part in factors])
    with clock.of("optimiser"):
        optimizer.step()
        optimizer.zero_grad()
        editor.merge(sums)


def _cut(update: Any) -> Any:
    return type(update)(update.u.detach().requires_grad_(), update.v.detach().requires_grad_())


if __name__ == "__main__":
    main()
