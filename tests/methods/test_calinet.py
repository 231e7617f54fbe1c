"""CaliNet: how slots compute, what they learn from, its options, and that requests beside a request change nothing."""

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from instructedit.base import Base
from instructedit.errors import InputError
from instructedit.hooks import count_hooks
from instructedit.methods.base import Edit
from instructedit.methods.calinet import CaliNet, SlotEdit
from instructedit.methods.several import edit_in_sequence, edit_together
from instructedit.records import EditExample, EditRequest
from instructedit.tasks import load_task
from tests.methods.test_ft_l import target_nll

REQUESTS = [
    EditRequest("The capital of Spain is", "Vienna", id="a", subject="Spain"),
    EditRequest("Anna speaks", "Dutch", id="b", instruction="Task: Facts\nInput: "),
    EditRequest("What do you think of tubas?", "They are loud", id="c", more_targets=("I like them", "No idea")),
]
STRONG = CaliNet(slots=16, paraphrases=1, lr=3e-2, steps=12, stop_at=None)
IDS = torch.tensor([[5, 80, 31, 7, 99], [9, 9, 120, 44, 3]])


def logits(base: Base, edit: Edit | None, rows: list[int] | None) -> torch.Tensor:
    with torch.no_grad():
        if edit is None:
            return base.model(IDS, use_cache=False).logits  # type: ignore[no-any-return]
        with edit.applied(None if rows is None else torch.tensor(rows)):
            return base.model(IDS, use_cache=False).logits  # type: ignore[no-any-return]


def some_slots(base: Base, block: int = 1) -> SlotEdit:
    generator = torch.Generator().manual_seed(5)
    keys, values = (torch.randn(3, 6, base.d_model, generator=generator) for _ in range(2))
    return SlotEdit(base, block, keys, values)


def test_slots_compute_as_the_paper_writes_them(tiny_base: Base) -> None:
    """MLP(x) + act(x K^T) V, spelt out for one row on a hook of our own."""
    edit = some_slots(tiny_base)
    act = {"gpt2": lambda z: torch.nn.functional.gelu(z, approximate="tanh"), "llama-like": torch.nn.functional.silu}
    mlp = tiny_base.model.get_submodule(f"{tiny_base.adaptor.block_path(1)}.mlp")
    for rows in ([2, 0], None):
        found = logits(tiny_base, edit, rows)
        assert count_hooks(tiny_base.model) == 0

        def hook(_: Any, args: tuple[torch.Tensor, ...], output: torch.Tensor, rows: Any = rows) -> torch.Tensor:
            added = torch.zeros_like(output)
            for place in range(2):
                for request in range(3) if rows is None else [rows[place]]:
                    for slot in range(6):
                        weight = act[tiny_base.adaptor.family](args[0][place] @ edit.keys[request, slot])
                        added[place] += weight[:, None] * edit.values[request, slot]
            return output + added

        handle = mlp.register_forward_hook(hook)
        try:
            torch.testing.assert_close(found, logits(tiny_base, None, None), rtol=1e-4, atol=1e-4)
        finally:
            handle.remove()
        assert float((found - logits(tiny_base, None, None)).abs().max()) > 0.5


def test_slots_start_as_nothing_and_learn_from_the_first_step(tiny_base: Base) -> None:
    untrained = replace(STRONG, lr=0.0).edit(tiny_base, REQUESTS)
    assert not untrained.values.any()
    assert torch.equal(logits(tiny_base, untrained, [0, 1]), logits(tiny_base, None, None))
    once = replace(STRONG, steps=1).edit(tiny_base, REQUESTS)
    # While values are zero keys have no gradient, so the first step moves the values and the second moves both.
    assert bool((once.values != 0).any(-1).all())
    assert torch.equal(once.keys, untrained.keys)
    twice = replace(STRONG, steps=2).edit(tiny_base, REQUESTS)
    assert bool((twice.keys != untrained.keys).any(-1).all())


def test_every_wanted_text_is_learnt(tiny_base: Base) -> None:
    edit = replace(STRONG, steps=40).edit(tiny_base, REQUESTS)
    for index, request in enumerate(REQUESTS):
        for target in request.targets:
            asked = replace(request, target=target, more_targets=())
            before, after = target_nll(tiny_base, asked).mean(), target_nll(tiny_base, asked, edit, index).mean()
            assert float(after) < 0.6 * float(before)


def test_the_request_is_learnt_in_several_wordings_behind_its_instruction() -> None:
    texts = CaliNet(paraphrases=3).texts(REQUESTS[1])
    assert texts[0] == REQUESTS[1].text
    assert len(set(texts)) == 4
    assert all(text.startswith("Task: Facts\nInput: ") and "Anna speaks" in text for text in texts)
    assert CaliNet(paraphrases=3).texts(REQUESTS[1]) == texts
    assert CaliNet(paraphrases=0).texts(REQUESTS[0]) == (REQUESTS[0].text,)
    assert CaliNet().texts(EditRequest("", "an answer", instruction="Say it. ")) == ("Say it. ",)
    many = CaliNet(paraphrases=99)
    assert any(many.texts(REQUESTS[0])[1:] != many.texts(replace(REQUESTS[0], id=str(n)))[1:] for n in range(5))


