import importlib.util
from pathlib import Path
from types import ModuleType

import pytest
import torch
from transformers import LlamaConfig

from instructedit.base import load_base


@pytest.fixture
def random_base() -> ModuleType:
    file = Path(__file__).parents[2] / "benchmarks" / "random_base.py"
    spec = importlib.util.spec_from_file_location("random_base", file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_what_is_written_is_a_base_of_the_shape_asked_for(random_base: ModuleType, tmp_path: Path) -> None:
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    shape = {**random_base.LLAMA_2_7B, **small, "num_key_value_heads": 4, "vocab_size": 8000}
    random_base.write(LlamaConfig(**shape), tmp_path)
    assert len(list(tmp_path.glob("model-*.safetensors"))) == 4, "one a block, and one for the rest"
    whole = load_base(str(tmp_path), torch.bfloat16)
    paged = load_base(str(tmp_path), torch.bfloat16, placement="tail_only")
    paged.keep_tail(2)
    assert len(whole.tokenizer("The capital of France is").input_ids) < 12, "not a token per byte"
    ids = torch.tensor([whole.tokenizer("The capital of France is").input_ids])
    assert torch.equal(paged.model(ids).logits, whole.model(ids).logits)
    matrix = whole.model.get_submodule("model.layers.1.mlp.up_proj").weight.float()
    assert 0.018 < matrix.std() < 0.022
