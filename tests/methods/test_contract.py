"""What every method must keep, on both families. A new method gets this suite by one entry in ``every.py``."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from instructedit.base import Base
from instructedit.base.generation import continuations
from instructedit.data.rows import Rows
from instructedit.data.tokenise import tokenise
from instructedit.errors import InputError, MismatchError
from instructedit.hooks import count_hooks
from instructedit.methods import METHODS as TABLE
from instructedit.methods import method_class
from instructedit.methods.base import Edit, EditMethod
from instructedit.methods.hyper import HyperMethod
from instructedit.methods.saved import load_edit, save_edit
from instructedit.methods.several import edit_in_sequence, edit_together
from instructedit.records import EditRequest
from tests.methods.every import EVERY

REQUESTS = [
    EditRequest("The capital of Spain is", "Vienna", id="a", task="t", subject="Spain", old_answer="Madrid"),
    EditRequest("Anna speaks", "Dutch", id="b", task="t", subject="Anna", old_answer="French"),
    EditRequest("Who wrote the Iliad?", "a woman", id="c", task="t", more_targets=("nobody",), old_answer="Homer"),
]


FREE = ("ft-l", "calinet", "grace")
"""The methods that need no training, and so have options."""


@pytest.fixture(params=EVERY)
def method(request: pytest.FixtureRequest, tiny_base: Base) -> EditMethod:
    return EVERY[request.param](tiny_base)


def forced(base: Base, edit: Edit | None, requests: list[EditRequest], rows: list[int] | None) -> list[Tensor]:
    """The logits that predict each request's first target, all in one batch; under the edit where there is one."""
    texts = [tokenise(base.tokenizer, request.text, request.target, 512) for request in requests]
    batch = Rows.of(enumerate(texts))
    longest = max(len(ids) for ids in batch.ids)
    ids = torch.tensor([row + (0,) * (longest - len(row)) for row in batch.ids])
    with torch.no_grad():
        if edit is None:
            logits = base.model(ids, use_cache=False).logits
        else:
            with edit.applied(None if rows is None else torch.tensor(rows)):
                logits = base.model(ids, use_cache=False).logits
    return list(batch.targets().select(logits).split(list(batch.n_target)))


def likelihood(base: Base, logits: Tensor, request: EditRequest) -> float:
    labels = torch.tensor(tokenise(base.tokenizer, request.text, request.target, 512).ids[-len(logits) :])
    return float(logits.log_softmax(-1)[torch.arange(len(labels)), labels].mean())


def test_every_method_of_the_table_is_in_this_suite() -> None:
    # InstructEdit is MEND's class with instructions in front of the requests; test_brute_force.py asks it those.
    assert set(TABLE) - {"none", "instructedit"} == set(EVERY)
    assert method_class("instructedit") is method_class("mend")


def test_the_edit_changes_the_answer(tiny_base: Base, method: EditMethod) -> None:
    before = forced(tiny_base, None, REQUESTS, None)
    after = forced(tiny_base, method.edit(tiny_base, REQUESTS), REQUESTS, [0, 1, 2])
    for request, a, b in zip(REQUESTS, before, after, strict=True):
        assert float((a - b).abs().max()) > 0.05
        if not isinstance(method, HyperMethod):  # an untrained hypernetwork need not help
            assert likelihood(tiny_base, b, request) > likelihood(tiny_base, a, request) + 0.1


def test_leaving_restores_every_bit(tiny_base: Base, method: EditMethod) -> None:
    weights = {name: tensor.clone() for name, tensor in tiny_base.model.state_dict().items()}
    before = forced(tiny_base, None, REQUESTS, None)
    edit = method.edit(tiny_base, REQUESTS)
    forced(tiny_base, edit, REQUESTS, [0, 1, 2])
    with pytest.raises(RuntimeError, match="inside"), edit.applied():
        raise RuntimeError("inside")
    assert count_hooks(tiny_base.model) == 0
    assert all(torch.equal(weights[name], tensor) for name, tensor in tiny_base.model.state_dict().items())
    assert not any(tensor.requires_grad or tensor.grad is not None for tensor in tiny_base.model.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, forced(tiny_base, None, REQUESTS, None), strict=True))


