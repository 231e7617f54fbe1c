"""Write a base of LLaMA-2-7B's shape with random weights to disk, in bf16, one block at a time.

    python benchmarks/random_base.py FOLDER [--blocks 32]

13.5 GB with all blocks. No more than one block is in memory. The tokenizer is a small one of
its own.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

DEVIATION = 0.02
"""Standard deviation of the matrices, LLaMA's own at the start of its training."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--blocks", type=int, default=32)
    given = parser.parse_args()
    write(LlamaConfig(**{**LLAMA_2_7B, "num_hidden_layers": given.blocks}), given.folder)


LLAMA_2_7B = {
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "dtype": "bfloat16",
}
"""What is public of the model's config; the two special tokens are the small tokenizer's."""


def write(config: LlamaConfig, folder: Path) -> None:
    """Write config, tokenizer and one safetensors file a block, and one for what is in no block."""
    folder.mkdir(parents=True, exist_ok=True)
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    small_tokenizer().save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: tuple(w.shape) for name, w in AutoModelForCausalLM.from_config(config).state_dict().items()}
    generator = torch.Generator().manual_seed(0)
    where, total = {}, 0
    parts = list(_parts(shapes))
    for index, names in enumerate(parts):
        file = f"model-{index + 1:05d}-of-{len(parts):05d}.safetensors"
        weights = {name: _random(shapes[name], generator) for name in names}
        save_file(weights, folder / file, metadata={"format": "pt"})
        where |= dict.fromkeys(names, file)
        size = sum(weight.nbytes for weight in weights.values())
        total += size
        print(f"{file}: {size / 1e6:.0f} MB", flush=True)
        del weights
    index = {"metadata": {"total_size": total}, "weight_map": where}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def small_tokenizer() -> PreTrainedTokenizerFast:
    """Train a tokenizer on this repository's own texts, so that the demo's are about as long as under a real one."""
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    root = Path(__file__).parents[1]
    texts = sorted([*root.glob("*.md"), *root.glob("docs/*.md"), *root.glob("instructedit/tasks/*.py")])
    trainer = trainers.BpeTrainer(
        vocab_size=8000, initial_alphabet=alphabet, special_tokens=["<end>"], show_progress=False
    )
    raw.train([str(text) for text in texts], trainer)
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<end>", pad_token="<end>")


def _parts(shapes: dict[str, tuple[int, ...]]) -> Iterator[list[str]]:
    """Group the names by block; the last group is of those in none."""
    groups: dict[str, list[str]] = {}
    for name in shapes:
        words = name.split(".")
        groups.setdefault(words[2] if words[1] == "layers" else "rest", []).append(name)
    rest = groups.pop("rest")
    yield from groups.values()
    yield rest


def _random(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if len(shape) == 1:  # a norm's weights
        return torch.ones(shape, dtype=torch.bfloat16)
    return torch.empty(shape, dtype=torch.bfloat16).normal_(0, DEVIATION, generator=generator)


if __name__ == "__main__":
    main()
