"""Print the table of docs/placement.md: the accelerator memory of the paper's two editors under each placement.

    python benchmarks/memory_table.py

Computed, not measured: no weights are needed. Sites and rank are those of configs/experiment/instructedit-*.yaml.
"""

from typing import Literal

import torch
from random_base import LLAMA_2_7B, small_tokenizer
from transformers import GPT2Config, LlamaConfig, PretrainedConfig

from instructedit.base import Base, SiteSpec, find_sites
from instructedit.base.memory import count_base, count_editor
from instructedit.base.paging import without_weights
from instructedit.base.sizes import BaseSize, DType, EditorSize, Placing, StepSize, accelerator_memory
from instructedit.hypernet.editor import EditorConfig, HyperEditor

BASES: dict[str, PretrainedConfig] = {
    "GPT2-XL": GPT2Config(n_embd=1600, n_layer=48, n_head=25, vocab_size=50257, n_positions=1024),
    "LLaMA-2-7B": LlamaConfig(**LLAMA_2_7B),
}
"""The sizes the two are published with."""

LAST_BLOCKS, EDITOR = 3, EditorConfig(rank=1920)
RANKS = 8
DTYPES: dict[str, DType] = {"fp32": "float32", "bf16": "bfloat16"}
Kind = Literal["replicated", "sharded", "tail_only"]
PLACINGS: dict[str, tuple[Kind, dict[str, object], int]] = {
    "replicated": ("replicated", {}, 2),
    f"sharded, ZeRO-3 over {RANKS}": ("sharded", {"zero": 3, "ranks": RANKS}, 2),
    "tail_only": ("tail_only", {}, 2),
    "tail_only, batch 8": ("tail_only", {}, 8),
    f"tail_only, ZeRO-2 over {RANKS}": ("tail_only", {"zero": 2, "ranks": RANKS}, 2),
}
"""How the base lies, more of ``Placing``, and the requests in an accelerator's batch."""


def main() -> None:
    print("| base | placement | dtype | base | editor | step | together |")
    print("|---|---|---|---:|---:|---:|---:|")
    for name, config in BASES.items():
        base, editor = sizes(config)
        for placement, (kind, more, batch) in PLACINGS.items():
            step = StepSize(rows=4 * batch, inner_rows=batch, local_rows=2 * batch)
            for dtype_name, dtype in DTYPES.items():
                memory = accelerator_memory(base, editor, Placing(kind, dtype, **more), step)  # type: ignore[arg-type]
                parts = (memory.base, memory.editor, memory.step, memory.total)
                print(f"| {name} | {placement} | {dtype_name} | {' | '.join(f'{part / 1e9:.1f}' for part in parts)} |")


def sizes(config: PretrainedConfig) -> tuple[BaseSize, EditorSize]:
    """Count a base and the paper's editor of it, on the meta device."""
    base = Base.from_model(without_weights(config, torch.float32), small_tokenizer())
    sites = find_sites(base, SiteSpec(last_blocks=LAST_BLOCKS))
    with torch.device("meta"):
        editor = HyperEditor(sites, EDITOR)
    shapes = [(site.d_in, site.d_out) for site in sites]
    in_last = sum(base.at_targets(site) for site in sites)
    return count_base(base.model, LAST_BLOCKS), count_editor(editor, shapes, EDITOR.rank, EDITOR.n_blocks, in_last)


if __name__ == "__main__":
    main()
