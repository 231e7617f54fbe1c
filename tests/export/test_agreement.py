"""The same answers under ``applied()``, under the adapter loaded by PEFT, from the merged model and from the delta."""

import json
from collections.abc import Callable, Iterable
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


@pytest.mark.slow
def test_twenty_requests_say_the_same_everywhere(tiny_base: Base, tmp_path: Path) -> None:
    base = in_folder(tiny_base, tmp_path / "base")
    assert_same(random_edit(base, ranks=2, size=20.0), tmp_path, WAYS)
    for way in WAYS:
        assert (len(list((tmp_path / way).glob("model-*.safetensors"))) > 1) == (way == "sharded")


@pytest.mark.slow
def test_more_terms_than_a_matrix_has_ranks_say_the_same(tiny_base: Base, tmp_path: Path) -> None:
    base = in_folder(tiny_base, tmp_path / "base")
    assert_same(random_edit(base, ranks=7, size=6.0), tmp_path, ["lora"])
    config = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())
    assert config["r"] == 32  # and not 130


@pytest.mark.slow
def test_whole_changes_say_the_same_too(tiny_base: Base, tmp_path: Path) -> None:
    assert_same(dense_edit(in_folder(tiny_base, tmp_path / "base"), size=1.0), tmp_path, ["model", "delta"])


def assert_same(edit: HyperEdit | DenseEdit, folder: Path, ways: Iterable[str]) -> None:
    """1e-4 in every logit and the same greedy text, where the edit moves every request's targets by more than 1."""
    base = edit.base
    before = target_logits(base.model, base.tokenizer, REQUESTS)
    with edit.applied():
        after = target_logits(base.model, base.tokenizer, REQUESTS)
        wanted, said = all_logits(base.model, base.tokenizer, REQUESTS), greedy(base.model, base.tokenizer, REQUESTS)
    moved = [float((b - a).abs().max()) for a, b in zip(before, after, strict=True)]
    assert min(moved) > 1, "the edit is too small to show anything"
    for way in ways:
        settings, load = WAYS[way]
        model = load(folder / "base", exported(edit, folder / way, **settings))
        torch.testing.assert_close(all_logits(model, base.tokenizer, REQUESTS), wanted, rtol=0, atol=1e-4)
        assert greedy(model, base.tokenizer, REQUESTS) == said, way
