"""Editors from the Hub and folders to it, over HTTP, with a stand-in for the Hub on this machine."""

import json
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub.utils import close_session
from pytest_httpserver import HTTPServer

from instructedit.base import Base, load_base
from instructedit.checkpoints import EditorCard, save_editor
from instructedit.errors import InputError
from instructedit.export.upload import plan, send
from instructedit.hub import editor_folder
from instructedit.methods.hyper import HyperMethod
from instructedit.records import EditRequest
from tests.core import editor_on
from tests.export.made import in_folder, random_edit, saved, status
from tests.hub_server import HubServer, Repository

REQUEST = [EditRequest("The sky is", "blue")]


@pytest.fixture
def hub(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """The stand-in in the Hub's place, an empty cache, and somebody who is logged in."""
    served = HubServer(httpserver)
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", served.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", served.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setenv("HF_TOKEN", served.token)
    close_session()
    yield served
    close_session()


@pytest.fixture
def editor(tiny_gpt2_base: Base, tmp_path: Path) -> Path:
    made, _ = editor_on(tiny_gpt2_base, alpha=0.1)
    card = EditorCard.of(made, tiny_gpt2_base, tasks=["facts"], pools=None, steps=7, results={"rows": [{"x": 1}]})
    save_editor(tmp_path / "editor", made, card)
    return tmp_path / "editor"


def test_an_editor_goes_to_the_hub_and_comes_back(hub: HubServer, editor: Path, tiny_gpt2_base: Base) -> None:
    (editor / "notes.txt").write_text("not for everybody")
    page = send(plan(editor, "me/mine"))
    assert page == f"{hub.url}/me/mine"
    files = hub.repositories["me/mine"].files
    assert sorted(files) == ["README.md", "card.json", "editor.safetensors"]
    assert files["editor.safetensors"] == (editor / "editor.safetensors").read_bytes()
    assert sum(request.startswith("POST /api/models/me/mine/commit") for request in hub.seen) == 1
    assert any(request.startswith("PUT /store/") for request in hub.seen)  # by LFS
    assert not (editor / "README.md").exists()
    folder = editor_folder("me/mine")
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    mine, theirs = (HyperMethod.load(each, tiny_gpt2_base).edit(tiny_gpt2_base, REQUEST) for each in (editor, folder))
    assert all(torch.equal(theirs.updates[site].v, update.v) for site, update in mine.updates.items())
    assert hub.tokens == {hub.token, ""} or hub.tokens == {hub.token}


def test_only_an_editors_files_are_fetched(hub: HubServer, editor: Path) -> None:
    files = {path.name: path.read_bytes() for path in editor.iterdir()}
    hub.repositories["some/editor"] = Repository({**files, "model.py": b"raise SystemExit", "huge.bin": b"0"})
    folder = editor_folder("some/editor", revision=hub.repositories["some/editor"].commit)
    assert sorted(path.name for path in folder.iterdir()) == ["card.json", "editor.safetensors"]
    assert not any("model.py" in request or "huge" in request for request in hub.seen)


def test_what_is_fetched_once_is_there_offline(hub: HubServer, editor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.repositories["some/editor"] = Repository({path.name: path.read_bytes() for path in editor.iterdir()})
    folder = editor_folder("some/editor")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert editor_folder("some/editor") == folder
    with pytest.raises(InputError, match="not in the Hub's cache here"):
        editor_folder("some/other")


def test_a_private_editor_needs_its_owners_token(hub: HubServer, editor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    send(plan(editor, "me/secret", private=True))
    assert hub.repositories["me/secret"].private
    assert editor_folder("me/secret").is_dir()
    monkeypatch.setenv("HF_TOKEN", "hf_other")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(editor / "their cache"))
    with pytest.raises(InputError, match="knows no such repository, or it is private") as caught:
        editor_folder("me/secret")
    assert "hf_other" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "revision", "told"),
    [
        ("some/nothing", None, "knows no such repository"),
        ("some/editor", "v9", "no such revision"),
        ("some/data", None, r"no editor\.safetensors and no card\.json"),
        ("a/b/c", None, "no name of a Hub repository"),
        ("-bad-", None, "no name of a Hub repository"),
    ],
)
def test_what_cannot_be_fetched_is_told_in_one_line(
    hub: HubServer, editor: Path, name: str, revision: str | None, told: str
) -> None:
    hub.repositories["some/editor"] = Repository({path.name: path.read_bytes() for path in editor.iterdir()})
    hub.repositories["some/data"] = Repository({"README.md": b"data"})
    with pytest.raises(InputError, match=told) as caught:
        editor_folder(name, revision)
    assert "\n" not in str(caught.value)


