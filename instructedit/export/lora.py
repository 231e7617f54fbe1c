"""A LoRA adapter that PEFT loads: the edit's own terms, or the nearest ones of a smaller rank.

PEFT adds scale * B A to a weight, scale = lora_alpha / r; here lora_alpha is r at every site, so the scale is 1.
Knows PEFT's format; nothing about bases beyond the names of their modules.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from instructedit.errors import InputError
from instructedit.export.changes import Factors, SiteChange, SiteReport

ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"

PREFIX = "base_model.model."
"""What PEFT puts in front of a module's name in a file."""


def written_factors(changes: Sequence[SiteChange], rank: int | None, dtype: torch.dtype) -> list[Factors]:
    """Return each site's factors as a file will hold them.

    Args:
        changes: the edit's changes.
        rank: the most terms a site gets; None for as many as an exact sum needs.
        dtype: dtype of the file.

    Raises:
        InputError: the rank is not above 0, or above that of every site; or there is none and a change is dense.
    """
    check_rank(changes, rank)
    if rank is None:
        dense = [change for change in changes if not isinstance(change.change, Factors)]
        if dense:
            raise InputError(
                f"The edit changes {dense[0].site} as a whole matrix, so factors of it are an approximation. "
                f"Give --rank, from 1 to {dense[0].most_ranks}; the error is told. Exact is --as model or --as delta."
            )
        return [change.exact().to(dtype) for change in changes]
    return [
        (
            change.compressed(rank)
            if change.most_ranks > rank or not isinstance(change.change, Factors)
            else change.exact()
        ).to(dtype)
        for change in changes
    ]


def check_rank(changes: Sequence[SiteChange], rank: int | None) -> None:
    """Refuse a rank that makes no sense.

    Raises:
        InputError: it is below 1, or above every site's own.
    """
    most = max(change.most_ranks for change in changes)
    if rank is not None and not 1 <= rank <= most:
        raise InputError(
            f"--rank is {rank}, and the edit's changes have ranks of up to {most}. Give 1 to {most}, "
            "or leave it out for an exact copy."
        )


def report(change: SiteChange, factors: Factors) -> SiteReport:
    """Hold what is written of a site against the edit."""
    return SiteReport(change.site, factors.rank, change.norm(), change.distance(factors))


def write_lora(
    folder: Path, changes: Sequence[SiteChange], base: str | None, rank: int | None, dtype: torch.dtype
) -> list[SiteReport]:
    """Write an adapter's two files into a folder that is there.

    Args:
        folder: where to.
        changes: the edit's changes.
        base: what the adapter names as its base: a Hub id or a folder; None names none.
        rank: the most terms a site gets; None for an exact adapter.
        dtype: dtype of the factors in the file.

    Returns:
        What is kept of each site.

    Raises:
        InputError: the rank makes no sense for this edit, or the package peft is missing.
    """
    written = written_factors(changes, rank, dtype)
    try:
        from peft import LoraConfig
    except ModuleNotFoundError as error:
        raise InputError(
            "A LoRA adapter needs the package 'peft', which is not installed. Run `pip install 'instructedit[lora]'`."
        ) from error
    ranks = {change.site: factors.rank for change, factors in zip(changes, written, strict=True)}
    largest = max(ranks.values())
    others = {site: own for site, own in ranks.items() if own != largest}
    layouts = {change.transposed for change in changes}
    if len(layouts) > 1:
        raise InputError("The edit changes matrices of two layouts, which one adapter cannot hold. Use --as model.")
    config = LoraConfig(
        base_model_name_or_path=base,
        task_type="CAUSAL_LM",
        inference_mode=True,
        r=largest,
        lora_alpha=largest,
        rank_pattern=others,
        alpha_pattern=others,
        target_modules=list(ranks),
        fan_in_fan_out=not layouts.pop(),
        lora_dropout=0.0,
        bias="none",
    )
    config.target_modules = sorted(ranks)  # a set by now, whose order changes from process to process
    config.save_pretrained(folder)
    tensors = {}
    for site, factors in zip(ranks, written, strict=True):
        tensors[f"{PREFIX}{site}.lora_A.weight"] = factors.u.contiguous()
        tensors[f"{PREFIX}{site}.lora_B.weight"] = factors.v.T.contiguous()
    save_file(tensors, folder / ADAPTER, metadata={"format": "pt"})
    return [report(change, factors) for change, factors in zip(changes, written, strict=True)]
