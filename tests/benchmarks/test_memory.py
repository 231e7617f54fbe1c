"""The benchmark of memory: the formula meets a batch's own numbers, and a small base is measured in every way."""

import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest
from transformers import LlamaConfig

from instructedit.base.sizes import StepSize
from tests.benchmarks.scripts import last_line, load
from tests.core import random_batch

memory = load("memory")


def test_a_batchs_own_numbers() -> None:
    batch = random_batch(0)
    size: StepSize = memory.step_size(batch)
    edited, local = batch.inner + batch.rephrase + batch.avoid, batch.locality
    padded = len(edited) * max(map(len, edited.ids)) + len(local) * max(map(len, local.ids))
    assert (size.rows, size.inner_rows, size.local_rows) == (len(edited) + len(local), 5, 8)
    assert size.rows * size.tokens == pytest.approx(padded)
    assert (size.targets, size.inner_tokens) == (2, batch.inner.n_tokens / 5)


def test_what_is_let_go_of_is_seen_while_it_is_there() -> None:
    before = memory.anonymous()
    with memory.Watch() as watch:
        held = b"x" * 2**28
        assert memory.anonymous() - before > 2**27
        time.sleep(0.3)  # a thread that looks every few milliseconds needs a turn
        del held
    assert watch.peak - before > 2**27


@pytest.mark.slow
@pytest.mark.parametrize("which", ["ours", "textbook"])
@pytest.mark.parametrize("placement", ["replicated", "tail_only"])
def test_a_tiny_base_is_measured(which: str, placement: str, tmp_path: Path) -> None:
    random_base = load("random_base")
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4}
    random_base.write(LlamaConfig(**{**random_base.LLAMA_2_7B, **small, "num_key_value_heads": 4}), tmp_path)
    given = Namespace(
        base=str(tmp_path), placement=placement, dtype="bfloat16", rank=8, batch=2, own=which, blocks=None
    )
    found = memory.measure(given)
    assert set(found["measured"]) == set(found["formula"]) == {"base", "editor", "step", "total"}
    assert found["formula"]["total"] == sum(found["formula"][part] for part in ("base", "editor", "step"))
    assert "2 of them edit inputs and 2 locality inputs" in found["arithmetic"]


@pytest.mark.long
def test_both_ways_are_measured(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--base", "gpt2-xl", "--blocks", "4", "--rank", "16", "--batch", "2", "--textbook"]
    monkeypatch.setattr(sys, "argv", [memory.__file__, *given])
    memory.main()
    found = last_line(capsys.readouterr().out)
    assert found["base"] == "gpt2-xl (4 blocks)" and min(found["textbook"].values()) > 0
    assert abs(found["off"]["total"]) < 0.15, "its weights alone are nine tenths of it"
