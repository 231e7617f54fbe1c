import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from instructedit.base import Base
from instructedit.base.fingerprint import fingerprint_of_files, fingerprint_of_model
from instructedit.errors import InputError


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTRUCTEDIT_CACHE", str(tmp_path / "cache"))


def saved(base: Base, folder: Path, **options: object) -> list[Path]:
    base.model.save_pretrained(folder, **options)
    return sorted(folder.glob("model*.safetensors"))


def test_a_saved_copy_has_the_fingerprint_of_the_model_in_memory(tiny_base: Base, tmp_path: Path) -> None:
    files = saved(tiny_base, tmp_path / "base")
    assert len(tiny_base.fingerprint) == 64
    assert fingerprint_of_files(tiny_base.model.config, files) == tiny_base.fingerprint


def test_how_a_checkpoint_is_cut_into_files_does_not_count(tiny_base: Base, tmp_path: Path) -> None:
    shards = saved(tiny_base, tmp_path / "base", max_shard_size="20KB")
    assert len(shards) > 2
    assert fingerprint_of_files(tiny_base.model.config, shards) == tiny_base.fingerprint


def test_a_tied_head_that_is_stored_twice_does_not_count(tiny_gpt2_base: Base, tmp_path: Path) -> None:
    (file,) = saved(tiny_gpt2_base, tmp_path / "base")
    weights = load_file(file)
    twice = tmp_path / "twice.safetensors"
    save_file({**weights, "lm_head.weight": weights["transformer.wte.weight"].clone()}, twice)
    assert fingerprint_of_files(tiny_gpt2_base.model.config, [twice]) == tiny_gpt2_base.fingerprint


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_same_seed_same_fingerprint_anything_else_another(family: str, make_tiny_base: Callable[..., Base]) -> None:
    first = make_tiny_base(family).fingerprint
    assert make_tiny_base(family).fingerprint == first
    assert make_tiny_base(family, seed=1).fingerprint != first
    last_norm = make_tiny_base(family)
    norm = last_norm.adaptor.decoder_of(last_norm.model).get_submodule(last_norm.adaptor.norm)
    with torch.no_grad():
        norm.weight[-1] += 1e-6
    assert last_norm.fingerprint != first


def test_the_config_counts_where_it_changes_the_computation(tiny_llama_base: Base) -> None:
    model = tiny_llama_base.model
    first = fingerprint_of_model(model)
    model.config.use_cache = False
    model.config._name_or_path = "elsewhere"
    assert fingerprint_of_model(model) == first
    model.config.rope_parameters = {"rope_type": "default", "rope_theta": 123.0}
    assert fingerprint_of_model(model) != first


def test_a_changed_file_is_noticed_and_an_unchanged_one_not_read_again(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_base.model.config
    (file,) = saved(tiny_base, tmp_path / "base")
    first = fingerprint_of_files(config, [file])
    with monkeypatch.context() as patched:
        patched.setattr("instructedit.base.fingerprint._hash_file", lambda _file: pytest.fail("read again"))
        assert fingerprint_of_files(config, [file]) == first
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(1, 1))
    assert fingerprint_of_files(config, [file]) != first


def test_a_cache_that_cannot_be_written_does_no_harm(
    tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = saved(tiny_base, tmp_path / "base")
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where the cache folder should be")
    monkeypatch.setenv("INSTRUCTEDIT_CACHE", str(blocked))
    assert fingerprint_of_files(tiny_base.model.config, files) == tiny_base.fingerprint


@pytest.mark.parametrize("content", [b"", b"not safetensors at all", b"\xff" * 64])
def test_a_file_of_another_format_is_refused(tiny_base: Base, tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(content)
    with pytest.raises(InputError, match="Cannot read .*model.safetensors as safetensors"):
        fingerprint_of_files(tiny_base.model.config, [file])
