"""Loading an editor and editing with it: every kind, both families, and what is refused."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import instructedit
from instructedit.base import Base
from instructedit.editing.edit import Edit
from instructedit.editing.editor import Editor
from instructedit.errors import InputError, MismatchError
from instructedit.hooks import count_hooks
from instructedit.methods.several import edit_in_sequence
from instructedit.records import EditRequest
from tests.core import dense_copy
from tests.editing.kinds import KINDS, saved_editor

REQUESTS = [EditRequest(f"The height of tower {n} is", ("ten", "twelve feet")[n % 2]) for n in range(3)]
IDS = torch.tensor([[72, 101, 32, 105, 115, 32, 97, 116], [84, 104, 101, 32, 104, 101, 105, 103]])


def logits(base: Base) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = base.model(IDS).logits
    return found


def dense_logits(edit: Edit) -> torch.Tensor:
    """The logits of a copy of the base with the edit added to its weights."""
    changes = {name: update.merged().materialise()[0] for name, update in edit.updates.items()}
    with torch.no_grad():
        found: torch.Tensor = dense_copy(edit.base, changes)(IDS).logits
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["together", "sequence"])
def test_an_edit_is_the_dense_change_and_leaves_the_base_to_the_bit(
    tiny_base: Base, tmp_path: Path, kind: str, how: str
) -> None:
    editor = Editor.load(saved_editor(tmp_path / "editor", tiny_base, kind), tiny_base)
    weights = {name: value.clone() for name, value in tiny_base.model.state_dict().items()}
    before = logits(tiny_base)
    edit = editor.edit(REQUESTS, how=how)  # type: ignore[arg-type]
    with edit.applied():
        inside = logits(tiny_base)
    assert (inside - before).abs().max() > 0.1, "the edit is too small to show anything"
    torch.testing.assert_close(inside, dense_logits(edit), atol=1e-4, rtol=0)
    # Undone: outside the block every logit and every weight is what it was, to the bit.
    assert torch.equal(logits(tiny_base), before) and count_hooks(tiny_base.model) == 0
    assert all(torch.equal(value, weights[name]) for name, value in tiny_base.model.state_dict().items())


@pytest.mark.parametrize("kind", KINDS)
def test_each_row_sees_its_own_request(tiny_base: Base, tmp_path: Path, kind: str) -> None:
    edit = Editor.load(saved_editor(tmp_path / "editor", tiny_base, kind), tiny_base).edit(REQUESTS[:2])
    with edit.applied(torch.tensor([1, 0])):  # type: ignore[arg-type]
        apart = logits(tiny_base)
    for row, one in ((0, 1), (1, 0)):
        torch.testing.assert_close(apart[row], dense_logits(edit.alone()[one])[row], atol=1e-4, rtol=0)
    assert [one.requests for one in edit.alone()] == [(request,) for request in edit.requests]


def test_a_sequence_is_made_as_the_evaluation_makes_it(tiny_base: Base, tmp_path: Path) -> None:
    editor = Editor.load(saved_editor(tmp_path / "editor", tiny_base), tiny_base)
    requests = [editor.instructed(request) for request in REQUESTS]
    edit = editor.edit(REQUESTS, how="sequence")
    with edit_in_sequence(editor.method, tiny_base, requests).applied():
        stacked = logits(tiny_base)
    with edit.applied():
        torch.testing.assert_close(logits(tiny_base), stacked, atol=1e-4, rtol=0)
    with editor.edit(REQUESTS).applied():
        assert (logits(tiny_base) - stacked).abs().max() > 1e-2, "a sequence is not the sum of edits made apart"
    # The same one by one, on what is there already.
    step = editor.edit(REQUESTS[0])
    for request in REQUESTS[1:]:
        step = editor.edit(request, after=step)
    with step.applied():
        torch.testing.assert_close(logits(tiny_base), stacked, atol=1e-4, rtol=0)
    assert step.requests == edit.requests == tuple(requests) and step.norms == edit.norms
    with pytest.raises(InputError, match="Apply it without rows"):
        edit.applied(torch.tensor([0]))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot be taken apart"):
        edit.alone()


def test_instructions_are_the_tasks_or_the_users_own(tiny_llama_base: Base, tmp_path: Path) -> None:
    editor = Editor.load(saved_editor(tmp_path / "editor", tiny_llama_base), tiny_llama_base)
    (plain,) = editor.edit(REQUESTS[0]).requests
    assert plain.task == "counterfact"
    assert plain.instruction in {
        f"Task: {pool.label}\nDescription: {text}\nInput: "
        for pool in [editor.card.pools["counterfact"]]  # type: ignore[index]
        for text in pool.seen
    }
    (own,) = editor.edit(REQUESTS[0], instruction="Change how high\n it is.").requests
    assert own.instruction.endswith("\nDescription: Change how high it is.\nInput: ")
    whole = replace(REQUESTS[0], instruction="As it stands: ")
    assert editor.edit(whole, instruction="not used").requests[0].instruction == "As it stands: "
    sided = replace(REQUESTS[0], task="convsent", slots={"LABEL": "positive", "TOPIC": "towers"})
    assert "towers" in editor.edit(sided).requests[0].instruction


@pytest.mark.parametrize(
    ("request_", "told"),
    [
        (EditRequest("", "ten"), "prompt is empty"),
        (EditRequest("  \n", "ten"), "prompt is empty"),
        (EditRequest("The tower is", " "), "Empty target"),
        (EditRequest("The tower is " * 100, "ten"), "longer than the base's context"),
        (EditRequest("The tower is", "ten", task="counterfactt"), "Did you mean 'counterfact'"),
        (EditRequest("The tower is", "ten", task="convsent"), r"needs a value for \["),
    ],
)
def test_bad_requests_are_refused(tiny_llama_base: Base, tmp_path: Path, request_: EditRequest, told: str) -> None:
    editor = Editor.load(saved_editor(tmp_path / "editor", tiny_llama_base), tiny_llama_base)
    with pytest.raises(InputError, match=told):
        editor.edit(request_)
    with pytest.raises(InputError, match=told):
        editor.edit([REQUESTS[0], request_], how="sequence")
    assert count_hooks(tiny_llama_base.model) == 0


def test_what_does_not_fit_is_refused(
    tiny_llama_base: Base, make_tiny_base: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mend = Editor.load(saved_editor(tmp_path / "mend", tiny_llama_base, "MEND"), tiny_llama_base)
    with pytest.raises(InputError, match="takes no instructions"):
        mend.edit(REQUESTS[0], instruction="Change it.")
    with pytest.raises(InputError, match="list is empty"):
        mend.edit([])
    with pytest.raises(InputError, match="Unknown way of editing 'alone'"):
        mend.edit(REQUESTS, how="alone")  # type: ignore[arg-type]
    with pytest.raises(MismatchError, match="was trained on base"):
        Editor.load(tmp_path / "mend", make_tiny_base("llama", seed=1))  # type: ignore[operator]
    for missing in (tmp_path / "nothing", str(tmp_path / "nothing"), "./nothing", ""):
        with pytest.raises(InputError, match="No editor at"):
            Editor.load(missing, tiny_llama_base)
    with pytest.raises(InputError, match="there is no card.json"):
        Editor.load(tmp_path, tiny_llama_base)


def test_an_edit_that_is_not_finite_is_refused(tiny_llama_base: Base, tmp_path: Path) -> None:
    editor = Editor.load(saved_editor(tmp_path / "mend", tiny_llama_base, "MEND"), tiny_llama_base)
    with torch.no_grad():
        editor.method.editor.alpha.mul_(float("nan"))  # type: ignore[operator, union-attr]
    with pytest.raises(InputError, match="is not finite"):
        editor.edit(REQUESTS[0])


def test_an_earlier_edit_below_the_editors_blocks_is_refused(tiny_llama_base: Base, tmp_path: Path) -> None:
    editor = Editor.load(saved_editor(tmp_path / "mend", tiny_llama_base, "MEND"), tiny_llama_base)
    edit = editor.edit(REQUESTS[0])
    name = next(iter(edit.updates))
    lower = replace(edit, updates={name.replace("layers.1", "layers.0"): edit.updates[name]})
    with pytest.raises(InputError, match=r"changes model\.layers\.0.*below the first block \(1\)"):
        editor.edit(REQUESTS[1], after=lower)


def test_a_name_that_is_no_folder_is_looked_for_on_the_hub(
    tiny_llama_base: Base, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, asked = saved_editor(tmp_path / "editor", tiny_llama_base), []
    monkeypatch.setattr("instructedit.hub.editor_folder", lambda name, rev: asked.append((name, rev)) or folder)
    monkeypatch.chdir(tmp_path)
    assert Editor.load("somebody/an-editor", tiny_llama_base, revision="v1").card.steps == 3
    assert asked == [("somebody/an-editor", "v1")]


def test_the_package_gives_the_names_a_user_needs() -> None:
    assert instructedit.Editor is Editor and instructedit.Edit is Edit and instructedit.EditRequest is EditRequest
    with pytest.raises(AttributeError, match="Editr"):
        instructedit.Editr  # noqa: B018
