"""Examples per second of reading, sampling and collating, and the share of a training step spent waiting for them.

    python benchmarks/loader.py [--data FOLDER] [--batch 16] [--steps 8] [--workers 0 2] [--dtype bfloat16]

Claim: with the trunk's states stored, a step waits less than 2 % of its time for data, also without worker processes.
The demo tasks are made in memory; --data takes a folder that `instructedit prepare` has written. The last table is of
a training loop of the library's own step, ``meta_loss``, and Adam; the loader is the one ``instructedit fit`` uses. Its
stored states are random numbers, which changes no time. The quicker a step, the larger the share: choose the dtype that
is quicker on the machine (bf16 is many times slower than fp32 on a CPU without instructions for it).
"""

import argparse
import os
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import torch
from output import print_json, print_table

from instructedit.base import Base, SiteSpec, TrunkStore, find_sites, load_base
from instructedit.base.loading import load_tokenizer
from instructedit.data.collate import Collator, TrainingMix
from instructedit.data.samplers import MultiTaskSampler
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from instructedit.instructions.pools import load_pools, pool_for
from instructedit.metatrain import LossWeights, Stage, meta_loss, warm_up
from instructedit.records import EditExample
from instructedit.tasks import load_task
from instructedit.tasks.prepared import read_prepared
from lightning_modules.edit_datamodule import EditDataModule

BAR = 0.02
"""The share of a step that waiting may take."""

DEMO = ("demo-recent", "demo-counterfact", "demo-convsent")
MIX = TrainingMix(reworded=0.25)
"""As in configs/experiment/demo.yaml."""

ANY_STEP = 10**6
"""Steps are drawn from below this for random access."""

Examples = Mapping[str, Sequence[EditExample]]


@dataclass(frozen=True)
class Rate:
    """How fast something is done.

    Args:
        what: in words.
        per_second: examples.
        batch_ms: median time of a batch, in milliseconds; of the whole where there are no batches.
    """

    what: str
    per_second: float
    batch_ms: float


@dataclass(frozen=True)
class Waiting:
    """Where a training step's time goes; medians over steps.

    Args:
        workers: processes that collate.
        step_ms: the whole step.
        wait_ms: inside ``next(loader)``.
        share: median of the steps' shares.
        total_share: all waiting over all time, which a few long waits show in.
    """

    workers: int
    step_ms: float
    wait_ms: float
    share: float
    total_share: float


