"""The training step on several processes, bytes on the wire counted, and a model on paper of up to hundreds of GPUs.

    python benchmarks/scale.py [--ranks 1 2] [--strategies ddp zero_2] [--base random] [--rounds 2] [--no-measure]

Claims: what ranks send each other in a step is the hypernetwork's gradients (under ZeRO-2 its parameters too) and the
sums for the moments, as the formula of scale_model.py has it; and by that formula a step on 8, 64 or 512 GPUs spends
less than a tenth of its time on them from the printed global batch on.

Part 1 runs the training module on gloo processes of this machine, its cores divided among them, the trunk's states
stored; bytes are those given to torch.distributed's collectives (see scale_rank.py), and for comparison the loopback
interface's. Part 2 is computed, not measured; every assumption is printed and is a flag.
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from memory_table import BASES, EDITOR, LAST_BLOCKS
from output import print_json, print_table
from scale_model import Cluster, Model, Strategy, Text, traffic
from scale_processes import measure
from transformers import PretrainedConfig

from instructedit.base.config_sizes import ConfigSizes
from instructedit.hypernet.sizes import mend_size

STRATEGIES: tuple[Strategy, ...] = ("ddp", "zero_2")
NAMES = {"ddp": "DDP", "zero_2": "ZeRO-2"}


def main(argv: Sequence[str] | None = None) -> None:
    given = arguments(argv)
    text, cluster = (make(**{f.name: getattr(given, f.name) for f in fields(make)}) for make in (Text, Cluster))
    measured = [] if given.no_measure else measure(given)
    if measured:
        rows = [(NAMES[m["strategy"]], m["ranks"], m["threads"], m["step_s"], m["edits_per_second"]) for m in measured]
        title = f"Measured: gloo, base {given.base}, rank {given.rank}, global batch {given.batch}"
        print_table(("strategy", "ranks", "threads each", "s a step", "edits/s"), rows, title)
        print_table(
            ("strategy", "ranks", "collective", "calls", "bytes counted", "by formula", "ratio"),
            [
                (NAMES[m["strategy"]], m["ranks"], c["kind"], c["calls"], c["bytes"], c["formula"], c["ratio"])
                for m in measured
                for c in m["collectives"]
                if m["ranks"] > 1
            ],
            "Bytes a rank gives to collectives in a step",
        )
        sent = [
            (NAMES[m["strategy"]], m["ranks"], m["sent_counted"] / 1e6, m["sent_formula"] / 1e6, m["loopback"] / 1e6)
            for m in measured
        ]
        title = "MB on the wire in a step, all ranks together: as a ring sends what was counted, and in fact"
        print_table(("strategy", "ranks", "counted", "by formula", "loopback interface"), sent, title)
        worst = max((abs(m["sent_counted"] / m["sent_formula"] - 1) for m in measured if m["ranks"] > 1), default=0.0)
        print(f"\nCount and formula differ by {worst:.2%} at most.")
    print_table(("assumed", "", "flag"), assumptions(text, cluster), "On paper: assumptions")
    print(
        "\nNo collective is hidden behind computing; a ring sends 2 (n - 1) / n of what is all-reduced. Trunk states"
        "\nare read, not computed; reading them, the loader and attention's scores cost nothing. There are no"
        "\nmicro-batches: with them memory does not limit the global batch."
    )
    models = {name: model_of(config) for name, config in BASES.items()}
    weak = [row for name, m in models.items() for row in weak_rows(name, m, given, text, cluster)]
    columns = ["base", "strategy", "GPUs", "MB sent", "ms talking", "ms an edit", "ms a step", "edits/s", "efficiency"]
    columns += [f"global batch for {given.talk_share:.0%} talking", "global batch in memory"]
    print_table(columns, [row.values() for row in weak], f"On paper: {given.edits_per_gpu} edits a GPU")
    strong = [row for name, m in models.items() for row in strong_rows(name, m, given, text, cluster)]
    title = "On paper: a given global batch, DDP (no more GPUs than edits)"
    columns = ["base", "global batch", "GPUs", "ms a step", "edits/s", "times one GPU"]
    print_table(columns, [row.values() for row in strong], title)
    numbers = {"measured": measured, "assumptions": asdict(text) | asdict(cluster), "weak": weak, "strong": strong}
    print_json("scale", numbers, given.dtype, measured[0]["threads"] if measured else None)


def arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--strategies", nargs="+", default=list(STRATEGIES), choices=STRATEGIES)
    parser.add_argument("--base", default="random", help="a base, or random: four small blocks")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rank", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16, help="the global batch of part 1")
    parser.add_argument("--steps", type=int, default=8, help="measured steps of each training")
    parser.add_argument("--rounds", type=int, default=2, help="trainings of each kind, in turns")
    parser.add_argument("--data", type=Path, help="a folder of prepared tasks; else the demo's are prepared")
    parser.add_argument("--tasks", nargs="+", default=["demo-recent", "demo-counterfact", "demo-convsent"])
    parser.add_argument("--no-measure", action="store_true", help="part 2 alone")
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--edits-per-gpu", type=int, default=8)
    parser.add_argument("--global-batches", type=int, nargs="+", default=[8, 64, 512])
    parser.add_argument("--talk-share", type=float, default=0.1, help="of a step, that collectives may take")
    for part in (*fields(Text), *fields(Cluster)):
        parser.add_argument(flag(part.name), type=float, default=part.default, help=part.metadata["words"])
    return parser.parse_args(argv)


def flag(name: str) -> str:
    """The flag of an assumption."""
    return "--" + name.replace("_", "-")


def assumptions(text: Text, cluster: Cluster) -> list[tuple[str, float, str]]:
    """Everything assumed, in words."""
    parts = (text, cluster)
    return [(f.metadata["words"], float(getattr(part, f.name)), flag(f.name)) for part in parts for f in fields(part)]


def model_of(config: PretrainedConfig) -> Model:
    """The paper's editor on a base."""
    found = ConfigSizes.of(config.to_dict())
    sites = found.sites(LAST_BLOCKS)
    shapes = [(matrix.d_in, matrix.d_out) for _, matrix in sites]
    in_last = sum(block == found.blocks - 1 for block, _ in sites)
    editor = mend_size(shapes, EDITOR.rank, EDITOR.n_blocks, in_last)
    return Model(found.base(found.blocks - LAST_BLOCKS), shapes, in_last, editor, EDITOR.rank, EDITOR.n_blocks)


