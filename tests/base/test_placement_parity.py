"""Meta-training with the placement tail_only from a store on disk: the very losses of the whole base in memory."""

from pathlib import Path

import pytest
import torch

from instructedit.base import Base, SiteSpec, TrunkStore, find_sites, load_base
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from instructedit.metatrain import LossWeights, Stage, meta_loss, warm_up
from tests.core import random_batch


def losses(base: Base, steps: int, folder: Path | None = None, dtype: torch.dtype | None = None) -> list[float]:
    """Train a small editor of the last three blocks and return each step's loss."""
    sites = find_sites(base, SiteSpec(last_blocks=3))
    first = min(site.block for site in sites)
    store = TrunkStore(base.split(first), base.fingerprint, rows_per_pass=4, folder=folder, dtype=dtype)
    stage = Stage.of(base, first, store)
    torch.manual_seed(0)
    editor = HyperEditor(sites, EditorConfig(rank=16, alpha_init=1e-3))
    warm_up(editor, stage, [random_batch(seed) for seed in (101, 102)])
    adam = torch.optim.Adam(editor.parameters(), lr=1e-3)
    found = []
    for step in range(steps):
        result = meta_loss(editor, stage, random_batch(step), LossWeights())
        adam.zero_grad()
        result.loss.backward()
        adam.step()
        editor.merge(result.sums)
        found.append(float(result.loss.detach()))
    store.flush()
    return found


def tail_only(name: str) -> Base:
    base = load_base(name, placement="tail_only")
    base.keep_tail(min(site.block for site in find_sites(base, SiteSpec(last_blocks=3))))
    return base


def compare(name: str, steps: int, tmp_path: Path) -> None:
    whole = losses(load_base(name), steps)
    assert len(set(whole)) == steps
    assert losses(tail_only(name), steps, tmp_path / "fp32") == whole, "while the store is filled"
    filled = tail_only(name)

    def refuse(*_: object) -> None:
        raise AssertionError("a block of the trunk ran, although its states are stored")

    filled.adaptor.blocks_of(filled.model)[0].register_forward_pre_hook(refuse)
    assert losses(filled, steps, tmp_path / "fp32") == whole, "from the filled store"
    narrow = losses(tail_only(name), steps, tmp_path / "bf16", torch.bfloat16)
    assert narrow != whole
    assert narrow == pytest.approx(whole, rel=0.05), "a store in bf16 rounds, and no more"


@pytest.mark.slow
def test_tiny_bases_of_both_families(tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTRUCTEDIT_CACHE", str(tmp_path / "cache"))
    tiny_base.model.save_pretrained(tmp_path / "base")
    tiny_base.tokenizer.save_pretrained(tmp_path / "base")
    compare(str(tmp_path / "base"), 5, tmp_path)


@pytest.mark.slow
def test_the_real_base(tmp_path: Path) -> None:
    compare("smollm2-135m", 3, tmp_path)
