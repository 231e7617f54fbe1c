import json
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors.torch import load_file, save_file
from transformers import MixtralConfig, MixtralForCausalLM

from instructedit.base import Base, load_base, load_tokenizer, loading
from instructedit.errors import InputError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTRUCTEDIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tiny_base: Base, tmp_path: Path) -> Path:
    saved = tmp_path / "base"
    tiny_base.model.save_pretrained(saved)
    tiny_base.tokenizer.save_pretrained(saved)
    return saved


def test_a_local_folder_loads_as_it_was_saved(folder: Path, tiny_base: Base) -> None:
    loaded = load_base(str(folder))
    ids = tiny_base.tokenizer("Hello there", return_tensors="pt").input_ids
    assert torch.equal(loaded.tokenizer("Hello there", return_tensors="pt").input_ids, ids)
    assert torch.equal(loaded.model(ids).logits, tiny_base.model(ids).logits)
    assert loaded.name == str(folder)
    assert loaded.fingerprint == tiny_base.fingerprint
    assert not any(module.training for module in loaded.model.modules())
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())


def test_the_dtype_is_as_asked_and_the_fingerprint_does_not_depend_on_it(folder: Path, tiny_base: Base) -> None:
    loaded = load_base(str(folder), dtype=torch.bfloat16)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.dtype == torch.bfloat16
    assert loaded.fingerprint == tiny_base.fingerprint


def test_shards_are_loaded_and_hashed(folder: Path, tiny_base: Base) -> None:
    (folder / "model.safetensors").unlink()
    tiny_base.model.save_pretrained(folder, max_shard_size="20KB")
    assert load_base(str(folder)).fingerprint == tiny_base.fingerprint
    next(folder.glob("model-00002*.safetensors")).unlink()
    with pytest.raises(InputError, match="has no model-00002"):
        load_base(str(folder))


def test_a_checkpoint_of_the_bare_decoder_loads_too(tiny_gpt2_base: Base, tmp_path: Path) -> None:
    # The Hub's gpt2 checkpoints name their weights without "transformer." and store no head.
    tiny_gpt2_base.model.transformer.save_pretrained(tmp_path / "bare")
    tiny_gpt2_base.model.config.save_pretrained(tmp_path / "bare")
    tiny_gpt2_base.tokenizer.save_pretrained(tmp_path / "bare")
    loaded = load_base(str(tmp_path / "bare"))
    ids = torch.arange(9).unsqueeze(0)
    assert torch.equal(loaded.model(ids).logits, tiny_gpt2_base.model(ids).logits)


def test_a_tokenizer_comes_alone_with_offsets(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    encoded = load_tokenizer(str(folder))("né", return_offsets_mapping=True)
    assert encoded["offset_mapping"] == [(0, 1), (1, 2), (1, 2)]


def test_a_name_from_the_hub_is_fetched_without_code_or_pickles(
    folder: Path, monkeypatch: pytest.MonkeyPatch, tiny_base: Base
) -> None:
    asked: list[tuple[str, list[str]]] = []

    def fetch(name: str, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(loading, "snapshot_download", fetch)
    assert load_base("someone/some-base").fingerprint == tiny_base.fingerprint
    load_tokenizer("someone/some-base")
    (name, for_base), (_, for_tokenizer) = asked
    assert name == "someone/some-base"
    assert "model*.safetensors" in for_base and "model*.safetensors" not in for_tokenizer
    assert not any("bin" in pattern or "py" in pattern for pattern in for_base)


class Response:
    headers: dict[str, str] = {}
    request = None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            LocalEntryNotFoundError("offline"),
            "Unknown base 'smollm2-135'. Did you mean 'smollm2-135m'.*cannot be reached",
        ),
        (RepositoryNotFoundError("404", response=Response()), "Did you mean 'smollm2-135m'.*no such Hub model"),
        (GatedRepoError("403", response=Response()), "gated on the Hub.*hf auth login"),
        (OSError("disk full\nmore lines"), "Cannot fetch base 'smollm2-135' from the Hub: disk full"),
    ],
)
def test_what_goes_wrong_at_the_hub_is_one_clear_line(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: object, **_kwargs: object) -> str:
        raise error

    monkeypatch.setattr(loading, "snapshot_download", fail)
    with pytest.raises(InputError, match=message) as caught:
        load_base("smollm2-135")
    assert "\n" not in str(caught.value)


def test_a_name_no_hub_could_have_is_refused_without_asking_it() -> None:
    with pytest.raises(InputError, match="Unknown base 'not a name!'"):
        load_base("not a name!")


@pytest.mark.parametrize("path", ["./nowhere", "/nowhere/at/all", "some/deep/folder"])
def test_a_folder_that_does_not_exist(path: str) -> None:
    with pytest.raises(InputError, match=f"Base folder '{path}' does not exist"):
        load_base(path)


def test_a_folder_without_the_files_says_which(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no usable config.json"):
        load_base(str(tmp_path / "base" / ".."))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="has no model.safetensors.*Only safetensors"):
        load_base(str(folder))


def test_weights_that_are_missing_are_not_made_up(folder: Path, tiny_base: Base) -> None:
    file = folder / "model.safetensors"
    weights = load_file(file)
    gone = f"{tiny_base.adaptor.block_path(2)}.{tiny_base.adaptor.matrices[0]}.weight"
    del weights[gone]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(InputError, match=f"lacks 1 weights.*{gone}"):
        load_base(str(folder))


def test_weights_that_are_broken(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(InputError, match="Cannot load base"):
        load_base(str(folder))


def test_an_architecture_that_is_not_supported(folder: Path) -> None:
    small = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    config = MixtralConfig(**small, num_key_value_heads=2, num_local_experts=2, vocab_size=257)
    MixtralForCausalLM(config).save_pretrained(folder)
    with pytest.raises(InputError, match="'mixtral'.*is not supported.*Supported: gpt2"):
        load_base(str(folder))


def test_an_unknown_model_type_and_one_with_its_own_code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "no-such-type"}))
    with pytest.raises(InputError, match="no usable config.json"):
        load_base(str(folder))


def test_a_folder_without_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(InputError, match="has no tokenizer in .*none of tokenizer.json"):
        load_base(str(folder))
