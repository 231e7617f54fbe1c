"""A training in which nothing is wrong, for the tests of the preflight to break."""

import json
from pathlib import Path
from typing import Any

import pytest

from instructedit.scheduling.preflight import Finding, preflight

LLAMA = {
    "model_type": "llama",
    "vocab_size": 32000,
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
}
"""LLaMA-2-7B, of which only the config is needed."""

CARD = {"splits": {split: {"records": 20} for split in ("train", "validation", "test")}}


class Setup:
    """A training in which nothing is wrong, to be changed."""

    def __init__(self, folder: Path) -> None:
        self.base, self.data, self.run = folder / "base", folder / "data", folder / "runs" / "a"
        self.base.mkdir()
        (self.base / "config.json").write_text(json.dumps(LLAMA))
        for name in ("model.safetensors", "tokenizer.json"):
            (self.base / name).touch()
        for task in ("recent", "convsent", "zsre"):
            for split in ("train", "validation", "test"):
                (self.data / task / split).mkdir(parents=True)
                (self.data / task / split / "state.json").touch()
            (self.data / task / "card.json").write_text(json.dumps(CARD))
        self.command = "fit"
        self.config: dict[str, Any] = {
            "run": {"name": "a", "folder": str(folder / "runs")},
            "model": {"base": str(self.base), "dtype": "bfloat16"},
            "data": {"folder": str(self.data), "tasks": ["recent", "convsent"], "held_out": ["zsre"], "batch": 8},
            "trainer": {"max_steps": 10, "accelerator": "cpu"},
        }
        self.settings: dict[str, Any] = {"offline": True, "gpu_memory_gib": 24.0, "ranks": 1}

    def set(self, key: str, value: Any) -> None:
        *sections, name = key.split(".")
        found = self.config
        for section in sections:
            found = found.setdefault(section, {})
        found[name] = value

    def evaluation(self) -> None:
        self.command = "evaluate"
        self.config = {"base": str(self.base), "data": str(self.data), "tasks": "recent,zsre", "dtype": "bfloat16"}
        self.config["methods"] = [{"method": "ft-l"}]

    def found(self) -> list[Finding]:
        return preflight(self.command, self.config, self.run, **self.settings)

    def only(self) -> Finding:
        found = self.found()
        assert len(found) == 1, found
        assert "\n" not in found[0].message
        return found[0]


@pytest.fixture
def setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    monkeypatch.setenv("INSTRUCTEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return Setup(tmp_path)
