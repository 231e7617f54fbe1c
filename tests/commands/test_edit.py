"""The command edit: one request and many, joined, in a session, flagged and refused."""

import io
import json
from pathlib import Path

import pytest
import torch

from instructedit.base import load_base
from instructedit.editing.edit import Edit
from instructedit.methods.saved import load_edit
from tests.conftest import byte_tokenizer, tiny_gpt2
from tests.editing.kinds import base_and_editor, saved_editor
from tests.lightning_modules.conftest import run

PROMPT, TARGET = "The height of tower 0 is", "ten"
SMALL = {
    "validation_edits": {
        "records": 12,
        "update_norm": {"min": 1e-4, "q50": 1e-3, "q95": 2e-3, "max": 3},
        "locality_kl": {"min": 0.0, "q50": 1e-5, "q95": 1e-4, "max": 9},
    }
}
"""An editor whose edits were tiny when it was validated."""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a base and an editor of it; the working directory."""
    return base_and_editor(tmp_path, monkeypatch)


def edit(*flags: str) -> int:
    return run("edit", "--editor", "editor", *flags)


def one(*flags: str) -> int:
    return edit("--prompt", PROMPT, "--target", TARGET, *flags)


def test_one_request_before_and_after_and_as_a_file(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert one("--rephrase", "Tower 0 is high by", "--keep", "Water is", "Ten is", "--out", "e.safetensors") == 0
    told = capsys.readouterr().out
    for words in (PROMPT, "rephrase: ", "with its instruction", "Water is", "Drift: ", "Size:  norm", "saved   e.safe"):
        assert words in told
    assert "instructedit export --edit e.safetensors --as lora" in told
    edited = Edit.load("e.safetensors")
    assert [(request.prompt, request.target) for request in edited.requests] == [(PROMPT, TARGET)]


def test_as_json_it_is_what_python_says(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert one("--keep", "Water is", "--out", "e.safetensors", "--json") == 0
    (told,) = json.loads(capsys.readouterr().out)["edits"]
    assert told["file"] == "e.safetensors" and told["requests"][0]["target"] == TARGET
    report = Edit.load("e.safetensors").report(keep=["Water is"])
    assert told["report"]["drift"] == pytest.approx(report.drift, rel=1e-3)
    assert [line["after"] for line in told["report"]["lines"]] == [line.after for line in report.lines]


def requests_file(n: int) -> str:
    lines = [json.dumps({"prompt": f"The height of tower {k} is", "target": f"{k} feet"}) for k in range(n)]
    Path("requests.jsonl").write_text("\n".join(lines))
    return "requests.jsonl"


@pytest.mark.slow
def test_many_requests_together_alone_and_in_a_sequence(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = requests_file(3)
    found = {}
    for how in ("together", "sequence"):
        assert edit("--file", file, "--how", how, "--out", f"{how}.safetensors") == 0
        found[how] = Edit.load(f"{how}.safetensors")
        assert [request.target for request in found[how].requests] == ["0 feet", "1 feet", "2 feet"]
    assert edit("--file", file, "--how", "alone", "--out", "each") == 0
    assert sorted(path.name for path in Path("each").iterdir()) == [f"{n:03}.safetensors" for n in (1, 2, 3)]
    parts = [Edit.load(path) for path in sorted(Path("each").iterdir())]
    changes = [{name: update.materialise()[0] for name, update in part.updates.items()} for part in parts]
    for name, update in found["together"].updates.items():
        torch.testing.assert_close(
            update.materialise()[0], sum(change[name] for change in changes), atol=1e-5, rtol=1e-4
        )
    assert found["sequence"].norm != pytest.approx(found["together"].norm, rel=1e-3)


def test_going_on_from_a_saved_edit_is_the_sequence(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # One instruction for all: which one of a pool a request gets depends on its id, and a file's lines have ids.
    said = ("--instruction", "Change how high it is.")
    assert edit("--file", requests_file(2), *said, "--how", "sequence", "--out", "both.safetensors") == 0
    assert edit("--prompt", PROMPT, "--target", "0 feet", *said, "--out", "a.safetensors") == 0
    second = ("--prompt", "The height of tower 1 is", "--target", "1 feet", *said)
    assert edit(*second, "--after", "a.safetensors", "--out", "b.safetensors") == 0
    base = load_base("./base")
    for name, update in load_edit("both.safetensors", base).updates.items():  # type: ignore[attr-defined]
        other = load_edit("b.safetensors", base).updates[name]  # type: ignore[attr-defined]
        torch.testing.assert_close(update.materialise(), other.materialise(), atol=1e-5, rtol=1e-4)


def test_saved_edits_are_joined_without_an_editor(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert one("--out", "a.safetensors") == 0
    assert edit("--prompt", "Tower 9 is", "--target", "low", "--out", "b.safetensors") == 0
    assert run("edit", "--merge", "a.safetensors", "b.safetensors", "--out", "both.safetensors") == 0
    assert [request.target for request in Edit.load("both.safetensors").requests] == [TARGET, "low"]


def test_a_session_keeps_undoes_asks_and_saves(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = [PROMPT, TARGET, "k", "Tower 9 is", "low", "u", "Tower 8 is", "wide", "s", ":list", f":ask {PROMPT}"]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([*typed, "", "Tower 7 is", "", ":nonsense", ":quit"])))
    assert edit("--interactive", "--out", "session.safetensors") == 0
    told = capsys.readouterr().out
    assert "Undone." in told and "2 kept." in told and "Saved 2 edits" in told
    assert "edited: " in told and "error: Empty target" in told and "instructedit export --edit session" in told
    assert [request.target for request in Edit.load("session.safetensors").requests] == [TARGET, "wide"]


def test_a_session_without_out_says_what_to_do_next(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([PROMPT, TARGET, "k", ":save mine.safetensors"])))
    assert edit("--interactive") == 0
    told = capsys.readouterr().out
    assert "Saved 1 edit: mine.safetensors" in told and "instructedit export --edit mine.safetensors" in told
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join([PROMPT, TARGET, "k"])))
    assert edit("--interactive") == 0
    assert "1 edit kept and not saved. Next time: :save FILE" in capsys.readouterr().out


def test_an_edit_far_outside_validation_is_flagged(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert one() == 0
    assert "warning: " not in capsys.readouterr().out
    # The same editor with its steps a hundred times as large, and a card that says what is usual.
    saved_editor(place / "editor", load_base("./base"), alpha=10.0, results=SMALL)
    assert one() == 0
    told = capsys.readouterr().out
    assert "warning: The update: norm" in told and "of 12 validation edits" in told
    assert "warning: Answers that should stay have moved" in told


def test_an_editor_that_does_not_say_what_is_usual(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved_editor(place / "editor", load_base("./base"), results={})
    assert one() == 0
    assert capsys.readouterr().err.count("instructedit test --from_run") == 1


def test_what_drifts_too_far_is_refused_and_not_written(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert one("--keep", "Water is", "--max-drift", "1e-9", "--out", "e.safetensors") == 2
    assert "The edit is refused: answers that should stay moved" in capsys.readouterr().err
    assert not Path("e.safetensors").exists()
    assert one("--keep", "Water is", "--max-drift", "1e9", "--out", "e.safetensors") == 0
    assert Path("e.safetensors").exists()


BAD_FILE = '{"prompt": "a", "target": "b"}\nnonsense\n{"prompt": "a"}\n[]\n'


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ((), "There is nothing to edit in"),
        (("--prompt", PROMPT), "--target is missing"),
        (("--prompt", " ", "--target", TARGET), "--prompt is missing"),
        (("--prompt", PROMPT, "--target", TARGET, "--file", "bad.jsonl"), "given together"),
        (("--prompt", "x" * 900, "--target", TARGET), "context"),
        (("--prompt", PROMPT, "--target", TARGET, "--task", "counterfactt"), "'counterfact'"),
        (("--prompt", PROMPT, "--target", TARGET, "--keep", ""), "empty prompt"),
        (("--prompt", PROMPT, "--target", TARGET, "--out", "."), "is a folder"),
        (("--prompt", PROMPT, "--target", TARGET, "--out", "bad.jsonl/e"), "can be written"),
        (("--prompt", PROMPT, "--target", TARGET, "--max-drift", "-1"), "--max-drift"),
        (("--prompt", PROMPT, "--target", TARGET, "--how", "alone"), "--how alone"),
        (("--prompt", PROMPT, "--target", TARGET, "--after", "bad.jsonl"), "not a safetensors file"),
        (("--prompt", PROMPT, "--target", TARGET, "--base", "./other"), "trained on base"),
        (("--prompt", PROMPT, "--target", TARGET, "--slot", "TOPIC"), "NAME=VALUE"),
        (("--file", "nothing.jsonl"), "No file nothing.jsonl"),
        (("--file", "bad.jsonl"), "line 2: it is not JSON; line 3:"),
        (("--merge", "a.safetensors"), "two saved edits or more"),
        (("--interactive", "--json"), "--interactive goes neither"),
    ],
)
def test_bad_input_is_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], told: str
) -> None:
    Path("bad.jsonl").write_text(BAD_FILE)
    tiny_gpt2(seed=1).save_pretrained("other")
    byte_tokenizer().save_pretrained("other")
    capsys.readouterr()
    assert edit(*flags) == 2
    error = capsys.readouterr().err
    assert told in error and error.startswith("error: ") and error.count("\n") == 1


def test_a_missing_editor_is_one_line(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("edit", "--editor", "./nowhere", "--prompt", PROMPT, "--target", TARGET) == 2
    assert "No editor at './nowhere'" in capsys.readouterr().err
