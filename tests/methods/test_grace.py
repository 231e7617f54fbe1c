"""GRACE against a copied model with a wrapped layer, in generation, in sequence, and option by option.

What every method has to keep is in test_contract.py; the geometry alone in test_codebook.py.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from instructedit.base import Base
from instructedit.base.generation import continuations
from instructedit.data.rows import Rows
from instructedit.data.tokenise import tokenise
from instructedit.errors import InputError
from instructedit.hooks import count_hooks, record
from instructedit.methods.codebook import Codebook
from instructedit.methods.grace import GRACE
from instructedit.methods.lookup import CodebookEdit, Replacement
from instructedit.methods.several import edit_in_sequence, edit_together
from instructedit.records import EditRequest

REQUESTS = [
    EditRequest("The capital of Spain is", "Vienna", id="a"),
    EditRequest("Anna speaks", "Dutch", id="b"),
    EditRequest("Who wrote the Iliad?", "a woman", id="c", more_targets=("a girl",)),
]
ROWS = torch.tensor([0, 1, 2])


def quick(**options: Any) -> GRACE:
    """A radius that suits the tiny bases, whose prompts lie near one another."""
    return GRACE(**{"epsilon": 0.05, "steps": 8, **options})


def prompts(base: Base, requests: Sequence[EditRequest]) -> list[tuple[int, ...]]:
    texts = [tokenise(base.tokenizer, request.text, request.target, 512) for request in requests]
    return [text.ids[: -text.n_target] for text in texts]


def logits(base: Base, ids: Sequence[int]) -> Tensor:
    with torch.no_grad():
        found: Tensor = base.model(torch.tensor([list(ids)]), use_cache=False).logits[0]
    return found


def nll(base: Base, request: EditRequest) -> float:
    text = tokenise(base.tokenizer, request.text, request.target, 512)
    labels = torch.tensor(text.ids[-text.n_target :])
    return float(nn.functional.cross_entropy(logits(base, text.ids)[-text.n_target - 1 : -1], labels))


class Wrapped(nn.Module):
    """A layer with a codebook written out: one row, one entry, the key's position told from outside."""

    def __init__(self, layer: nn.Module, book: Codebook, at: int, replacement: Replacement) -> None:
        super().__init__()
        self.layer, self.book, self.at, self.replacement = layer, book, at, replacement

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x).clone()
        assert len(x) == len(self.book) == 1
        if torch.dist(x[0, self.at], self.book.keys[0]) <= self.book.radii[0]:
            start = 0 if self.replacement == "replace_prompt" else self.at
            y[0, start : self.at + 1] = self.book.values[0]
        return y


def wrapped_copy(base: Base, edit: CodebookEdit, index: int, at: int) -> nn.Module:
    model = copy.deepcopy(base.model)
    parent, _, name = edit.module.rpartition(".")
    layer = Wrapped(model.get_submodule(edit.module), edit.books[index], at, edit.replacement)
    setattr(model.get_submodule(parent), name, layer)
    return model


@pytest.mark.parametrize("replacement", ["replace_last", "replace_prompt"])
@pytest.mark.parametrize("module", [None, "mlp"])
def test_an_edit_equals_a_copied_model_with_a_wrapped_layer(
    tiny_base: Base, replacement: Replacement, module: str | None
) -> None:
    edit = quick(replacement=replacement, module=module).edit(tiny_base, REQUESTS)
    for index, (request, prompt) in enumerate(zip(REQUESTS, prompts(tiny_base, REQUESTS), strict=True)):
        ids = tokenise(tiny_base.tokenizer, request.text, request.target, 512).ids
        with torch.no_grad():
            expected = wrapped_copy(tiny_base, edit, index, len(prompt) - 1)(torch.tensor([ids])).logits[0]
        with edit.applied(torch.tensor([index])):
            found = logits(tiny_base, ids)
        torch.testing.assert_close(found, expected)
        assert float((found - logits(tiny_base, ids)).abs().max()) > 0.1