def weak_rows(
    name: str, model: Model, given: argparse.Namespace, text: Text, cluster: Cluster
) -> list[dict[str, object]]:
    """More GPUs, each with its edits: time, efficiency against one GPU, and which global batches make sense."""
    rows: list[dict[str, object]] = []
    for strategy in STRATEGIES:
        alone = model.step_seconds("ddp", 1, given.edits_per_gpu, text, cluster)
        for n in given.gpus:
            step = model.step_seconds(strategy, n, given.edits_per_gpu, text, cluster)
            sent = sum(part.sent(n) for part in traffic(strategy, model.editor, len(model.shapes), model.n_tasks))
            row: dict[str, object] = {"base": name, "strategy": NAMES[strategy], "gpus": n, "mb_sent": sent / 1e6}
            row |= {"talk_ms": 1000 * model.talk_seconds(strategy, n, cluster)}
            row |= {"edit_ms": 1000 * model.edit_seconds(text, cluster), "step_ms": 1000 * step}
            row |= {"edits_per_second": n * given.edits_per_gpu / step, "efficiency": alone / step}
            row["least_batch"] = n * model.least_edits(strategy, n, given.talk_share, text, cluster)
            row["most_batch"] = n * model.most_edits(strategy, n, text, cluster)
            rows.append(row)
    return rows


def strong_rows(
    name: str, model: Model, given: argparse.Namespace, text: Text, cluster: Cluster
) -> list[dict[str, object]]:
    """A given global batch on more GPUs: a GPU has at least one edit."""
    rows: list[dict[str, object]] = []
    for batch in given.global_batches:
        alone = model.step_seconds("ddp", 1, batch, text, cluster)
        for n in given.gpus:
            if n <= batch:
                step = model.step_seconds("ddp", n, batch / n, text, cluster)
                row: dict[str, object] = {"base": name, "batch": batch, "gpus": n, "step_ms": 1000 * step}
                rows.append(row | {"edits_per_second": batch / step, "speedup": alone / step})
    return rows


if __name__ == "__main__":
    main()
