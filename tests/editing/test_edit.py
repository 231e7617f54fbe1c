"""An edit in the hand: joined with others, saved, loaded, and asked what it has done."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from instructedit.base import Base
from instructedit.editing.edit import Edit
from instructedit.editing.editor import Editor
from instructedit.errors import InputError, MismatchError
from instructedit.methods.saved import load_edit, read_header, save_edit
from instructedit.records import EditRequest
from tests.editing.kinds import KINDS, saved_editor
from tests.editing.test_editor import REQUESTS, dense_logits, logits


@pytest.mark.parametrize("kind", KINDS)
def test_joined_edits_add_up(tiny_base: Base, tmp_path: Path, kind: str) -> None:
    editor = Editor.load(saved_editor(tmp_path / "editor", tiny_base, kind), tiny_base)
    one, two = editor.edit(REQUESTS[0]), editor.edit(REQUESTS[1:])
    with editor.edit(REQUESTS).applied():
        together = logits(tiny_base)
    joined = one.merge(two)
    with joined.applied():
        torch.testing.assert_close(logits(tiny_base), together, atol=1e-4, rtol=0)
    assert joined.requests == one.requests + two.requests and joined.norms == pytest.approx(one.norms + two.norms)
    assert joined.editor == one.editor
    # Every request has a norm of its own; the whole has that of the sum.
    dense = {name: update.merged().materialise()[0] for name, update in joined.updates.items()}
    assert joined.norm == pytest.approx(math.sqrt(sum(float(d.square().sum()) for d in dense.values())), rel=1e-4)


def test_many_edits_take_no_more_ranks_than_the_matrix_has(tiny_base: Base, tmp_path: Path) -> None:
    editor = Editor.load(saved_editor(tmp_path / "editor", tiny_base, alpha=0.01), tiny_base)
    requests = [EditRequest(f"The height of the old tower number {n} of the town is", "ten feet") for n in range(8)]
    edit = editor.edit(requests)
    joined = edit.merge()
    for name, update in joined.updates.items():
        assert edit.updates[name].merged().u.shape[1] > 32, "too few ranks to show anything"
        assert update.u.shape[1] <= min(update.u.shape[2], update.v.shape[2])
    torch.testing.assert_close(dense_logits(joined), dense_logits(edit), atol=1e-4, rtol=0)


def test_only_edits_of_one_base_are_joined(
    tiny_llama_base: Base, make_tiny_base: Callable[..., Base], tmp_path: Path
) -> None:
    other = make_tiny_base("llama", seed=1)
    one, two = (
        Editor.load(saved_editor(tmp_path / str(n), base, "MEND"), base).edit(REQUESTS[0])
        for n, base in enumerate((tiny_llama_base, other))
    )
    with pytest.raises(MismatchError, match="weights differ"):
        one.merge(two)


def test_edits_of_two_editors_tell_of_both(tiny_llama_base: Base, tmp_path: Path) -> None:
    one, two = (
        Editor.load(saved_editor(tmp_path / kind, tiny_llama_base, kind), tiny_llama_base).edit(REQUESTS[n])
        for n, kind in enumerate(("MEND", "KE"))
    )
    joined = one.merge(two, two)
    assert joined.editor["method"] == "MEND" and [each["method"] for each in joined.editor["others"]] == ["KE"]
    assert len(joined.requests) == 3


@pytest.mark.parametrize("how", ["together", "sequence"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_edit_comes_back(tiny_base: Base, tmp_path: Path, kind: str, how: str) -> None:
    editor = Editor.load(saved_editor(tmp_path / "editor", tiny_base, kind), tiny_base)
    slots = {"LABEL": "positive", "TOPIC": "tea"}
    request = EditRequest("Ünd what of tea?", "ten", "id", "convsent", "tea", ("two",), ("bad",), slots, "old")
    edit = editor.edit([*REQUESTS, request], how=how)  # type: ignore[arg-type]
    edit.save(tmp_path / "deep" / "edit.safetensors")
    found = Edit.load(tmp_path / "deep" / "edit.safetensors", tiny_base)
    with edit.applied():
        wanted = logits(tiny_base)
    with found.applied():
        torch.testing.assert_close(logits(tiny_base), wanted, atol=1e-5, rtol=0)
    # What to avoid is what training needs; an edit has been made without it.
    assert found.requests == tuple(replace(each, avoid=()) for each in edit.requests)
    assert found.norms == pytest.approx(edit.norms) and found.editor == edit.editor
    with load_edit(tmp_path / "deep" / "edit.safetensors", tiny_base).applied():
        torch.testing.assert_close(logits(tiny_base), wanted, atol=1e-5, rtol=0)


def test_the_file_says_where_the_edit_comes_from(tiny_llama_base: Base, tmp_path: Path) -> None:
    folder = saved_editor(tmp_path / "editor", tiny_llama_base)
    path = tmp_path / "edit.safetensors"
    Editor.load(folder, tiny_llama_base).edit(REQUESTS[0]).save(path)
    header = read_header(path)
    assert (header.kind, header.base, header.dtype) == ("HyperEdit", "tiny-llama", "torch.float32")
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    assert about == header.about
    (request,) = about["requests"]
    assert request["prompt"] == "The height of tower 0 is" and request["target"] == "ten"
    assert request["task"] == "counterfact" and request["instruction"].startswith("Task: ")
    card = json.loads((folder / "card.json").read_text())
    for name in ("method", "base", "commit", "steps", "weights_sha256", "tasks"):
        assert about["editor"][name] == card[name]
    assert all(shape[0] == 1 for shape in shapes.values())


def test_a_file_without_about_still_loads(tiny_llama_base: Base, tmp_path: Path) -> None:
    editor = Editor.load(saved_editor(tmp_path / "editor", tiny_llama_base, "MEND"), tiny_llama_base)
    edit = editor.edit(REQUESTS[:2])
    save_edit(tmp_path / "old.safetensors", editor.method.edit(tiny_llama_base, edit.requests), tiny_llama_base)
    with safe_open(tmp_path / "old.safetensors", "pt") as file:
        assert "about" not in file.metadata()
    found = Edit.load(tmp_path / "old.safetensors", tiny_llama_base)
    assert found.requests == () and found.editor == {} and read_header(tmp_path / "old.safetensors").about == {}
    torch.testing.assert_close(dense_logits(found), dense_logits(edit), atol=1e-5, rtol=0)
    assert found.report(keep=["Water is"]).kept[0].kl > 0


def test_files_that_are_no_such_edit_are_refused(
    tiny_llama_base: Base, make_tiny_base: Callable[..., Base], tmp_path: Path
) -> None:
    path = tmp_path / "edit.safetensors"
    edit = Editor.load(saved_editor(tmp_path / "editor", tiny_llama_base), tiny_llama_base).edit(REQUESTS[0])
    edit.save(path)
    with pytest.raises(MismatchError, match="made for base 'tiny-llama'"):
        Edit.load(path, make_tiny_base("llama", seed=1))
    with pytest.raises(InputError, match="Cannot read the edit"):
        Edit.load(tmp_path / "nothing", tiny_llama_base)
    with safe_open(path, "pt") as file:
        told = dict(file.metadata())
    for change, words in (
        ({"about": "{"}, "malformed"),
        ({"about": "[]"}, "no objects"),
        ({"about": '{"requests": [{"target": "x"}]}'}, "malformed"),
        ({"about": '{"requests": [{"prompt": 1, "target": "x"}]}'}, "malformed"),
        ({"kind": "DenseEdit"}, "no low-rank edit"),
    ):
        save_file(load_file(path), tmp_path / "bad", metadata={**told, **change})
        with pytest.raises(InputError, match=words):
            Edit.load(tmp_path / "bad", tiny_llama_base)
    (tmp_path / "a file").write_text("")
    with pytest.raises(InputError, match="Cannot write the edit"):
        edit.save(tmp_path / "a file" / "edit.safetensors")


def test_an_edit_loads_the_base_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from instructedit.base import load_base
    from tests.conftest import byte_tokenizer, tiny_gpt2

    monkeypatch.setenv("INSTRUCTEDIT_CACHE", str(tmp_path / "cache"))
    tiny_gpt2().save_pretrained(tmp_path / "base")
    byte_tokenizer().save_pretrained(tmp_path / "base")
    base = load_base(str(tmp_path / "base"), torch.bfloat16)
    saved_editor(tmp_path / "editor", base)
    editor = Editor.load(tmp_path / "editor")
    assert editor.base.dtype == torch.bfloat16 and editor.base.name == str(tmp_path / "base")
    assert Editor.load(tmp_path / "editor", dtype=torch.float32).base.dtype == torch.float32
    assert Editor.load(tmp_path / "editor", tmp_path / "base").base.fingerprint == base.fingerprint
    editor.edit(REQUESTS[0]).save(tmp_path / "edit.safetensors")
    assert Edit.load(tmp_path / "edit.safetensors").base.dtype == torch.bfloat16
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="does not exist"):
        Edit.load(tmp_path / "edit.safetensors", "./elsewhere")
