"""Preflight: does what a GPU has to hold fit into it? Arithmetic over config.json and the settings."""

from collections.abc import Iterator
from typing import Any, get_args

from instructedit.base.config_sizes import ConfigSizes
from instructedit.base.sizes import (
    BYTES,
    BaseSize,
    DType,
    EditorSize,
    Placing,
    StepSize,
    accelerator_memory,
)
from instructedit.errors import InputError
from instructedit.hypernet.sizes import ke_size, mend_size
from instructedit.scheduling.preflight.bases import base_config, base_name
from instructedit.scheduling.preflight.work import KE, Finding, Work

GIB = 2**30
CLOSE = 0.9
"""Share of a GPU beyond which the estimate is too near to be sure: contexts, gaps and buffers are not counted."""


def check_memory(work: Work) -> Iterator[Finding]:
    """Compare the estimate with the device; refuse sites that the base does not have."""
    content = base_config(work)
    if content is None:
        return  # the base's own check has told that it is not here
    try:
        sizes = ConfigSizes.of(content)
    except InputError as error:
        if work.gpu_memory_gib is not None:
            told = f"The memory that base {base_name(work)!r} needs was not estimated: {error}"
            yield Finding("warning", told)
        return
    if work.kind == "evaluation":
        yield from _whole_base(work, sizes)
    elif work.kind == "training":
        base, editor = training_sizes(work, sizes)
        if work.command == "fit":
            yield from _training(work, base, editor)


def training_sizes(work: Work, sizes: ConfigSizes) -> tuple[BaseSize, EditorSize]:
    """The base, split where it is edited, and the editor of a training.

    Raises:
        InputError: the base has no such sites.
    """
    chosen = sizes.sites(*(work.get(f"model.sites.{key}") for key in ("last_blocks", "matrices", "names")))
    shapes = [(matrix.d_in, matrix.d_out) for _, matrix in chosen]
    base = sizes.base(min(block for block, _ in chosen))
    # The last block's MLP computes at target tokens alone.
    in_last = sum(block == sizes.blocks - 1 and matrix.path.startswith("mlp.") for block, matrix in chosen)
    if work.get("model.method") == "KE":
        own = work.get("model.ke") or {}
        settings = {key: own.get(key) or default for key, default in KE.items()}
        return base, ke_size(shapes, sizes.width, **settings, in_last=in_last)
    return base, mend_size(shapes, work.get("model.editor.rank"), work.get("model.editor.n_blocks"), in_last)


def _training(work: Work, base: BaseSize, editor: EditorSize) -> Iterator[Finding]:
    gib, strategy = work.gpu_memory_gib, str(work.get("trainer.strategy"))
    placement, dtype = work.get("model.placement"), work.get("model.dtype")
    if gib is None or work.get("trainer.accelerator") == "cpu" or dtype not in BYTES:
        return
    # FSDP2 cuts weights, gradients and moments too.
    stage: Any = 3 if strategy == "fsdp2" else int(strategy[5]) if strategy.startswith("zero_") else 0
    if placement == "sharded" and stage != 3:
        return  # refused elsewhere
    placing = Placing(
        placement,
        dtype,
        ranks=max(1, work.ranks),
        zero=stage,
        trunk_device=work.get("model.trunk_device"),
        offload=strategy.endswith("_offload"),
    )
    memory = accelerator_memory(base, editor, placing, _step(work))
    parts = f"base {_gib(memory.base)}, editor with gradients and Adam {_gib(memory.editor)}, step {_gib(memory.step)}"
    told = f"about {_gib(memory.total)} GiB of GPU memory ({parts}), and a GPU here has {gib:g} GiB"
    if memory.total > gib * GIB:
        yield Finding("error", f"The training needs {told}. {_ways_out(work, dtype, placement, stage)}")
    elif memory.total > CLOSE * gib * GIB:
        yield Finding(
            "warning", f"The training needs {told}: it may run out. {_ways_out(work, dtype, placement, stage)}"
        )


def _step(work: Work) -> StepSize:
    inner = work.get("data.micro_batch") or -(-int(work.get("data.batch")) // max(1, work.ranks))
    each = 1 + sum(int(work.get(f"data.mix.{kind}")) for kind in ("rephrases", "locality", "avoid"))
    return StepSize(each * inner, inner, local_rows=int(work.get("data.mix.locality")) * inner)


def _ways_out(work: Work, dtype: str, placement: str, stage: int) -> str:
    """What makes it smaller, the cheapest first; only what is not chosen yet."""
    ways = []
    if dtype != "bfloat16":
        ways.append("model.dtype to bfloat16")
    if placement == "replicated":
        ways.append("model.placement to tail_only")
    if work.ranks > 1 and stage != 3:
        ways.append(
            "trainer.strategy to zero_3" + (" and model.placement to sharded" if placement != "sharded" else "")
        )
    if (work.get("data.micro_batch") or 2) > 1:
        ways.append("data.micro_batch to 1")
    return f"Set {', or '.join(ways)}." if ways else "Take a larger GPU, more of them, or a smaller editor."


def _whole_base(work: Work, sizes: ConfigSizes) -> Iterator[Finding]:
    gib, dtype = work.gpu_memory_gib, work.get("dtype")
    if gib is None or work.get("device") == "cpu" or dtype not in get_args(DType):
        return
    needed = sizes.base(0).whole * BYTES[dtype]
    if needed > gib * GIB:
        way = "Set dtype to bfloat16" if dtype != "bfloat16" else "Take a larger GPU, or set device to cpu"
        yield Finding(
            "error", f"The base alone needs {_gib(needed)} GiB of GPU memory, and a GPU here has {gib:g} GiB. {way}."
        )


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / GIB:.1f}"
