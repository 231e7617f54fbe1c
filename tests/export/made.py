"""Edits with random numbers, large enough to move answers, and bases that lie in a folder."""

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from instructedit import cli
from instructedit.base import Base, SiteSpec, find_sites, load_base
from instructedit.data.tokenise import tokenise
from instructedit.lowrank import LowRankUpdate
from instructedit.methods.dense import DenseEdit
from instructedit.methods.hyper import HyperEdit
from instructedit.methods.saved import save_edit
from instructedit.records import EditRequest

REQUESTS = [EditRequest(f"The capital of country {n} is", f"Town {n}", task="facts") for n in range(20)]

ABOUT = {
    "requests": [{"prompt": r.prompt, "target": r.target, "task": r.task, "instruction": ""} for r in REQUESTS],
    "editor": {"method": "MEND", "base": "tiny", "commit": "0f" * 20, "steps": 7, "tasks": ["facts"]},
}


def random_edit(base: Base, requests: int = 20, ranks: int = 2, size: float = 1.0, last_blocks: int = 3) -> HyperEdit:
    """Updates of every default site; each request has a term less than the one before, filled up with zeros."""
    generator = torch.Generator().manual_seed(5)
    updates = {}
    for site in find_sites(base, SiteSpec(last_blocks=last_blocks)):
        u = torch.randn(requests, ranks, site.d_in, generator=generator) * (size / (requests * site.d_in)) ** 0.5
        v = torch.randn(requests, ranks, site.d_out, generator=generator) * (size / site.d_out) ** 0.5
        u[1::2, -1], v[1::2, -1] = 0, 0
        updates[site.name] = LowRankUpdate(u, v)
    return HyperEdit(base, updates)


def dense_edit(base: Base, requests: int = 2, size: float = 0.1) -> DenseEdit:
    """Whole changes of the last site."""
    site = find_sites(base, SiteSpec(last_blocks=1))[-1]
    generator = torch.Generator().manual_seed(6)
    return DenseEdit(base, {site.name: torch.randn(requests, site.d_in, site.d_out, generator=generator) * size})


def in_folder(base: Base, folder: Path, dtype: torch.dtype = torch.float32) -> Base:
    """Save a base, and load it from there."""
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    return load_base(str(folder), dtype)


def saved(folder: Path, edit: HyperEdit | DenseEdit) -> Path:
    """Save an edit with what it is about."""
    path = folder / "edit.safetensors"
    save_edit(path, edit, edit.base, ABOUT)
    return path


@torch.no_grad()
def target_logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, requests: Sequence[EditRequest]
) -> Tensor:
    """The logits of each request's target tokens where they are to be said, all in one row."""
    found = []
    for request in requests:
        text = tokenise(tokenizer, request.text, request.target, 512)
        ids, n = torch.tensor([text.ids]), text.n_target
        logits = model(ids, use_cache=False).logits[0, -n - 1 : -1]
        found.append(logits.gather(1, ids[0, -n:, None]).flatten())
    return found


@torch.no_grad()
def all_logits(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, requests: Sequence[EditRequest]) -> Tensor:
    """Every logit at every token of every request's text: (tokens, vocabulary)."""
    texts = [tokenise(tokenizer, request.text, request.target, 512) for request in requests]
    return torch.cat([model(torch.tensor([text.ids]), use_cache=False).logits[0] for text in texts])


def greedy(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, requests: Sequence[EditRequest]) -> list[str]:
    """What the model says after each prompt."""
    logging.getLogger("transformers.generation").setLevel(logging.ERROR)
    said = []
    for request in requests:
        question = tokenizer(request.text, return_tensors="pt")
        ids = model.generate(**question, max_new_tokens=6, do_sample=False)[0]
        said.append(tokenizer.decode(ids[question["input_ids"].shape[1] :]))
    return said


def status(*argv: str | Path) -> int | str | None:
    """Run a command line and return its exit status."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in argv])
    return stop.value.code
