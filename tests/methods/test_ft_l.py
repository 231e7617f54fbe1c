"""FT-L: its bound, its objectives, its options, and that requests beside a request change nothing."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from instructedit.base import Base
from instructedit.data.rows import Rows
from instructedit.data.tokenise import tokenise
from instructedit.errors import InputError
from instructedit.hooks import count_hooks
from instructedit.methods.base import Edit
from instructedit.methods.ft_l import FTL
from instructedit.methods.several import edit_in_sequence, edit_together
from instructedit.records import EditRequest
from tests.core import dense_copy

REQUESTS = [
    EditRequest("The capital of Spain is", "Vienna", id="a"),
    EditRequest("Anna speaks", "Dutch", id="b", instruction="Task: Facts\nInput: "),
    EditRequest("What do you think of tubas?", "They are loud", id="c", more_targets=("I like them", "No idea")),
]
STRONG = FTL(lr=3e-2, steps=20, norm_constraint=1.0, stop_at=None)
"""A random base whose head is its embedding never gets surer than 0.5 to 1 nat, hence the bounds below."""


def target_nll(base: Base, request: EditRequest, edit: Edit | None = None, row: int | None = 0) -> Tensor:
    """NLL of each token of the first target, on the whole model."""
    text = tokenise(base.tokenizer, request.text, request.target, 512)
    rows = Rows.of([(0, text)])
    ids = torch.tensor(rows.ids)
    with torch.no_grad():
        if edit is None:
            logits = base.model(ids, use_cache=False).logits
        else:
            with edit.applied(None if row is None else torch.tensor([row])):
                logits = base.model(ids, use_cache=False).logits
    targets = rows.targets()
    return torch.nn.functional.cross_entropy(targets.select(logits), targets.label, reduction="none")


def test_all_target_tokens_are_learnt_where_all_count(tiny_base: Base) -> None:
    edit = replace(STRONG, objective="all").edit(tiny_base, REQUESTS)
    for index, request in enumerate(REQUESTS[:2]):
        before, after = target_nll(tiny_base, request), target_nll(tiny_base, request, edit, index)
        assert float(before.mean()) > 5
        assert float(after.mean()) < 2
        assert bool((after < before - 0.5).all())


def test_every_wanted_text_is_learnt(tiny_base: Base) -> None:
    edit = replace(STRONG, objective="all", steps=40).edit(tiny_base, REQUESTS[2:])
    for target in REQUESTS[2].targets:
        request = replace(REQUESTS[2], target=target, more_targets=())
        before, after = target_nll(tiny_base, request).mean(), target_nll(tiny_base, request, edit).mean()
        assert float(after) < 0.6 * float(before)


def test_prompt_last_sees_the_first_target_token_only(tiny_base: Base) -> None:
    """Whatever follows the first token, the change is the same; and it learns that token, not the word."""
    vienna, venice = (replace(REQUESTS[0], target=target) for target in ("Vienna", "V and no more"))
    a, b = (STRONG.edit(tiny_base, [request]) for request in (vienna, venice))
    for name, change in a.changes.items():
        assert torch.equal(change, b.changes[name])
    before, after = target_nll(tiny_base, vienna), target_nll(tiny_base, vienna, a)
    # A byte tokenizer's first target token is the word's first letter.
    assert float(after[0]) < 1 < 5 < float(before[0])
    assert float(after[1:].mean()) > 0.9 * float(before[1:].mean())
    for name, change in replace(STRONG, objective="all").edit(tiny_base, [vienna]).changes.items():
        assert not torch.allclose(change, a.changes[name])


@pytest.mark.parametrize("bound", [1e-3, 2e-2])
def test_no_weight_moves_further_than_the_bound_and_some_reach_it(tiny_base: Base, bound: float) -> None:
    for edit in (
        replace(STRONG, norm_constraint=bound).edit(tiny_base, REQUESTS),
        edit_together(replace(STRONG, norm_constraint=bound), tiny_base, REQUESTS),
    ):
        (change,) = edit.changes.values()  # type: ignore[attr-defined]
        assert float(change.abs().max()) == pytest.approx(bound)
    (free,) = replace(STRONG, norm_constraint=None).edit(tiny_base, REQUESTS).changes.values()
    assert float(free.abs().max()) > bound


def test_many_at_once_equal_one_by_one_also_where_they_end_at_different_steps(tiny_base: Base) -> None:
    method = replace(STRONG, objective="all", stop_at=3.0)
    edit = method.edit(tiny_base, REQUESTS)
    (together,) = edit.changes.values()
    losses = []
    for index, request in enumerate(REQUESTS):
        (alone,) = method.edit(tiny_base, [request]).changes.values()
        torch.testing.assert_close(together[index], alone[0], rtol=1e-3, atol=2e-4)
        assert float(alone.abs().max()) > 0.02  # a hundred times the tolerance
        losses.append(float(target_nll(tiny_base, request, edit, index).mean()))
    # All stopped just below the bound: none went on to where the slowest was.
    assert all(1.5 < loss < 3 for loss in losses), losses


def test_requests_at_once_change_no_result(tiny_base: Base) -> None:
    (a,) = STRONG.edit(tiny_base, REQUESTS).changes.values()
    (b,) = replace(STRONG, at_once=2).edit(tiny_base, REQUESTS).changes.values()
    torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4)


def test_the_edit_equals_a_model_whose_weight_changed(tiny_base: Base) -> None:
    edit = STRONG.edit(tiny_base, REQUESTS)
    ids = torch.tensor([tokenise(tiny_base.tokenizer, REQUESTS[0].text, "Vienna", 512).ids])
    with torch.no_grad():
        with edit.applied(torch.tensor([0])):
            found = tiny_base.model(ids, use_cache=False).logits
        model = dense_copy(tiny_base, {name: change[0] for name, change in edit.changes.items()})
        torch.testing.assert_close(found, model(ids, use_cache=False).logits, rtol=1e-4, atol=1e-4)
        assert float((found - tiny_base.model(ids, use_cache=False).logits).abs().max()) > 0.5
    assert count_hooks(tiny_base.model) == 0


def test_the_mlp_output_matrix_of_the_chosen_block_is_tuned(tiny_base: Base) -> None:
    matrix = {"gpt2": "transformer.h.{}.mlp.c_proj", "llama-like": "model.layers.{}.mlp.down_proj"}
    for block, expected in ((None, 2), (0, 0), (3, 3)):
        method = FTL(block=block, steps=1)
        assert list(method.edit(tiny_base, REQUESTS[:1]).changes) == [matrix[tiny_base.adaptor.family].format(expected)]
        assert method.first_block(tiny_base) == method.stage_for(tiny_base).split.first_block == expected
        assert method.stage_for(tiny_base) is method.stage_for(tiny_base)


@pytest.mark.parametrize(
    "changed", [{"lr": 5e-3}, {"steps": 3}, {"weight_decay": 0.5}, {"stop_at": 3.0}, {"norm_constraint": 1e-3}]
)
def test_options_change_the_result(tiny_base: Base, changed: dict[str, Any]) -> None:
    (a,) = STRONG.edit(tiny_base, REQUESTS[:1]).changes.values()
    (b,) = replace(STRONG, **changed).edit(tiny_base, REQUESTS[:1]).changes.values()
    assert float((a - b).abs().max()) > 1e-3
    if changed != {"norm_constraint": 1e-3}:  # a bound makes a change of many equal steps, whose norm says little
        assert float(b.norm()) < float(a.norm())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 0}, "steps must be 1 or more"),
        ({"at_once": 0}, "at_once must be 1 or more"),
        ({"lr": -1.0}, "lr must be 0 or more"),
        ({"stop_at": float("nan")}, "stop_at must be 0 or more"),
        ({"norm_constraint": 0.0}, "norm_constraint must be above 0"),
        ({"objective": "prompt-last"}, "Did you mean 'prompt_last'"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FTL(**options)


def test_a_block_that_does_not_exist_is_refused(tiny_base: Base) -> None:
    with pytest.raises(InputError, match="block is 4, but base .* has blocks 0-3"):
        FTL(block=4).edit(tiny_base, REQUESTS)


def joint_nll(base: Base, edit: Edit) -> float:
    return float(torch.stack([target_nll(base, request, edit, None).mean() for request in REQUESTS[:2]]).mean())


def test_one_change_for_all_differs_from_the_sum_and_serves_all_better(tiny_base: Base) -> None:
    method = replace(STRONG, objective="all")
    alone, shared = method.edit(tiny_base, REQUESTS), method.edit_together(tiny_base, REQUESTS)
    ((name, change),) = shared.changes.items()
    assert change.shape == (1, *alone.changes[name].shape[1:])
    assert joint_nll(tiny_base, shared) < joint_nll(tiny_base, alone) - 0.5


def test_requests_in_a_pass_change_nothing_of_the_one_change_for_all(tiny_base: Base) -> None:
    (a,) = STRONG.edit_together(tiny_base, REQUESTS).changes.values()
    (b,) = replace(STRONG, at_once=1).edit_together(tiny_base, REQUESTS).changes.values()
    torch.testing.assert_close(a, b, rtol=1e-3, atol=2e-4)
    assert float(a.abs().max()) > 0.02


def test_one_change_for_all_stops_where_it_is_asked_to(tiny_base: Base) -> None:
    (never,) = replace(STRONG, stop_at=1e9).edit_together(tiny_base, REQUESTS).changes.values()
    assert not never.any()


def test_in_sequence_each_edit_is_made_on_what_the_earlier_ones_left(tiny_base: Base) -> None:
    method = replace(STRONG, objective="all")
    first = method.edit(tiny_base, REQUESTS[:1])
    with first.applied():
        second = method.edit(tiny_base, REQUESTS[1:2])
    sequence = edit_in_sequence(method, tiny_base, REQUESTS[:2])
    for kept, expected in zip(sequence.edits, (first, second), strict=True):  # type: ignore[attr-defined]
        for name, change in expected.changes.items():
            assert torch.equal(kept.changes[name], change)
    (alone,) = method.edit(tiny_base, REQUESTS[1:2]).changes.values()
    (after,) = second.changes.values()
    assert float((alone - after).abs().max()) > 1e-2
    assert float(target_nll(tiny_base, REQUESTS[1], sequence, None).mean()) < 3
