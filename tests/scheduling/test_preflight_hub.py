"""Bases from the Hub: a local server gives the answers that the Hub gives, and its cache is a real one."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import pytest
from huggingface_hub.utils import close_session
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from instructedit.base.config_sizes import ConfigSizes
from instructedit.base.smollm2 import ALIAS, find_converted
from instructedit.errors import InputError
from instructedit.scheduling.preflight import Finding, bases, preflight
from instructedit.scheduling.preflight.bases import SMOLLM2
from instructedit.scheduling.preflight.work import Work

NAME = "some/model"
TOKEN = "hf_secret"
PATH = f"/{NAME}/resolve/main/config.json"


@pytest.fixture
def hub(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HTTPServer]:
    """The server in the Hub's place, an empty cache, and an account with a token."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", httpserver.url_for("").rstrip("/"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    close_session()
    bases._ask_hub.cache_clear()
    yield httpserver
    close_session()
    bases._ask_hub.cache_clear()


def found(name: str = NAME, offline: bool = False) -> list[Finding]:
    return list(bases.check_base(Work("fit", {"model": {"base": name}}, None, offline, None, 1)))


def cached(folder: Path, *files: str) -> None:
    """Put a model in the Hub's cache, as it lies there."""
    commit = "0" * 40
    model = folder / "hub" / "models--some--model"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    (model / "snapshots" / commit).mkdir(parents=True)
    for file in files:
        (model / "snapshots" / commit / file).write_text("{}")


def test_a_model_that_the_hub_gives_is_asked_for_with_the_account(hub: HTTPServer) -> None:
    hub.expect_request(PATH, headers={"authorization": f"Bearer {TOKEN}"}).respond_with_data("{}", 200)
    assert found() == []
    hub.check_assertions()  # nothing else was asked


def test_the_config_that_the_hub_gives_is_counted(hub: HTTPServer) -> None:
    hub.expect_ordered_request(PATH).respond_with_data("", 307, headers={"Location": "/other/resolve/main/config.json"})
    hub.expect_ordered_request("/other/resolve/main/config.json").respond_with_json({"model_type": "llama"})
    config = {"model": {"base": NAME}, "trainer": {"max_steps": 3}}
    for _ in range(2):  # the second time the Hub is not asked
        findings = preflight("fit", config, None, offline=False, gpu_memory_gib=16.0, ranks=1)
        (memory,) = [finding for finding in findings if "GPU memory" in finding.message]
        assert "base 25.1" in memory.message
    hub.check_assertions()


@pytest.mark.parametrize(
    ("status", "headers", "level", "message"),
    [
        (403, {"X-Error-Code": "GatedRepo"}, "error", "is gated on the Hub and this account has no access"),
        (404, {"X-Error-Code": "RepoNotFound"}, "error", "the Hub has no such model"),
        (401, {"X-Error-Message": "Invalid username or password."}, "error", "the Hub has no such model"),
        (
            401,
            {"X-Error-Message": "Invalid credentials in Authorization header"},
            "error",
            "does not accept this account's token",
        ),
        (404, {"X-Error-Code": "EntryNotFound"}, "error", "has no config.json on the Hub"),
        (503, {}, "warning", "could not be asked about it (it answered 503)"),
    ],
)
def test_what_the_hub_refuses(hub: HTTPServer, status: int, headers: dict[str, str], level: str, message: str) -> None:
    hub.expect_request(PATH).respond_with_data("", status, headers=headers)
    (finding,) = found()
    assert finding.level == level and message in finding.message
    assert TOKEN not in finding.message and "\n" not in finding.message


