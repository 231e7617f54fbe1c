"""The same answers under ``applied()``, under the adapter loaded by PEFT, from the merged model and from the delta."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from instructedit.base import Base
from instructedit.export.card import EditFacts
from instructedit.export.origin import origin_of
from instructedit.export.write import Settings, export_edit
from instructedit.methods.dense import DenseEdit
from instructedit.methods.hyper import HyperEdit
from tests.export.made import REQUESTS, all_logits, dense_edit, greedy, in_folder, random_edit, target_logits


def exported(edit: HyperEdit | DenseEdit, out: Path, **settings: Any) -> Path:
    facts = EditFacts.of(type(edit).__name__, edit.base.fingerprint, "torch.float32", {})
    export_edit(edit, edit.base, out, Settings(**settings), origin_of(edit.base.name), facts)
    return out


def by_peft(folder: Path, out: Path) -> PreTrainedModel:
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    return PeftModel.from_pretrained(plain, out).eval()


def by_transformers(folder: Path, out: Path) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(out, dtype=torch.float32)


def by_torch(folder: Path, out: Path) -> PreTrainedModel:
    """What docs/export.md tells to do with a delta."""
    from safetensors.torch import load_file

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    delta, used = load_file(out / "delta.safetensors"), 0
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in delta:
                weight += delta[name]
                used += 1
            elif f"{name}.left" in delta:
                weight += delta[f"{name}.left"] @ delta[f"{name}.right"]
                used += 2
    assert used == len(delta)
    return model


WAYS: dict[str, tuple[dict[str, Any], Callable[[Path, Path], PreTrainedModel]]] = {
    "lora": ({"form": "lora"}, by_peft),
    "model": ({"form": "model"}, by_transformers),
    "sharded": ({"form": "model", "max_shard_size": "20KB"}, by_transformers),
    "delta": ({"form": "delta"}, by_torch),
    "whole": ({"form": "delta", "dense": True}, by_torch),
}


# Seven ranks of twenty requests are more than the matrices have: the adapter then has the matrices' own.
@pytest.mark.parametrize(("way", "ranks"), [*((way, 2) for way in WAYS), ("lora", 7)])
def test_twenty_requests_say_the_same_everywhere(tiny_base: Base, tmp_path: Path, way: str, ranks: int) -> None:
    base = in_folder(tiny_base, tmp_path / "base")
    edit = random_edit(base, ranks=ranks, size=40.0 / ranks)
    settings, load = WAYS[way]
    out = exported(edit, tmp_path / "out", **settings)
    assert_same(edit, load(tmp_path / "base", out))
    assert (len(list(out.glob("model-*.safetensors"))) > 1) == (way == "sharded")


@pytest.mark.parametrize("way", ["model", "delta"])
def test_whole_changes_say_the_same_too(tiny_base: Base, tmp_path: Path, way: str) -> None:
    edit = dense_edit(in_folder(tiny_base, tmp_path / "base"), size=1.0)
    settings, load = WAYS[way]
    assert_same(edit, load(tmp_path / "base", exported(edit, tmp_path / "out", **settings)))


def assert_same(edit: HyperEdit | DenseEdit, model: PreTrainedModel) -> None:
    """1e-4 in every logit and the same greedy text, where the edit moves every request's targets by more than 1."""
    base = edit.base
    before = target_logits(base.model, base.tokenizer, REQUESTS)
    with edit.applied():
        after = target_logits(base.model, base.tokenizer, REQUESTS)
        wanted, said = all_logits(base.model, base.tokenizer, REQUESTS), greedy(base.model, base.tokenizer, REQUESTS)
    moved = [float((b - a).abs().max()) for a, b in zip(before, after, strict=True)]
    assert min(moved) > 1, "the edit is too small to show anything"
    torch.testing.assert_close(all_logits(model, base.tokenizer, REQUESTS), wanted, rtol=0, atol=1e-4)
    assert greedy(model, base.tokenizer, REQUESTS) == said
