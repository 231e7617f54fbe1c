"""The command ``push`` as a person types it: what a dry run shows, and single lines of error. The Hub: test_hub.py."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from instructedit.base import Base
from instructedit.checkpoints import EditorCard, save_editor
from tests.core import editor_on
from tests.export.made import status

Spoil = Callable[[Path], object]


@pytest.fixture
def editor(tiny_gpt2_base: Base, tmp_path: Path) -> Path:
    trained, _ = editor_on(tiny_gpt2_base)
    results = {"Token accuracy": {"facts / MEND": {"reliability": {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 4}}}}
    card = EditorCard.of(trained, tiny_gpt2_base, tasks=["facts"], pools=None, steps=7, results=results)
    save_editor(tmp_path / "run" / "editor", trained, card)
    return tmp_path / "run" / "editor"


@pytest.mark.parametrize("form", ["lora", "model", "delta"])
def test_a_dry_run_shows_everything_that_would_be_sent(
    made: tuple[Base, Path], form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert status("export", "--edit", made[1], "--as", form, "--out", "out", "--license", "mit") == 0
    Path("out/secret.txt").write_text("mine")
    Path("out/.env").write_text("HF_TOKEN=hf_mine")
    capsys.readouterr()
    assert status("push", "out", "--repo", "me/edited", "--private", "--dry-run") == 0
    shown = capsys.readouterr().out
    kind = {"lora": "adapter", "model": "model", "delta": "delta"}[form]
    assert f"{kind} to me/edited, private" in shown and "Nothing was sent." in shown
    assert "Not sent: secret.txt" in shown and ".env" not in shown
    for path in Path("out").glob("[!.]*"):
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        assert (digest in shown) == (path.name != "secret.txt"), path
    for line in Path("out/README.md").read_text().splitlines():
        assert line in shown


def test_a_dry_run_of_an_editor_makes_its_card(editor: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert status("push", editor, "--repo", "me/mine", "--dry-run", "--license", "mit", "--hub-base", "some/base") == 0
    shown = capsys.readouterr().out
    for wanted in ("editor to me/mine, public", "library_name: instructedit", "license: mit", "base_model: some/base"):
        assert wanted in shown
    assert "| facts / MEND | 0.5 (0.25 to 0.75) |" in shown and 'Editor.load("OWNER/NAME", ' in shown
    assert sorted(path.name for path in editor.iterdir()) == ["card.json", "editor.safetensors"]


def test_a_card_of_ones_own_is_kept(editor: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (editor / "README.md").write_text("---\nlicense: mit\n---\nMy editor.\n")
    assert status("push", editor, "--repo", "me/mine", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "My editor." in shown and "library_name" not in shown and "note:" not in shown


def test_what_an_owner_should_know_before_is_said(made: tuple[Base, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert status("export", "--edit", made[1], "--as", "lora", "--out", "out") == 0
    config = json.loads(Path("out/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "base"  # never the path
    config["base_model_name_or_path"] = "/home/me/base"
    Path("out/adapter_config.json").write_text(json.dumps(config))
    capsys.readouterr()
    assert status("push", "out", "--repo", "me/mine", "--dry-run") == 0
    shown = capsys.readouterr().out
    assert "note: The card's licence is unknown" in shown and "by a path of this machine, '/home/me/base'" in shown


def damaged(folder: Path) -> None:
    tensors = load_file(folder / "editor.safetensors")
    save_file({**tensors, "more": torch.zeros(1)}, folder / "editor.safetensors")


@pytest.mark.parametrize(
    ("spoil", "argv", "told"),
    [
        (None, ("{}",), "No repository was given"),
        (None, ("--repo", "me/mine"), "push takes one folder; found 0"),
        (None, ("{}", "{}", "--repo", "me/mine"), "found 2"),
        (None, ("{}", "--repo", "a/b/c"), "--repo 'a/b/c' is no name of a Hub repository"),
        (None, ("{}", "--repo", "https://x/me/mine"), "is no name of a Hub repository"),
        (None, ("{}", "--repo", ""), "No repository was given"),
        (None, ("{}x", "--repo", "me/mine"), "There is no folder"),
        (None, ("{}/card.json", "--repo", "me/mine"), "instructedit export --edit"),
        (None, ("{}/..", "--repo", "me/mine"), "push that"),
        (None, ("{}", "--repo", "me/mine"), "There is no token for the Hub"),
        (damaged, ("{}", "--repo", "me/mine", "--dry-run"), "is not the file its card.json describes"),
        (lambda f: (f / "card.json").write_text("{"), ("{}", "--repo", "me/mine", "--dry-run"), "malformed"),
        (lambda f: (f / "README.md").write_bytes(b"\xff\xfe"), ("{}", "--repo", "me/mine", "--dry-run"), "Cannot read"),
    ],
)
def test_bad_input_to_push_is_one_line(
    editor: Path, spoil: Spoil | None, argv: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if spoil is not None:
        spoil(editor)
    assert status("push", *[argument.replace("{}", str(editor)) for argument in argv]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ") and err.count("\n") == 1 and told in err


def test_a_model_that_lacks_a_shard_is_not_sent(made: tuple[Base, Path], capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--as", "model", "--out", "out", "--max-shard-size", "20KB")
    assert status("export", "--edit", made[1], *flags) == 0
    next(Path("out").glob("model-00002-*")).unlink()
    assert status("push", "out", "--repo", "me/mine", "--dry-run") == 2
    assert "has no model-00002-" in capsys.readouterr().err
