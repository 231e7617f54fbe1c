"""The formulas of budget.py: memory and time of the paper's experiments, from their configurations, without weights.

Memory is docs/placement.md's formula. Operations of a step are those of roofline.py, with all trunk states computed
anew. A time is operations by the peaks of one GPU times a share, and on top the launches of kernels, which are most of
it with two requests a step. Numbers of tokens are means over KnowEdit's records with SmolLM2's tokenizer. Not counted:
reading and tokenising, KE's old answers where they are generated, and what the trunk store and shared beginnings save.
"""

from collections.abc import Mapping
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from flops import Sizes, editor_forward, low_rank_forward, most_ranks, site_tokens
from memory_table import BASES as CONFIGS
from random_base import small_tokenizer
from roofline import phase_flops
from setting import stage_of

from instructedit.base import Base, SiteSpec, find_sites
from instructedit.base.memory import count_base, count_editor
from instructedit.base.paging import without_weights
from instructedit.base.sizes import EditorSize, Memory, Placing, StepSize, accelerator_memory
from instructedit.base.store import PASS_ROWS, PASS_TOKENS
from instructedit.data.collate import Batch
from instructedit.data.rows import Rows
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from instructedit.hypernet.sizes import ke_size

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENTS = ROOT / "configs/experiment"
TABLES = ROOT / "configs/evaluate"
BASES = {"gpt2-xl": "GPT2-XL", "llama-2-7b": "LLaMA-2-7B"}
METHODS = ("ke", "mend", "instructedit")

GPU, BF16, FP32, BANDWIDTH = "A100 80 GB", 312e12, 19.5e12, 2.039e12
"""Dense bf16 and plain fp32 products a second, bytes a second, from its data sheet. The hypernetwork is fp32."""
SHARE, LAUNCH = 0.4, 10e-6
"""The share of each of these peaks that is reached, and the seconds a kernel's launch takes: both assumed."""
ASSUMED = f"one {GPU} at {SHARE:.0%} of its peaks and {LAUNCH * 1e6:.0f} us a kernel"

LAUNCHES = {"gpt2-xl": (12.2, 5457, 7268), "llama-2-7b": (43.6, 6000, 8218)}
"""Of a block's forward pass, of a step without instructions, of one with: ``python benchmarks/budget.py --count``."""

INSTRUCTION = 29
"""Tokens."""
ADAM_BYTES = 28
"""Read and written in a step for each parameter: four numbers in, three out."""


@dataclass(frozen=True)
class Texts:
    """Rows of one record, each (rows, tokens, target tokens); all but locality with an instruction in front."""

    inner: tuple[float, int, int]
    others: tuple[float, int, int]
    locality: tuple[float, int, int]
    avoid: tuple[float, int, int] = (0, 0, 0)


TRAINING: Mapping[str, Texts] = {
    "recent": Texts((1, 46, 4), (1, 49, 4), (2, 16, 4)),
    "counterfact": Texts((1, 46, 4), (1, 49, 4), (2, 16, 4)),
    "convsent": Texts((2, 60, 18), (1, 62, 19), (2, 34, 19), (1, 61, 19)),
}
"""What a request brings into a step, with the default mix."""

ASKED: Mapping[str, Texts] = {
    "recent": Texts((1, 45, 4), (3.3, 47, 4), (3, 15, 3)),
    "counterfact": Texts((1, 45, 5), (3.3, 47, 4), (3.3, 14, 3)),
    "convsent": Texts((2, 63, 19), (8, 62, 18), (4, 34, 19)),
    "zsre": Texts((1, 39, 4), (2, 43, 4), (1, 18, 6)),
}
"""What a record is asked, with 4 probes of a kind at most."""

TEST = {"recent": 1266, "counterfact": 885, "convsent": 800, "zsre": 1301}
VALIDATION = {"recent": 47, "counterfact": 154, "convsent": 167}
"""Records: of the published test sets, and of the validation split where ``prepare`` cuts off a tenth."""

GREEDY_STEPS = {"convsent": 96}
"""Token steps of greedy generation for a batch: three passes of 32 tokens, or of 16 for facts."""