def test_no_paraphrase_is_a_text_that_scores() -> None:
    """Over whole test splits, whatever the number of paraphrases."""
    everything = CaliNet(paraphrases=99)
    examples: list[EditExample] = [
        example
        for task in ("demo-recent", "demo-counterfact", "demo-convsent", "demo-zsre")
        for example in islice(load_task(task).read(Path("unused"), "test"), 60)
        if isinstance(example, EditExample)
    ]
    scored = {" ".join(p.prompt.lower().split()) for e in examples for p in e.probes if "wanted" not in p.kind}
    learnt = {" ".join(text.lower().split()) for e in examples for text in everything.texts(e.request)[1:]}
    assert len(examples) > 100 and len(learnt) > 500
    assert not learnt & scored


def test_many_at_once_equal_one_by_one_also_where_they_end_at_different_steps(tiny_base: Base) -> None:
    method = replace(STRONG, stop_at=3.0, steps=25)
    together = method.edit(tiny_base, REQUESTS)
    for index, request in enumerate(REQUESTS):
        alone = method.edit(tiny_base, [request])
        torch.testing.assert_close(together.keys[index], alone.keys[0], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(together.values[index], alone.values[0], rtol=1e-3, atol=1e-3)
        assert float(alone.values.abs().max()) > 0.05
    in_twos = replace(method, at_once=2).edit(tiny_base, REQUESTS)
    torch.testing.assert_close(in_twos.values, together.values, rtol=1e-3, atol=1e-3)


def test_the_last_block_gets_the_slots_where_none_is_named(tiny_base: Base) -> None:
    for block, expected in ((None, 3), (1, 1)):
        method = replace(STRONG, block=block, steps=1)
        assert method.edit(tiny_base, REQUESTS[:1]).block == expected
        assert method.first_block(tiny_base) == method.stage_for(tiny_base).split.first_block == expected
    with pytest.raises(InputError, match="block is 9, but base"):
        replace(STRONG, block=9).edit(tiny_base, REQUESTS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed",
    [{"block": 1}, {"slots": 5}, {"paraphrases": 0}, {"lr": 1e-2}, {"steps": 2}, {"stop_at": 4.0}, {"seed": 1}],
)
def test_options_change_the_result(tiny_base: Base, changed: dict[str, Any]) -> None:
    a, b = (method.edit(tiny_base, REQUESTS[:1]) for method in (STRONG, replace(STRONG, **changed)))
    assert b.keys.shape == (1, changed.get("slots", 16), tiny_base.d_model)
    assert float((logits(tiny_base, a, None) - logits(tiny_base, b, None)).abs().max()) > 1e-2


@pytest.mark.parametrize("wrong", [{"slots": 0}, {"steps": 0}, {"at_once": 0}, {"paraphrases": -1}, {"lr": -1.0}])
def test_a_wrong_option_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=f"{next(iter(wrong))} must be .* or more"):
        CaliNet(**wrong)


def joint_nll(base: Base, edit: Edit) -> float:
    return float(torch.stack([target_nll(base, request, edit, None).mean() for request in REQUESTS[:2]]).mean())


@pytest.mark.slow
def test_one_set_of_slots_for_all_serves_all_better_than_all_sets_side_by_side(tiny_base: Base) -> None:
    longer = replace(STRONG, steps=40)
    shared = edit_together(longer, tiny_base, REQUESTS)
    assert isinstance(shared, SlotEdit)
    assert shared.keys.shape == (1, 16, tiny_base.d_model)
    assert joint_nll(tiny_base, shared) < joint_nll(tiny_base, longer.edit(tiny_base, REQUESTS)) - 0.3
    one, all_ = (replace(STRONG, at_once=n).edit_together(tiny_base, REQUESTS) for n in (1, 3))
    torch.testing.assert_close(one.values, all_.values, rtol=1e-3, atol=1e-3)


def test_in_sequence_each_edit_is_made_on_what_the_earlier_ones_left(tiny_base: Base) -> None:
    sequence = edit_in_sequence(STRONG, tiny_base, REQUESTS[:2])
    first = STRONG.edit(tiny_base, REQUESTS[:1])
    with first.applied():
        second = STRONG.edit(tiny_base, REQUESTS[1:2])
    kept = sequence.edits[1]  # type: ignore[attr-defined]
    assert torch.equal(kept.values, second.values)
    assert not torch.allclose(second.values, STRONG.edit(tiny_base, REQUESTS[1:2]).values, atol=1e-2)
    assert float(target_nll(tiny_base, REQUESTS[1], sequence, None).mean()) < 4