@pytest.mark.parametrize("replacement", ["replace_last", "replace_prompt"])
def test_generation_with_a_cache_agrees_with_one_pass_over_the_whole_text(
    tiny_base: Base, replacement: Replacement
) -> None:
    edit = quick(replacement=replacement, block=1).edit(tiny_base, REQUESTS[:2])
    wanted = [tokenise(tiny_base.tokenizer, request.text, request.target, 512) for request in REQUESTS[:2]]
    unedited = continuations(tiny_base, prompts(tiny_base, REQUESTS[:2]), 9, full_length=True)
    with edit.applied(ROWS[:2]):
        cached = continuations(tiny_base, prompts(tiny_base, REQUESTS[:2]), 9, full_length=True)
    for index, (text, found) in enumerate(zip(wanted, cached, strict=True)):
        assert found != unedited[index]
        whole = text.ids[: -text.n_target] + found
        with edit.applied(torch.tensor([index])):
            predicted = logits(tiny_base, whole)
        predicted[:, tiny_base.tokenizer.eos_token_id] = -torch.inf
        assert tuple(predicted.argmax(-1)[-10:-1].tolist()) == found


def test_a_request_is_left_alone_by_another_ones_codebook(tiny_base: Base) -> None:
    edit = quick().edit(tiny_base, REQUESTS)
    for index, prompt in enumerate(prompts(tiny_base, REQUESTS)):
        with edit.applied(torch.tensor([(index + 1) % 3])):
            inside = logits(tiny_base, prompt)
        assert torch.equal(inside, logits(tiny_base, prompt))
    assert count_hooks(tiny_base.model) == 0


def test_a_radius_of_nothing_fires_on_the_key_itself_alone(tiny_base: Base) -> None:
    edit = quick(epsilon=0.0).edit(tiny_base, REQUESTS[:1])
    (prompt,) = prompts(tiny_base, REQUESTS[:1])
    near = (prompt[0] + 1, *prompt[1:])
    for ids, fires in ((prompt, True), (near, False)):
        before = logits(tiny_base, ids)
        with edit.applied():
            assert torch.equal(logits(tiny_base, ids), before) != fires


def test_a_wide_radius_takes_in_what_is_near(tiny_base: Base) -> None:
    (prompt,) = prompts(tiny_base, REQUESTS[:1])
    near = (prompt[0] + 1, *prompt[1:])
    method = quick()
    distance = float((key_of(tiny_base, method, near) - key_of(tiny_base, method, prompt)).norm())
    for epsilon, fires in ((0.9 * distance, False), (1.1 * distance, True)):
        before = logits(tiny_base, near)[-1]
        with replace(method, epsilon=epsilon).edit(tiny_base, REQUESTS[:1]).applied():
            assert bool((logits(tiny_base, near)[-1] - before).abs().max() > 1e-3) == fires


def key_of(base: Base, method: GRACE, ids: Sequence[int]) -> Tensor:
    path = f"{base.adaptor.block_path(method.first_block(base))}.{base.adaptor.matrices[-1]}"
    with record(base.model, [path]) as seen:
        logits(base, ids)
    return seen[path].x[0, -1]


def test_a_key_is_the_layers_input_at_the_prompts_last_token(tiny_base: Base) -> None:
    method = quick()
    for book, prompt in zip(method.edit(tiny_base, REQUESTS).books, prompts(tiny_base, REQUESTS), strict=True):
        torch.testing.assert_close(book.keys[0], key_of(tiny_base, method, prompt))


def test_the_instruction_is_part_of_the_prompt(tiny_base: Base) -> None:
    instructed = replace(REQUESTS[0], instruction="Task: edit. ")
    a, b = (book.keys for book in quick().edit(tiny_base, [REQUESTS[0], instructed]).books)
    assert float((a - b).norm()) > 0.01


def test_all_wanted_texts_of_one_prompt_share_a_key_and_a_value(tiny_base: Base) -> None:
    request = REQUESTS[2]
    edit = quick().edit(tiny_base, [request])
    assert [len(book) for book in edit.books] == [1]
    only_first = quick().edit(tiny_base, [replace(request, more_targets=())])
    second = replace(request, target=request.more_targets[0], more_targets=())
    with edit.applied():
        both = nll(tiny_base, second)
    with only_first.applied():
        assert both < nll(tiny_base, second)


def test_one_after_another_equals_all_together(tiny_base: Base) -> None:
    a, b = edit_in_sequence(quick(), tiny_base, REQUESTS), edit_together(quick(), tiny_base, REQUESTS)
    assert isinstance(a, CodebookEdit)
    assert isinstance(b, CodebookEdit)
    assert len(a.together) == len(b.together) == 3
    for name in ("keys", "values", "radii"):
        torch.testing.assert_close(getattr(a.together, name), getattr(b.together, name))
    for request in REQUESTS:
        before = nll(tiny_base, request)
        with a.applied():
            assert nll(tiny_base, request) < before - 0.3