@dataclass(frozen=True)
class Time:
    """What is to be done: products of the base and of the hypernetwork, bytes read or written, kernels launched."""

    base: float = 0.0
    editor: float = 0.0
    bytes: float = 0.0
    launches: float = 0.0

    def __add__(self, other: "Time") -> "Time":
        return Time(*(one + more for one, more in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: float) -> "Time":
        return Time(*(one * times for one in astuple(self)))

    @property
    def seconds(self) -> float:
        """On the GPU, one after the other."""
        return (self.base / BF16 + self.editor / FP32 + self.bytes / BANDWIDTH) / SHARE + LAUNCH * self.launches


class Setting:
    """One base with the paper's editors, without weights.

    Args:
        name: a key of ``BASES``.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.base = Base.from_model(without_weights(CONFIGS[BASES[name]], torch.bfloat16), small_tokenizer())
        self.sizes = Sizes.of(self.base)
        self.experiments = {
            method: yaml.safe_load((EXPERIMENTS / f"{method}-{name}.yaml").read_text()) for method in METHODS
        }
        self.table = yaml.safe_load((TABLES / f"table3-{name}.yaml").read_text())
        model = self.experiments["mend"]["model"]
        self.sites = find_sites(self.base, SiteSpec(**model["sites"]))
        with torch.device("meta"):
            self.editor = HyperEditor(self.sites, EditorConfig(**model["editor"]))
        self.last_blocks = model["sites"]["last_blocks"]
        self.stage = stage_of(self.base, keep=False)
        self.size = count_base(self.base.model, self.last_blocks)
        self.block_launches, bare, instructed = LAUNCHES[name]
        self.batch: int = self.table.get("batch", 8)
        self.launches = {"ke": bare, "mend": bare, "instructedit": instructed}

    def editor_size(self, method: str) -> EditorSize:
        """The size of a method's editor."""
        shapes = [(site.d_in, site.d_out) for site in self.sites]
        in_last = sum(self.base.at_targets(site) for site in self.sites)
        if method == "ke":
            return ke_size(shapes, self.base.d_model, **self.experiments["ke"]["model"]["ke"], in_last=in_last)
        config = self.editor.config
        return count_editor(self.editor, shapes, config.rank, config.n_blocks, in_last)

    def memory(self, method: str) -> Memory:
        """Bytes on the GPU while training, for a batch of the longest texts."""
        tasks, batch = self._data(method, "tasks"), self._data(method, "batch")
        texts = max((TRAINING[task] for task in tasks), key=lambda one: one.others[1])
        inner, local = int(batch * texts.inner[0]), int(batch * texts.locality[0])
        rows = inner + local + int(batch * (texts.others[0] + texts.avoid[0]))
        step = StepSize(rows, inner, local, texts.others[1], texts.others[2])
        return accelerator_memory(self.size, self.editor_size(method), Placing("replicated", "bfloat16"), step)

    def step(self, method: str) -> Time:
        """One optimiser step: a mean over the tasks, which are drawn equally often."""
        tasks, batch = self._data(method, "tasks"), self._data(method, "batch")
        flop = phase_flops(self.base, self.editor, self.stage, _batch(tasks, method == "instructedit"), stored=False)
        share = batch / len(tasks)
        network = flop["hypernetwork"] * share
        if method == "ke":
            text = sum(TRAINING[task].inner[1] - INSTRUCTION for task in tasks) * share
            network = 6 * self.editor_size("ke").parameters * text
        products = sum(value for name, value in flop.items() if name != "hypernetwork") * share
        return Time(products, network, ADAM_BYTES * self.editor_size(method).parameters, self.launches[method])

    def batch_of(self, method: str) -> Batch:
        """A step's batch, of its last tasks: the one that launches are counted with."""
        tasks, batch = self._data(method, "tasks"), self._data(method, "batch")
        return _batch(tasks[-batch:], method == "instructedit")

    def asked(self, method: str, task: str, *, instructed: bool, trained: bool = True) -> Time:
        """One record edited in by a trained editor and asked all its probes; or asked alone."""
        texts, less, tail = ASKED[task], 0 if instructed else INSTRUCTION, self.last_blocks
        sizes, work, tokens_read = self.sizes, 0.0, 0.0
        inner = _rows(texts.inner, 1, less)
        for part, shorter, tails in ((texts.inner, less, 1), (texts.others, less, 1), (texts.locality, 0, 2)):
            n, t, m = part[0], part[1] - shorter, part[2]
            tokens_read += n * t
            trunk = sizes.blocks_forward(1, t, sizes.blocks - tail)
            work += n * (trunk + tails * (sizes.tail_forward(1, t, m, tail) + sizes.head(m)))
            if trained:
                one = _rows((1, part[1], part[2]), 1, shorter)
                work += n * low_rank_forward(self.base, self.editor, one, most_ranks(self.base, self.editor, inner))
        network = 0
        if trained:
            n, t, m = len(inner), texts.inner[1] - less, texts.inner[2]
            work += sizes.tail_forward(n, t, m, tail) + sizes.tail_backward(n, t, m, tail) + 2 * sizes.head(n * m)
            tokens = site_tokens(self.base, self.editor, inner)
            network = editor_forward(self.editor, tokens)
            network = 2 * self.editor_size("ke").parameters * t if method == "ke" else network
        # Trunk passes of a few tokens; of the tail, for a batch: an edit's forward and backward pass, and three more.
        blocks = tokens_read / (PASS_ROWS * PASS_TOKENS) * (sizes.blocks - tail) + 6 * tail / self.batch
        return Time(work, network, launches=blocks * self.block_launches)

    def validation(self, method: str) -> Time:
        """All validations of a training."""
        config, most = self.experiments[method], self._data(method, "validation_records")
        whiles = config["trainer"]["max_steps"] // config["validation"]["every_n_steps"]
        found = Time()
        for task in self._data(method, "tasks"):
            found += self.asked(method, task, instructed=method == "instructedit") * min(most, VALIDATION[task])
        return found * whiles

    def last_test(self, method: str) -> Time:
        """The test that ends a training: Base, and the editor with its instructions."""
        found = Time()
        for task in (*self._data(method, "tasks"), *self._data(method, "held_out")):
            found += self.asked(method, task, instructed=False, trained=False) * TEST[task]
            own = self.asked(method, task, instructed=method == "instructedit")
            found += own * (TEST[task] * (2 if method == "instructedit" else 1))
        return found

    def row(self, source: Mapping[str, Any]) -> Time:
        """A method's rows of the table; the steps of those that optimise are the most they may take."""
        method, options = source["method"], source.get("options", {})
        rows = len(source.get("instructions", [None]))
        found = Time()
        for task in self.table["tasks"]:
            one = self.asked(method, task, instructed=method == "instructedit", trained=method in METHODS)
            if "block" in options:
                n, t, m = ASKED[task].inner
                n *= 1 + options.get("paraphrases", 0)
                above = self.sizes.blocks - options["block"]
                passed = self.sizes.blocks_forward(1, t - INSTRUCTION, above) + self.sizes.head(m)
                kernels = 3 * options["steps"] * above * self.block_launches / options.get("at_once", self.batch)
                one += Time(2 * n * options["steps"] * passed, launches=kernels)
            read = Time(bytes=2 * self.size.whole, launches=self.sizes.blocks * self.block_launches)
            found += one * TEST[task] + read * self._token_steps(task)
        return found * rows

    def _token_steps(self, task: str) -> float:
        """How often the whole base is read to generate for one row: once for each token of a pass."""
        batches = -(-TEST[task] // self.batch)
        fluency = self.table["fluency"].get(task, self.table["fluency"]["others"])
        greedy = min(batches, self.table["greedy"]) * GREEDY_STEPS.get(task, 48)
        return greedy + min(batches, fluency) * 100

    def table_memory(self) -> tuple[float, float, float]:
        """Bytes of the base, of the three editors' weights, and of FT-L's matrix, gradient and moments in fp32."""
        (ft_l,) = (source["options"] for source in self.table["methods"] if source["method"] == "ft-l")
        editors = 4 * sum(self.editor_size(method).parameters for method in METHODS)
        matrix = self.sizes.linear[self.sizes.last]
        return 2 * self.size.whole, editors, 16 * matrix * ft_l.get("at_once", self.batch)

    def training(self, method: str) -> dict[str, Time]:
        """The parts of a training."""
        steps = self.step(method) * self.experiments[method]["trainer"]["max_steps"]
        return {"steps": steps, "validations": self.validation(method), "test": self.last_test(method)}

    def _data(self, method: str, key: str) -> Any:
        return self.experiments[method]["data"][key]


def _rows(part: tuple[float, int, int], request: int, shorter: int = 0, first: int = 0) -> Rows:
    """So many rows of distinct tokens, so that no beginning is shared."""
    n, tokens, targets = int(part[0]), part[1] - shorter, part[2]
    ids = tuple(tuple(1000 * (first + row) + place for place in range(tokens)) for row in range(n))
    return Rows(ids, (targets,) * n, (request,) * n)


def _batch(tasks: list[str], instructed: bool) -> Batch:
    """One request of each task."""
    parts = {name: Rows() for name in ("inner", "others", "avoid", "locality")}
    for request, task in enumerate(tasks):
        for place, name in enumerate(parts):
            shorter = 0 if instructed or name == "locality" else INSTRUCTION
            parts[name] += _rows(getattr(TRAINING[task], name), request, shorter, 100 * request + 10 * place)
    inner, others, avoid, locality = parts.values()
    return Batch(inner, others, avoid, locality, tuple(tasks), tuple(tasks))
