"""No network, and a base and an edit in a folder to type commands in."""

from pathlib import Path

import pytest

from instructedit.base import Base
from tests.export.made import in_folder, random_edit, saved


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any connection is a failure of the test."""

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr("socket.socket.connect", refused)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", "/nowhere")


@pytest.fixture
def made(tiny_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Base, Path]:
    """A base in a folder and an edit of it in a file, and the folder they lie in as the working directory."""
    monkeypatch.chdir(tmp_path)
    base = in_folder(tiny_base, tmp_path / "base")
    return base, saved(tmp_path, random_edit(base, size=20.0))
