"""A base that is cut over ranks never lies whole in any of them, not even while it is loaded."""

import json
import re
from pathlib import Path

import pytest

from instructedit.base import load_base
from tests.lightning_modules.conftest import saved
from tests.processes.conftest import Place


@pytest.fixture
def large_folder(tmp_path: Path) -> Path:
    """A random LLaMA of 100 MB in fp32, in 8 blocks."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 512, "intermediate_size": 1408, "num_attention_heads": 8, "num_hidden_layers": 8}
    return saved(LlamaForCausalLM(LlamaConfig(vocab_size=257, **sizes)), tmp_path / "large-llama")


@pytest.mark.deepspeed
def test_no_rank_holds_the_whole_base_while_it_is_loaded(place: Place, large_folder: Path) -> None:
    whole = sum(value.nbytes for value in load_base(str(large_folder)).model.parameters())
    place.base = large_folder
    steps = {"trainer__max_steps": 1, "validation__every_n_steps": 1, "model__warmup_steps": 0}
    steps |= {"data__validation_records": 1, "data__test_records": 1}
    job = place.start("run", "zero_3", 2, "--model.placement", "sharded", patch="weigh_loading", **steps).succeeds()
    told = [json.loads(re.findall("MEMORY (.*)", job.output(rank))[0]) for rank in (0, 1)]
    print(f"whole {whole / 2**20:.0f} MiB", told)
    for of in told:
        assert of["stays"] < 0.65 * whole
    # Rank zero maps the files, which counts as resident and can be taken back; the other reads nothing.
    assert told[1]["peak"] < 0.8 * whole
