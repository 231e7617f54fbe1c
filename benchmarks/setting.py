"""What the benchmarks of speed have in common: bases of real shapes, batches of demo records, a new editor on them.

Weights of the shaped bases are random, which changes no time. The records are the embedded demo's, or prepared ones.
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from random_base import LLAMA_2_7B, small_tokenizer
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from instructedit.base import Base, SiteSpec, find_sites, load_base
from instructedit.base.store import PASS_ROWS, PASS_TOKENS, TrunkStore
from instructedit.data.collate import Batch, Collator, TrainingMix
from instructedit.data.samplers import MultiTaskSampler
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from instructedit.instructions.pools import load_pools
from instructedit.metatrain import LossWeights, Stage, meta_loss, warm_up
from instructedit.records import EditExample
from instructedit.tasks import load_task
from instructedit.tasks.prepared import read_prepared

GPT2_XL = {"n_embd": 1600, "n_layer": 48, "n_head": 25, "vocab_size": 50257, "n_positions": 1024}
BASES = ("smollm2-135m", "gpt2-xl", "llama-2-7b")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}

TASKS = ("demo-recent", "demo-counterfact")
"""Facts alone: one request with one target, as the textbook's step takes them."""

MIX = TrainingMix(rephrases=1, locality=1)
"""One edit input, one rephrase, one locality input a request: what MEND's own step looks at."""

LAST_BLOCKS = 3


def make_base(name: str, dtype: torch.dtype, **shape: Any) -> Base:
    """Load the real small base, or make a random one of a known shape; ``shape`` changes its config."""
    if name == "smollm2-135m":
        return load_base(name, dtype)
    model: PreTrainedModel
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        if name == "gpt2-xl":
            model = GPT2LMHeadModel(GPT2Config(**{**GPT2_XL, **shape}))
        else:
            model = LlamaForCausalLM(LlamaConfig(**{**LLAMA_2_7B, "dtype": dtype, **shape}))
    finally:
        torch.set_default_dtype(default)
    return Base.from_model(model, small_tokenizer(), name)


def make_editor(base: Base, rank: int, batches: Sequence[Batch]) -> tuple[HyperEditor, Stage]:
    """Make a started editor on the last blocks' MLP, and the stage it trains on, with nothing stored."""
    sites = find_sites(base, SiteSpec(last_blocks=LAST_BLOCKS))
    torch.manual_seed(0)
    editor = HyperEditor(sites, EditorConfig(rank=rank, alpha_init=1e-3, alpha_scale="log"))
    for name, parameter in editor.named_parameters():
        if name.endswith("up"):
            # Zero in a new editor, which would then be the identity: nothing to compare.
            torch.nn.init.normal_(parameter, std=0.1 / rank**0.5)
    stage = stage_of(base, keep=True)
    warm_up(editor, stage, list(batches[:2]))
    return editor, stage


def stage_of(base: Base, keep: bool) -> Stage:
    """Return a stage whose store keeps the states (the second time they are read), or computes them every time."""
    first = base.n_blocks - LAST_BLOCKS
    split = base.split(first)
    memory = 4096 if keep else 0
    return Stage(base, split, TrunkStore(split, "benchmark", PASS_ROWS, PASS_TOKENS, memory, share_prefixes=True))


def make_batches(
    base: Base,
    batch: int,
    steps: int,
    prepared: Path | None = None,
    tasks: Sequence[str] = TASKS,
    mix: TrainingMix = MIX,
) -> list[Batch]:
    """Return the batches of the first steps of a training, with instructions."""
    examples = records(prepared, tasks)
    sampler = MultiTaskSampler({task: len(found) for task, found in examples.items()}, batch, seed=0)
    collator = Collator(base.tokenizer, base.max_tokens, examples, load_pools(), mix)
    return [collator(sampler.global_batch(step)) for step in range(steps)]


def records(prepared: Path | None, tasks: Sequence[str] = TASKS) -> Mapping[str, list[EditExample]]:
    """Return the training records of tasks: prepared ones, or the demo's, which need no file."""
    if prepared is not None:
        return {task: read_prepared(prepared, task, "train") for task in tasks}
    read = {task: load_task(task).read(Path(), "train") for task in tasks}
    return {task: [found for found in items if isinstance(found, EditExample)] for task, items in read.items()}


def train_step(editor: HyperEditor, stage: Stage, batch: Batch, optimizer: torch.optim.Optimizer) -> None:
    """Make one whole step of a training on one process."""
    result = meta_loss(editor, stage, batch, LossWeights())
    (result.loss / len(batch)).backward()
    optimizer.step()
    optimizer.zero_grad()
    editor.merge(result.sums)


def twin(editor: HyperEditor) -> HyperEditor:
    """Return a copy that shares nothing with the editor."""
    return copy.deepcopy(editor)
