"""A place to train in: tiny bases on disk, three small prepared tasks, and the command line in this process."""

import csv
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import PreTrainedModel

from instructedit import cli, signals
from instructedit.records import EditExample, EditRequest, Probe
from instructedit.tasks.prepared import write_prepared
from tests.conftest import byte_tokenizer, tiny_gpt2, tiny_llama

WORDS = ("Oslo", "Lima", "Cairo", "Quito", "Rabat", "Hanoi", "Accra", "Dakar")


def example(task: str, split: str, index: int) -> EditExample:
    """One record; convsent's have wanted and unwanted texts, recent's no rephrase while training."""
    subject, word, other = f"{split} {task} {index}", WORDS[index % 8], WORDS[(index + 3) % 8]
    local = Probe("locality", f"The river of {subject} is", other, (other,))
    name = f"{task}-{split}-{index}"
    if task == "convsent":
        slots = {"LABEL": "positive", "TOPIC": subject}
        request = EditRequest(f"What about {subject}?", word, name, task, subject, (other,), ("bad", "worse"), slots)
        return EditExample(request, (local,))
    request = EditRequest(f"The capital of {subject} is", word, name, task, subject, old_answer=other)
    rephrase = Probe("rephrase", f"What is the capital of {subject}?", word, (word,))
    return EditExample(request, (local,) if task == "recent" and split == "train" else (rephrase, local))


@pytest.fixture(scope="session")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recent and convsent with all splits, zsre with test records only."""
    folder = tmp_path_factory.mktemp("prepared")
    sizes = {"train": 16, "validation": 3, "test": 3}
    for task in ("recent", "convsent", "zsre"):
        splits = {
            split: [example(task, split, index) for index in range(n)]
            for split, n in sizes.items()
            if task != "zsre" or split == "test"
        }
        write_prepared(folder, task, splits, {})  # type: ignore[arg-type]
    return folder


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny_llama(), tmp_path_factory.mktemp("bases") / "tiny-llama")


@pytest.fixture(scope="session")
def gpt2_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tiny_gpt2(), tmp_path_factory.mktemp("bases") / "tiny-gpt2")


def saved(model: PreTrainedModel, folder: Path) -> Path:
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Give the signal handlers and the flag back, keep caches out of the home folder, and show no traceback."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    monkeypatch.setenv("INSTRUCTEDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("INSTRUCTEDIT_DEBUG", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    yield
    signals.clear()
    for number, handler in before.items():
        signal.signal(number, handler)


Write = Callable[..., Path]


@pytest.fixture
def write_config(tmp_path: Path, prepared: Path, llama_folder: Path) -> Write:
    """Write a small experiment; keywords such as ``model__lr=0.1`` change one setting of a section."""
    return partial(write_experiment, tmp_path, prepared, llama_folder)


def write_experiment(folder: Path, prepared: Path, base: Path, name: str = "run", **changes: object) -> Path:
    settings: dict[str, dict[str, Any]] = {
        "run": {"name": name, "folder": str(folder / "runs")},
        "model": {
            "base": str(base),
            "sites": {"last_blocks": 2},
            "editor": {"rank": 8},
            "lr": 1e-3,
            "warmup_steps": 2,
            "schedule": "linear",
        },
        "data": {"folder": str(prepared), "tasks": ["recent", "convsent"], "held_out": ["zsre"], "batch": 4},
        "trainer": {"max_steps": 6, "accelerator": "cpu", "devices": 1, "gradient_clip_val": 100.0},
        "validation": {"every_n_steps": 3},
        "checkpoint": {"every_n_steps": 2},
    }
    for key, value in changes.items():
        section, _, setting = key.partition("__")
        settings[section][setting] = value
    # One row has one place: whatever the processor, runs can be compared to the bit.
    settings["model"]["store"] = {"rows_per_pass": 1, "pad_to_tokens": 16} | settings["model"].get("store", {})
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def run(*argv: object) -> int:
    """Run the command line in this process and return its exit status."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in argv])
    assert isinstance(stop.value.code, int)
    return stop.value.code


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