def test_a_hub_that_is_not_there(hub: HubServer, editor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(InputError, match="cannot be reached"):
        editor_folder("some/editor")
    with pytest.raises(InputError, match="Cannot push to 'me/mine': ConnectError"):
        send(plan(editor, "me/mine"))


def test_a_token_that_is_not_valid(hub: HubServer, editor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_expired")
    with pytest.raises(InputError, match=r"Cannot push to 'me/mine': the Hub refuses it \(401.*HF_TOKEN") as caught:
        send(plan(editor, "me/mine"))
    assert "hf_expired" not in str(caught.value) and "\n" not in str(caught.value)
    assert hub.repositories == {}


def test_without_a_token_nothing_is_asked(hub: HubServer, editor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(InputError, match="There is no token for the Hub.*hf auth login"):
        send(plan(editor, "me/mine"))
    assert hub.seen == []


def test_nothing_private_goes_into_a_public_repository(hub: HubServer, editor: Path) -> None:
    hub.repositories["me/mine"] = Repository({"README.md": b"before"})
    with pytest.raises(InputError, match="is on the Hub already and is public; nothing was sent"):
        send(plan(editor, "me/mine", private=True))
    assert hub.repositories["me/mine"].files == {"README.md": b"before"}
    send(plan(editor, "me/mine"))
    assert len(hub.repositories["me/mine"].files) == 3


def test_a_repository_of_somebody_else(hub: HubServer, editor: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests import hub_server

    def forbidden(*_: object) -> hub_server.Response:
        return hub_server._error(403, "", "You don't have the rights to create a model under this namespace.")

    monkeypatch.setattr(hub, "_create", forbidden)
    with pytest.raises(InputError, match=r"\(403: the token may not do this\)"):
        send(plan(editor, "them/theirs"))


def test_a_card_that_the_hub_refuses_says_why(hub: HubServer, editor: Path) -> None:
    with pytest.raises(InputError, match='"license" must be one of apache-2.0') as caught:
        send(plan(editor, "me/mine", licence="nonsense"))
    assert "\n" not in str(caught.value)
    assert hub.repositories["me/mine"].files == {}
    send(plan(editor, "me/mine", licence="mit", hub_base="some/base"))
    assert b"license: mit" in hub.repositories["me/mine"].files["README.md"]
    assert b"base_model: some/base" in hub.repositories["me/mine"].files["README.md"]


def test_an_edit_of_a_base_on_the_hub_takes_its_settings_and_licence_along(
    hub: HubServer, tiny_gpt2_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_gpt2_base.model.generation_config.max_new_tokens = 77
    in_folder(tiny_gpt2_base, tmp_path / "base")
    files = {path.name: path.read_bytes() for path in (tmp_path / "base").iterdir()}
    files |= {"chat_template.jinja": b"{{ messages }}", "README.md": b"---\nlicense: mit\n---\n", "model.bin": b"0"}
    hub.repositories["some/base"] = Repository(files)
    edit = saved(tmp_path, random_edit(load_base("some/base")))
    assert status("export", "--edit", edit, "--as", "model", "--out", "out") == 0
    assert json.loads((tmp_path / "out" / "generation_config.json").read_text())["max_new_tokens"] == 77
    assert (tmp_path / "out" / "chat_template.jinja").read_text() == "{{ messages }}"
    text = (tmp_path / "out" / "README.md").read_text()
    assert "base_model: some/base\n" in text and "license: mit\n" in text
    assert not any("model.bin" in request for request in hub.seen)
    assert status("export", "--edit", edit, "--as", "lora", "--out", "lora") == 0
    assert json.loads((tmp_path / "lora" / "adapter_config.json").read_text())["base_model_name_or_path"] == "some/base"
    # All of it again without the Hub.
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    assert status("export", "--edit", edit, "--as", "model", "--out", "again") == 0
    assert (tmp_path / "again" / "README.md").read_text() == text
