"""Time of a training step against the depth of the base, trunk states stored: it should not grow.

    python benchmarks/depth.py
    python benchmarks/depth.py --width 576 --batch 8

Random GPT-2 bases of one width and 8, 16, 32 and 48 blocks, the same editor on the last three, the same texts; all the
bases' rounds take turns.
"""

import argparse
import statistics
import time

import torch
from output import print_json, print_table
from setting import DTYPES, make_base, make_batches, make_editor, stage_of, train_step

from instructedit.optimisers import make_adam


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--depths", type=int, nargs="+", default=[8, 16, 32, 48])
    parser.add_argument("--width", type=int, default=1024, help="of hidden states, a multiple of 64")
    parser.add_argument("--rank", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    given = parser.parse_args()
    times = measure(given.depths, given.width, given.rank, given.batch, DTYPES[given.dtype], given.rounds)
    first = times[given.depths[0]]
    rows = [(depth, seconds, f"{100 * seconds / first:.0f} %") for depth, seconds in times.items()]
    title = f"width {given.width}, rank {given.rank}, batch {given.batch}, {given.dtype}, trunk stored"
    print_table(("blocks", "seconds a step", f"of {given.depths[0]} blocks"), rows, title)
    about = {"width": given.width, "rank": given.rank, "batch": given.batch, "seconds": times}
    print_json("depth", about, given.dtype)


def measure(depths: list[int], width: int, rank: int, batch: int, dtype: torch.dtype, rounds: int) -> dict[int, float]:
    """Return the median seconds of a step for each depth."""
    found: dict[int, list[float]] = {depth: [] for depth in depths}
    steps = {}
    for depth in depths:
        base = make_base("gpt2-xl", dtype, n_embd=width, n_head=width // 64, n_layer=depth)
        batches = make_batches(base, batch, 2)
        editor, _ = make_editor(base, rank, batches)
        stage = stage_of(base, keep=True)
        for one in batches:
            stage.store.states((one.inner + one.rephrase + one.avoid + one.locality).ids)
        steps[depth] = (editor, stage, batches, make_adam(editor.parameters(), 1e-6))
    for number in range(rounds + 1):
        for depth, (editor, stage, batches, optimizer) in steps.items():
            start = time.perf_counter()
            train_step(editor, stage, batches[number % 2], optimizer)
            if number:
                found[depth].append(time.perf_counter() - start)
    return {depth: statistics.median(values) for depth, values in found.items()}


if __name__ == "__main__":
    main()