class Timed:
    """A tokenizer that tells how long its calls took."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call, self.seconds = call, 0.0

    def __call__(self, *args: Any, **settings: Any) -> Any:
        """Tokenise."""
        began = time.perf_counter()
        found = self.call(*args, **settings)
        self.seconds += time.perf_counter() - began
        return found


class Filled(TrunkStore):
    """A store in which every state is found at the second asking, and none was ever computed.

    Attributes:
        width: of a state.
    """

    width: int

    def _compute(
        self, inputs: Iterable[tuple[int, ...]], agree: object
    ) -> Iterator[dict[tuple[int, ...], torch.Tensor]]:
        for ids in inputs:
            yield {ids: torch.randn(len(ids), self.width).to(self.dtype)}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="prepared tasks; else the demo tasks, made in memory")
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--rank", type=int, default=256)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--batches", type=int, default=100, help="batches sampled, collated and loaded")
    parser.add_argument("--steps", type=int, default=8, help="training steps measured with each number of workers")
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 2])
    given = parser.parse_args(argv)
    # Workers are forked after the tokenizer was used here; it would say so at every start.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    began = time.perf_counter()
    examples = read(given.data)
    seconds, n = time.perf_counter() - began, sum(map(len, examples.values()))
    what = "records read from tables" if given.data else "demo records made"
    data = DataSource(examples, load_tokenizer(given.base), 1024, given.batch)
    rates = [Rate(what, n / seconds, 1000 * seconds), *data.rates(given.batches, given.workers)]
    print_table(("what", "examples/s", "ms a batch"), [(r.what, r.per_second, r.batch_ms) for r in rates])

    base = load_base(given.base, getattr(torch, given.dtype))
    waits = data.waiting(base, given.rank, given.steps, given.workers)
    columns = ("workers", "ms a step", "ms waiting", "share, median step", "share, all steps")
    shares = [(w.workers, w.step_ms, w.wait_ms, f"{w.share:.2%}", f"{w.total_share:.2%}") for w in waits]
    print_table(columns, shares, f"Waiting for data: batch {given.batch}, rank {given.rank}, trunk stored")
    collation = next(r.batch_ms for r in rates if r.what.startswith("collation"))
    print(f"\nWithout workers a step of less than {collation / BAR:.0f} ms would wait more than {BAR:.0%} of its time.")
    met = waits[0].share < BAR
    print(f"Bar, below {BAR:.0%} with {waits[0].workers} workers: {'met' if met else 'MISSED'}.")
    numbers = {
        "batch": given.batch,
        "records": n,
        "bar": BAR,
        "bar_met": met,
        "rates": [asdict(r) for r in rates],
        "waiting": [asdict(w) for w in waits],
    }
    print_json("loader", numbers, given.dtype)


def read(folder: Path | None) -> Examples:
    """Read the training records of every task of a folder, or of the demo tasks; an empty task is left out."""
    if folder:
        found = {task.parent.name: read_prepared(folder, task.parent.name, "train") for task in folder.glob("*/train")}
        return {task: found[task] for task in sorted(found) if found[task]}
    tasks = {name: load_task(name).read(Path(), "train") for name in DEMO}
    return {name: [e for e in found if isinstance(e, EditExample)] for name, found in tasks.items()}


class DataSource:
    """Records with the sampler, the collator and the loader that a training would put them through.

    Args:
        examples: the records of every task.
        tokenizer: the base's.
        max_tokens: the longest text allowed.
        batch: requests in a batch.
    """

    def __init__(self, examples: Examples, tokenizer: Any, max_tokens: int, batch: int) -> None:
        self.examples, self.batch = examples, batch
        self.sampler = MultiTaskSampler({task: len(found) for task, found in examples.items()}, batch, seed=0)
        pools = load_pools()
        self._pools = {task: pool_for(pools, task) for task in examples}
        self._tokenizer, self._max_tokens = tokenizer, max_tokens

    def collator(self, tokenizer: Any = None) -> Collator:
        """A new collator, so that nothing of an earlier one helps it."""
        return Collator(tokenizer or self._tokenizer, self._max_tokens, self.examples, self._pools, MIX)

    def loader(self, workers: int) -> Any:
        """The training's own loader, from the first step on."""
        data = EditDataModule(list(self.examples), batch=self.batch, num_workers=workers)
        data.sampler, data.collator = self.sampler, self.collator()
        return iter(data.train_dataloader())

    def rates(self, batches: int, workers: Sequence[int]) -> list[Rate]:
        """Measure sampling, collation and the whole loader, each alone."""
        anywhere = random.Random(0).sample(range(ANY_STEP), batches)
        in_order = _times(self.sampler.global_batch, range(batches))
        at_random = _times(self.sampler.global_batch, anywhere)
        tokenizer = Timed(self._tokenizer)
        collator = self.collator(tokenizer)
        draws = [self.sampler.global_batch(step) for step in range(batches + 1)]
        collator(draws.pop())  # the first one starts the tokenizer
        tokenizer.seconds = 0.0
        collation = _times(collator, draws)
        share = tokenizer.seconds / sum(collation)
        rates = [
            self._rate("sampling, steps in order", median(in_order)),
            self._rate("sampling, steps at random", median(at_random)),
            self._rate(f"collation ({share:.0%} of it in the tokenizer)", median(collation)),
        ]
        found: dict[int, list[float]] = {n: [] for n in workers}
        for _ in range(3):  # in turns, so that all see the same machine
            for n in workers:
                loader = self.loader(n)
                next(loader)  # starts the workers
                began = time.perf_counter()
                for _batch in islice(loader, batches):
                    pass
                found[n].append((time.perf_counter() - began) / batches)
        return rates + [self._rate(f"loader, {n} workers", median(times)) for n, times in found.items()]

    def _rate(self, what: str, seconds: float) -> Rate:
        return Rate(what, self.batch / seconds, 1000 * seconds)

    def waiting(self, base: Base, rank: int, steps: int, workers: Sequence[int]) -> list[Waiting]:
        """Train with each number of workers on the same steps, whose trunk states are there, and time each step."""
        sites = find_sites(base, SiteSpec(last_blocks=3))
        split = base.split(min(site.block for site in sites))
        store = Filled(split, "random states", memory_mib=4096)
        store.width = base.d_model
        stage = Stage(base, split, store)
        torch.manual_seed(0)
        editor = HyperEditor(sites, EditorConfig(rank=rank, alpha_init=3e-4, alpha_scale="log"))
        batches = list(islice(self.loader(0), steps + 1))
        warm_up(editor, stage, batches[:2])
        for batch in batches:
            stage.store.states((batch.inner + batch.rephrase + batch.avoid + batch.locality).ids)
        optimizer = torch.optim.Adam(editor.parameters(), 1e-4)
        return [self._train(stage, editor, optimizer, steps, n) for n in workers]

    def _train(
        self, stage: Stage, editor: HyperEditor, optimizer: torch.optim.Optimizer, steps: int, workers: int
    ) -> Waiting:
        loader = self.loader(workers)
        times = []
        for _ in range(steps + 1):
            began = time.perf_counter()
            batch = next(loader)
            got = time.perf_counter()
            result = meta_loss(editor, stage, batch, LossWeights())
            optimizer.zero_grad()
            (result.loss / len(batch)).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            editor.merge(result.sums)
            times.append((got - began, time.perf_counter() - began))
        waits, wholes = zip(*times[1:], strict=True)  # the first step starts workers and optimiser
        shares = [wait / whole for wait, whole in zip(waits, wholes, strict=True)]
        return Waiting(workers, 1000 * median(wholes), 1000 * median(waits), median(shares), sum(waits) / sum(wholes))


def _times(call: Callable[[Any], object], arguments: Sequence[Any]) -> list[float]:
    """Seconds of each call."""
    times = []
    for argument in arguments:
        began = time.perf_counter()
        call(argument)
        times.append(time.perf_counter() - began)
    return times


if __name__ == "__main__":
    main()