def near_pair(base: Base, method: GRACE, other: str) -> tuple[list[EditRequest], float]:
    """Two requests whose prompts differ in the first letter, and the distance of their keys."""
    pair = [REQUESTS[0], EditRequest("She" + REQUESTS[0].prompt[3:], other, id="n")]
    a, b = (key_of(base, method, ids) for ids in prompts(base, pair))
    return pair, float((a - b).norm())


def test_a_near_request_with_the_same_answer_grows_the_key_and_trains_its_value_on(tiny_base: Base) -> None:
    method = quick()
    pair, distance = near_pair(tiny_base, method, REQUESTS[0].target)
    method = replace(method, epsilon=0.6 * distance)
    for edit in (edit_in_sequence(method, tiny_base, pair), edit_together(method, tiny_base, pair)):
        assert isinstance(edit, CodebookEdit)
        assert len(edit.together) == 1
        assert float(edit.together.radii[0]) == pytest.approx(distance, rel=1e-3)
        first = method.edit(tiny_base, pair[:1])
        assert not torch.allclose(edit.together.values, first.books[0].values)
        before = nll(tiny_base, pair[1])
        with edit.applied():
            assert nll(tiny_base, pair[1]) < before - 0.3


def test_a_moving_average_key_lies_between_its_requests(tiny_base: Base) -> None:
    method = quick(eps_expand="moving_average")
    pair, distance = near_pair(tiny_base, method, REQUESTS[0].target)
    edit = edit_together(replace(method, epsilon=0.6 * distance), tiny_base, pair)
    assert isinstance(edit, CodebookEdit)
    a, b = (key_of(tiny_base, method, ids) for ids in prompts(tiny_base, pair))
    torch.testing.assert_close(edit.together.keys[0], (a + b) / 2)


def test_near_requests_with_different_answers_keep_their_own(tiny_base: Base) -> None:
    method = quick()
    pair, distance = near_pair(tiny_base, method, "Lisbon")
    method = replace(method, epsilon=0.6 * distance)
    for edit in (edit_in_sequence(method, tiny_base, pair), edit_together(method, tiny_base, pair)):
        assert isinstance(edit, CodebookEdit)
        assert edit.together.radii.tolist() == pytest.approx([distance / 2, distance / 2], rel=1e-3)
        before = [nll(tiny_base, request) for request in pair]
        with edit.applied():
            assert all(nll(tiny_base, r) < b - 0.3 for r, b in zip(pair, before, strict=True))


def test_the_same_prompt_edited_again_gets_the_new_answer(tiny_base: Base) -> None:
    again = replace(REQUESTS[0], target="Lisbon")
    edit = edit_in_sequence(quick(), tiny_base, [REQUESTS[0], again])
    alone = quick().edit(tiny_base, [again])
    with edit.applied():
        found = nll(tiny_base, again)
    with alone.applied():
        assert found == pytest.approx(nll(tiny_base, again), rel=1e-3)


def test_going_on_leaves_the_earlier_edit_as_it_is(tiny_base: Base) -> None:
    method = quick(steps=3)
    first = method.edit_next(tiny_base, None, REQUESTS[0])
    kept = {name: tensor.clone() for name, tensor in first.tensors().items()}
    method.edit_next(tiny_base, first, REQUESTS[1])
    assert all(torch.equal(kept[name], tensor) for name, tensor in first.tensors().items())


def test_books_of_several_entries_are_made_again_from_their_tensors(tiny_base: Base) -> None:
    method = quick(steps=2)
    several = method.edit_together(tiny_base, REQUESTS[:2]).books + method.edit(tiny_base, REQUESTS[2:]).books
    edit = CodebookEdit(tiny_base, "transformer.h.2", "replace_last", "moving_average", several)
    again = CodebookEdit.from_tensors(tiny_base, edit.tensors(), edit.settings())
    assert (again.module, again.replacement, again.expand) == (edit.module, edit.replacement, edit.expand)
    assert [book.labels for book in again.books] == [book.labels for book in edit.books]
    for a, b in zip(edit.books, again.books, strict=True):
        assert all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("keys", "values", "radii"))


OTHER: dict[str, Any] = {
    "block": 1,
    "epsilon": 1e3,
    "replacement": "replace_last",
    "value_init": "warm",
    "lr": 0.1,
    "steps": 3,
    "stop_at": 1e3,
}


