"""What is asked of the Hub, and how its absence is told; the Hub itself is not called."""

from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from instructedit.errors import InputError
from instructedit.tasks.base import SourceFile
from instructedit.tasks.hub import fetch

FILES = [(SourceFile(("a/x.json", "b/x.json")),), (SourceFile(("y.json",)),)]


@pytest.mark.parametrize(("source", "repository"), [("hub", "zjunlp/KnowEdit"), ("hub:me/mine", "me/mine")])
def test_only_the_files_needed_are_fetched(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, source: str, repository: str
) -> None:
    calls: list[Any] = []

    def download(name: str, **options: Any) -> str:
        calls.append((name, options))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert fetch(source, FILES) == tmp_path
    wanted = ["a/x.json", "b/x.json", "benchmark/a/x.json", "benchmark/b/x.json", "benchmark/y.json", "y.json"]
    assert calls == [(repository, {"repo_type": "dataset", "allow_patterns": wanted})]


def test_an_unreachable_hub_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, **options: Any) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with pytest.raises(InputError, match="cannot be fetched.*no route.*--source"):
        fetch("hub", FILES)
