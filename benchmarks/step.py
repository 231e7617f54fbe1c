"""Edits per second of our training step against a textbook MEND step, in one run.

    python benchmarks/step.py --base smollm2-135m --rank 256
    python benchmarks/step.py --base gpt2-xl --rank 1920 --batch 16

Both have the same base, sites, hypernetwork, inputs, loss, dtype and threads, in eval mode, with Adam's steps: ours one
a batch, the textbook's one every two edits. The rounds take turns; medians and ratios are printed. Before that it is
checked that both compute the same losses and updates, and that the textbook's counted operations are what it says:
four forward passes and two backward passes of the whole model.

"computed" runs the trunk for every batch; "stored" reads its states, as every epoch after the first does.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from flops import counted, textbook_flops
from output import print_json, print_table
from setting import BASES, DTYPES, make_base, make_batches, make_editor, stage_of, train_step, twin
from textbook import ACCUMULATED, textbook_step

from instructedit.base import Base
from instructedit.data.collate import Batch
from instructedit.hypernet.editor import HyperEditor
from instructedit.metatrain import LossWeights, Stage, meta_loss, request_gradients, request_updates
from instructedit.optimisers import make_adam

WEIGHTS = LossWeights()
LR = 1e-6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", choices=BASES, default="smollm2-135m")
    parser.add_argument("--rank", type=int, default=256)
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 4, 16, 32])
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--edits", type=int, default=4, help="edits of the textbook in a round, an even number")
    parser.add_argument("--data", type=Path, help="prepared demo tasks; else they are made in memory")
    parser.add_argument("--blocks", type=int, help="another depth for a random base, for a quick look")
    given = parser.parse_args()
    shape = (
        {} if given.blocks is None else {"n_layer" if given.base == "gpt2-xl" else "num_hidden_layers": given.blocks}
    )
    base = make_base(given.base, DTYPES[given.dtype], **shape)
    small = make_batches(base, 4, 2, given.data)
    editor, stage = make_editor(base, given.rank, small)
    check_same(base, editor, stage, small[0], 1e-3 if given.dtype == "float32" else 0.1)
    check_flops(base, editor, small[0])
    results = []
    for batch in given.batch:
        rates = measure(base, editor, batch, given.rounds, given.edits, given.data)
        ratios = {f"ratio_{name}": rates[name] / rates["textbook"] for name in ("computed", "stored")}
        results.append({"batch": batch, **rates, **ratios})
        print(f"batch {batch}: {ratios['ratio_computed']:.1f} and {ratios['ratio_stored']:.1f} times", flush=True)
    columns = ("batch", "textbook", "ours, computed", "ours, stored", "times, computed", "times, stored")
    title = (
        f"{given.base}, rank {given.rank}, {given.dtype}, {torch.get_num_threads()} threads: edits a second, medians"
    )
    print_table(columns, [list(result.values()) for result in results], title)
    told = {"base": given.base, "rank": given.rank, "blocks": base.n_blocks, "results": results}
    print_json("step", told, given.dtype)


def check_same(base: Base, editor: HyperEditor, stage: Stage, batch: Batch, tolerance: float) -> None:
    """Compare losses and dense updates, request by request.

    Raises:
        SystemExit: they differ by more than a share of their size.
    """
    with torch.no_grad():
        gradients = request_gradients(editor, stage, batch.inner, len(batch))
        updates = request_updates(editor, stage, gradients, batch.requests)
        ours = {name: update.materialise() for name, update in updates.items()}
    loss = float(meta_loss(editor, stage, batch, WEIGHTS).loss.detach())
    total, worst = 0.0, 0.0
    for request in range(len(batch)):
        theirs = textbook_step(base, editor, batch, request, WEIGHTS)
        total += float(theirs.loss.detach())
        for name, change in theirs.changes.items():
            apart = float((ours[name][request] - change).norm() / change.norm().clamp_min(1e-30))
            worst = max(worst, apart)
    apart = abs(loss - total) / abs(total)
    print(f"same step: losses {loss:.6f} and {total:.6f}, updates at most {worst:.1e} of their norm apart")
    if apart > tolerance or worst > tolerance:
        raise SystemExit(f"error: the two steps differ: losses by {apart:.1e}, updates by {worst:.1e} of their size.")


def check_flops(base: Base, editor: HyperEditor, batch: Batch) -> None:
    """Count the textbook's operations, and print them beside those of its forward and backward passes."""

    def step() -> None:
        textbook_step(base, editor, batch, 0, WEIGHTS).loss.backward()

    found, wanted = counted(step), textbook_flops(base, editor, batch, 0)
    editor.zero_grad()
    print(
        f"the textbook's edit: {found / 1e9:.1f} GFLOP counted, {wanted / 1e9:.1f} by formula (4 forward, 2 backward)"
    )
    if abs(found - wanted) > 0.02 * wanted:
        raise SystemExit("error: the textbook's step does not compute what it says.")


def measure(
    base: Base, editor: HyperEditor, batch: int, rounds: int, edits: int, prepared: Path | None
) -> dict[str, float]:
    """Return edits per second of the three, each the median over rounds that take turns."""
    batches = make_batches(base, batch, rounds + 1, prepared)
    single = make_batches(base, edits, rounds + 1, prepared)
    steps: dict[str, Callable[[int], int]] = {
        "textbook": _textbook(base, twin(editor), single),
        "computed": _ours(stage_of(base, keep=False), twin(editor), batches),
        "stored": _ours(stage_of(base, keep=True), twin(editor), batches, fill=True),
    }
    times: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(rounds + 1):
        for name, step in steps.items():
            start = time.perf_counter()
            done = step(number)
            if number:  # the first round warms up
                times[name].append((time.perf_counter() - start) / done)
    return {name: 1 / statistics.median(found) for name, found in times.items()}


def _textbook(base: Base, editor: HyperEditor, batches: Sequence[Batch]) -> Callable[[int], int]:
    optimizer = torch.optim.Adam(editor.parameters(), LR)

    def step(number: int) -> int:
        batch, kept = batches[number], []
        for request in range(len(batch)):
            edited = textbook_step(base, editor, batch, request, WEIGHTS)
            (edited.loss / ACCUMULATED).backward()
            kept.append(edited.sums)
            if len(kept) == ACCUMULATED:
                optimizer.step()
                optimizer.zero_grad()
                editor.merge([a + b for a, b in zip(*kept, strict=True)])
                kept = []
        return len(batch)

    return step


def _ours(stage: Stage, editor: HyperEditor, batches: Sequence[Batch], fill: bool = False) -> Callable[[int], int]:
    optimizer = make_adam(editor.parameters(), LR)
    if fill:
        for batch in batches:
            stage.store.states((batch.inner + batch.rephrase + batch.avoid + batch.locality).ids)

    def step(number: int) -> int:
        batch = batches[number]
        train_step(editor, stage, batch, optimizer)
        return len(batch)

    return step


if __name__ == "__main__":
    main()