@pytest.mark.parametrize("option", OTHER)
@pytest.mark.slow
def test_an_option_at_another_value_changes_the_edit(tiny_base: Base, option: str) -> None:
    a, b = (method.edit(tiny_base, REQUESTS[:1]) for method in (quick(), quick(**{option: OTHER[option]})))
    ids = tokenise(tiny_base.tokenizer, REQUESTS[0].text, REQUESTS[0].target, 512).ids
    found = []
    for edit in (a, b):
        with edit.applied():
            found.append(logits(tiny_base, ids))
    assert float((found[0] - found[1]).abs().max()) > 1e-2


def test_how_many_values_are_found_at_once_does_not_count(tiny_base: Base) -> None:
    a, b = (quick(at_once=n).edit(tiny_base, REQUESTS) for n in (1, 3))
    for one, other in zip(a.books, b.books, strict=True):
        torch.testing.assert_close(one.values, other.values, rtol=1e-3, atol=1e-3)


def test_a_matrix_inside_the_mlp_can_be_the_layer(tiny_base: Base) -> None:
    module = tiny_base.adaptor.matrices[0].rpartition(".")[2]
    edit = quick(module=module).edit(tiny_base, REQUESTS[:1])
    assert edit.module.endswith(f"mlp.{module}")
    before = nll(tiny_base, REQUESTS[0])
    with edit.applied():
        assert nll(tiny_base, REQUESTS[0]) < before - 0.2


def test_the_last_block_is_not_the_default_one(make_tiny_base: Callable[..., Base], tiny_gpt2_base: Base) -> None:
    assert GRACE().first_block(tiny_gpt2_base) == 2
    assert GRACE().first_block(make_tiny_base("gpt2", n_layer=1)) == 0


def test_in_the_last_block_only_a_targets_first_token_can_change(tiny_base: Base) -> None:
    text = tokenise(tiny_base.tokenizer, REQUESTS[0].text, REQUESTS[0].target, 512)
    before = logits(tiny_base, text.ids)
    for block, later in ((3, False), (2, True)):
        with quick(block=block).edit(tiny_base, REQUESTS[:1]).applied():
            after = logits(tiny_base, text.ids)
        assert not torch.equal(after[-text.n_target - 1], before[-text.n_target - 1])
        assert torch.equal(after[-text.n_target :], before[-text.n_target :]) != later


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"replacement": "replace_all"}, "Choose one of replace_last, replace_prompt"),
        ({"eps_expand": "decay"}, "Choose one of coverage, moving_average"),
        ({"value_init": "hot"}, "Choose one of warm, cold"),
        ({"epsilon": -1.0}, "epsilon=-1.0"),
        ({"lr": 0.0}, "lr=0.0"),
        ({"steps": 0}, "steps=0"),
        ({"at_once": 0}, "at_once=0"),
    ],
)
def test_a_bad_option_is_refused_with_advice(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        GRACE(**options)


def test_a_block_or_layer_that_does_not_exist_is_refused_with_advice(tiny_base: Base) -> None:
    with pytest.raises(InputError, match="blocks 0-3"):
        GRACE(block=4).edit(tiny_base, REQUESTS)
    with pytest.raises(InputError, match="Unknown matrix"):
        GRACE(module="mlp.nothing").edit(tiny_base, REQUESTS)


def test_edits_are_the_same_in_inference_mode_also_when_a_key_grows(tiny_base: Base) -> None:
    method = quick()
    pair, distance = near_pair(tiny_base, method, REQUESTS[0].target)
    method = replace(method, epsilon=0.6 * distance)
    with torch.inference_mode():
        inside = edit_in_sequence(method, tiny_base, pair)
    outside = edit_in_sequence(method, tiny_base, pair)
    assert isinstance(inside, CodebookEdit)
    assert isinstance(outside, CodebookEdit)
    torch.testing.assert_close(inside.together.values, outside.together.values)


def test_rows_of_the_batch_look_into_their_own_books(tiny_base: Base) -> None:
    edit = quick().edit(tiny_base, REQUESTS)
    texts = [tokenise(tiny_base.tokenizer, request.text, request.target, 512) for request in REQUESTS]
    rows = Rows.of((index, texts[index]) for index in (0, 1, 2))
    longest = max(len(ids) for ids in rows.ids)
    order = [2, 0, 1]
    padded = torch.tensor([rows.ids[index] + (0,) * (longest - len(rows.ids[index])) for index in order])
    with edit.applied(torch.tensor(order)), torch.no_grad():
        together = tiny_base.model(padded, use_cache=False).logits
    for place, index in enumerate(order):
        with edit.applied(torch.tensor([index])):
            alone = logits(tiny_base, rows.ids[index])
        torch.testing.assert_close(together[place, : len(alone)], alone, rtol=1e-3, atol=1e-3)