def test_a_hub_that_does_not_answer(hub: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def late(request: Request) -> Response:
        time.sleep(0.4)
        return Response()

    monkeypatch.setattr(bases, "SECONDS", 0.1)
    hub.expect_request(PATH).respond_with_handler(late)
    (finding,) = found()
    assert finding.level == "warning" and "could not be asked about it (ReadTimeout)" in finding.message
    assert f"hf download {NAME} --include" in finding.message
    bases._ask_hub.cache_clear()
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    assert "(ConnectError)" in found()[0].message
    bases._ask_hub.cache_clear()
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert "(OfflineModeIsEnabled)" in found()[0].message


def test_nodes_without_internet_need_it_in_the_cache(hub: HTTPServer, tmp_path: Path) -> None:
    (finding,) = found(offline=True)
    assert finding.level == "error"
    assert (
        "is no folder and not in the Hub's cache here, and the compute nodes have no internet. Fetch it here first: "
        "hf download some/model --include '*.json' --include '*.txt' --include 'tokenizer*' --include "
        "'model*.safetensors'"
    ) in finding.message
    cached(tmp_path, "config.json", "tokenizer.json")
    (finding,) = found(offline=True)
    assert "is only partly in the Hub's cache here: Base 'some/model' has no model.safetensors" in finding.message
    assert len(hub.log) == 0, "the Hub need not be asked"


def test_what_is_in_the_cache_is_not_asked_for(hub: HTTPServer, tmp_path: Path) -> None:
    cached(tmp_path, "config.json", "tokenizer.json", "model.safetensors")
    assert found() == [] and found(offline=True) == []
    assert len(hub.log) == 0


def test_the_cache_is_that_of_the_jobs_environment(
    hub: HTTPServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "INSTRUCTEDIT_CACHE"):
        monkeypatch.delenv(name, raising=False)
    cached(tmp_path, "config.json", "tokenizer.json", "model.safetensors")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "other"))

    def looked(base: str = NAME, **environment: str) -> list[str]:
        config = {"model": {"base": base}, "trainer": {"max_steps": 1}}
        settings: dict[str, Any] = {"offline": True, "gpu_memory_gib": None, "ranks": 1, "environment": environment}
        findings = preflight("fit", config, None, **settings)
        return [finding.message for finding in findings if "base" in finding.message.lower()]

    assert "not in the Hub's cache" in looked()[0]
    assert not looked(HF_HOME=str(tmp_path)) and not looked(HF_HUB_CACHE=str(tmp_path / "hub"))
    assert "not in the Hub's cache" in looked(HF_HOME=str(tmp_path), HF_HUB_CACHE=str(tmp_path / "nowhere"))[0]
    # The alias is unpacked into our own cache, for which nothing more is needed where it is there.
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("instructedit.base.smollm2._find_gguf", lambda: (tmp_path / "a.gguf", "0"))
    (tmp_path / f"{ALIAS}-0-1").mkdir()
    monkeypatch.setenv("INSTRUCTEDIT_CACHE", str(tmp_path / "login"))
    assert "needs the package" in looked(ALIAS)[0]
    assert not looked(ALIAS, INSTRUCTEDIT_CACHE=str(tmp_path))


def test_a_name_that_is_none(hub: HTTPServer) -> None:
    for name in ("smollm-135m!", "a" * 200):
        (finding,) = [
            finding
            for finding in preflight(
                "fit", {"model": {"base": name}}, None, offline=False, gpu_memory_gib=None, ranks=1
            )
            if "base" in finding.message
        ]
        assert finding.level == "error" and "Unknown base" in finding.message


def test_the_alias_needs_its_package(hub: HTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INSTRUCTEDIT_CACHE", str(tmp_path))
    assert found(ALIAS) == [], "it is unpacked by the job"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="Converting base 'smollm2-135m' needs the package 'gguf'"):
        found(ALIAS)
    monkeypatch.setattr("instructedit.base.smollm2._find_gguf", lambda: (tmp_path / "a.gguf", "0"))
    (tmp_path / f"{ALIAS}-0-1").mkdir()
    assert found(ALIAS) == [], "unpacked, it needs nothing more"


@pytest.mark.slow
def test_the_aliass_sizes_are_its_bases() -> None:
    from instructedit.base.loading import load_tokenizer

    load_tokenizer(ALIAS)
    content = json.loads((find_converted() / "config.json").read_text())
    assert ConfigSizes.of(content) == ConfigSizes.of(SMOLLM2)