def test_many_at_once_equal_one_by_one(tiny_base: Base, method: EditMethod) -> None:
    together = forced(tiny_base, method.edit(tiny_base, REQUESTS), REQUESTS, [0, 1, 2])
    for index, request in enumerate(REQUESTS):
        alone = forced(tiny_base, method.edit(tiny_base, [request]), [request], [0])
        torch.testing.assert_close(together[index], alone[0], rtol=2e-3, atol=2e-3)


def test_one_request_applies_with_and_without_rows_alike(tiny_base: Base, method: EditMethod) -> None:
    edit = method.edit(tiny_base, REQUESTS[:1])
    asked = [REQUESTS[0], REQUESTS[1]]
    for a, b in zip(forced(tiny_base, edit, asked, [0, 0]), forced(tiny_base, edit, asked, None), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.slow
def test_generation_with_a_cache_is_generation_without(tiny_base: Base, method: EditMethod) -> None:
    edit = method.edit(tiny_base, REQUESTS)
    inputs = [tuple(tiny_base.tokenizer(request.text + " ")["input_ids"]) for request in REQUESTS]
    with edit.applied(torch.tensor([0, 1, 2])):
        found = continuations(tiny_base, inputs, 5, full_length=True)
    base_found = continuations(tiny_base, inputs, 5, full_length=True)
    assert found != base_found
    for index, (ids, tokens) in enumerate(zip(inputs, found, strict=True)):
        text = list(ids)
        for _ in range(5):
            with edit.applied(torch.tensor([index])), torch.no_grad():
                logits = tiny_base.model(torch.tensor([text]), use_cache=False).logits[0, -1]
            logits[tiny_base.tokenizer.eos_token_id] = -torch.inf
            text.append(int(logits.argmax()))
        assert tuple(text[len(ids) :]) == tokens


def test_an_edit_is_saved_and_loaded_bit_for_bit(tmp_path: Path, tiny_base: Base, method: EditMethod) -> None:
    edit = method.edit(tiny_base, REQUESTS)
    save_edit(tmp_path / "edit.safetensors", edit, tiny_base)
    again = load_edit(tmp_path / "edit.safetensors", tiny_base)
    for rows in ([0, 1, 2], None):
        pairs = zip(forced(tiny_base, edit, REQUESTS, rows), forced(tiny_base, again, REQUESTS, rows), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def test_an_edit_is_refused_on_another_base(
    tmp_path: Path, tiny_base: Base, method: EditMethod, make_tiny_base: Callable[..., Base]
) -> None:
    save_edit(tmp_path / "edit.safetensors", method.edit(tiny_base, REQUESTS), tiny_base)
    other = make_tiny_base(tiny_base.name.removeprefix("tiny-"), seed=1)
    with pytest.raises(MismatchError, match="made for base"):
        load_edit(tmp_path / "edit.safetensors", other)


def test_an_edit_loads_on_another_dtype_with_a_warning(
    tmp_path: Path, tiny_base: Base, method: EditMethod, caplog: pytest.LogCaptureFixture
) -> None:
    save_edit(tmp_path / "edit.safetensors", method.edit(tiny_base, REQUESTS[:1]), tiny_base)
    load_edit(tmp_path / "edit.safetensors", tiny_base)
    assert not caplog.records
    tiny_base.model.to(torch.bfloat16)
    load_edit(tmp_path / "edit.safetensors", tiny_base)
    assert "loaded on one in torch.bfloat16" in caplog.text


def test_no_request_is_refused_with_advice(tiny_base: Base, method: EditMethod) -> None:
    for verb in (method.edit, lambda base, none: edit_together(method, base, none)):
        with pytest.raises(InputError, match="Give at least one"):
            verb(tiny_base, [])
    with pytest.raises(InputError, match="Give at least one"):
        edit_in_sequence(method, tiny_base, [])


def test_a_request_without_a_target_is_refused(tiny_base: Base, method: EditMethod) -> None:
    with pytest.raises(InputError, match="Empty target"):
        method.edit(tiny_base, [EditRequest("The capital of Spain is", " ")])


@pytest.mark.slow
@pytest.mark.parametrize("how", [edit_together, edit_in_sequence])
def test_several_requests_in_one_base_each_change_their_answer(
    tiny_base: Base, method: EditMethod, how: Callable[..., Edit]
) -> None:
    before = forced(tiny_base, None, REQUESTS, None)
    after = forced(tiny_base, how(method, tiny_base, REQUESTS), REQUESTS, None)
    for request, a, b in zip(REQUESTS, before, after, strict=True):
        assert float((a - b).abs().max()) > 0.05
        if not isinstance(method, HyperMethod):
            assert likelihood(tiny_base, b, request) > likelihood(tiny_base, a, request)
    assert count_hooks(tiny_base.model) == 0


@pytest.mark.slow
def test_edits_can_be_made_and_used_in_inference_mode(tiny_base: Base, method: EditMethod) -> None:
    with torch.inference_mode():
        inside = forced(tiny_base, method.edit(tiny_base, REQUESTS), REQUESTS, [0, 1, 2])
    outside = forced(tiny_base, method.edit(tiny_base, REQUESTS), REQUESTS, [0, 1, 2])
    for a, b in zip(inside, outside, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3)


def test_the_stage_lies_at_or_below_the_first_edited_block(tiny_base: Base, method: EditMethod) -> None:
    stage = method.stage_for(tiny_base)
    assert stage.base is tiny_base
    assert stage.split.first_block <= method.first_block(tiny_base)
    texts = [tokenise(tiny_base.tokenizer, request.text, request.target, 512) for request in REQUESTS]
    batch = Rows.of(enumerate(texts))
    with method.edit(tiny_base, REQUESTS).applied(torch.tensor([0, 1, 2])), torch.no_grad():
        found = stage.split.logits(batch.targets().select(stage.split.tail(stage.hidden(batch))))
    whole = forced(tiny_base, method.edit(tiny_base, REQUESTS), REQUESTS, [0, 1, 2])
    torch.testing.assert_close(found, torch.cat(whole), rtol=2e-3, atol=2e-3)


OTHER: dict[str, dict[str, Any]] = {
    "ft-l": {
        "block": 1,
        "objective": "all",
        "lr": 5e-3,
        "steps": 5,
        "norm_constraint": None,
        "weight_decay": 0.5,
        "stop_at": 100.0,
        "at_once": 1,
    },
    "calinet": {
        "block": 1,
        "slots": 16,
        "paraphrases": 0,
        "lr": 5e-3,
        "steps": 5,
        "stop_at": 100.0,
        "seed": 1,
        "at_once": 1,
    },
    "grace": {
        "block": 1,
        "module": {"gpt2": "c_fc", "llama": "up_proj"},
        "epsilon": 100.0,
        "replacement": "replace_last",
        "eps_expand": "moving_average",
        "value_init": "warm",
        "lr": 0.1,
        "steps": 5,
        "stop_at": 100.0,
        "at_once": 1,
    },
}
"""Per method a value of every option that is not its default; by family where it has to be."""

SAME_RESULT = {"at_once", "eps_expand"}
"""Options that change the work and not the result; ``eps_expand`` is about keys that meet, see test_grace.py."""


@pytest.mark.parametrize("name", FREE)
def test_every_option_has_an_other_value_below(name: str) -> None:
    fields = {field.name for field in dataclasses.fields(method_class(name)) if field.init} - {"name"}
    assert set(OTHER[name]) == fields


@pytest.mark.slow
@pytest.mark.parametrize(("name", "option"), [(name, option) for name in FREE for option in OTHER[name]])
def test_every_option_at_another_value_does_something(tiny_base: Base, name: str, option: str) -> None:
    plain = EVERY[name](tiny_base)
    other = OTHER[name][option]
    if isinstance(other, dict):
        other = other[tiny_base.name.removeprefix("tiny-")]
    changed = dataclasses.replace(plain, **{option: other})  # type: ignore[type-var]
    assert getattr(plain, option) != getattr(changed, option)
    a, b = (torch.cat(forced(tiny_base, m.edit(tiny_base, REQUESTS), REQUESTS, [0, 1, 2])) for m in (plain, changed))
    if option in SAME_RESULT:
        torch.testing.assert_close(a, b, rtol=2e-3, atol=2e-3)
    else:
        assert float((a - b).abs().max()) > 1e-4
