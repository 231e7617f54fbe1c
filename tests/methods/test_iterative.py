"""Optimising requests side by side: against one at a time in a plain loop, with Adam's momentum and early ends."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial

import pytest
import torch
from torch import LongTensor, Tensor

from instructedit.base import Base
from instructedit.base.sites import Site, SiteSpec, find_sites
from instructedit.data.rows import Rows
from instructedit.errors import InputError
from instructedit.hooks import count_hooks
from instructedit.metatrain import Stage
from instructedit.methods.dense import applied
from instructedit.methods.iterative import Optimised, at_least, chosen_block, optimise, optimise_together
from tests.core import as_product, random_rows

ADAM = partial(torch.optim.Adam, lr=2e-2)
ROWS = random_rows(torch.Generator().manual_seed(4), [0, 0, 1, 2], n_target=3)


def site_of(base: Base) -> Site:
    return find_sites(base, SiteSpec(last_blocks=2, matrices=base.adaptor.matrices[-1:]))[0]


def learn(base: Base, rows: Rows, n: int, *, together: bool = False, **options: object) -> tuple[Tensor, Optimised]:
    site = site_of(base)
    change = torch.zeros(n, site.d_in, site.d_out)

    def run(parameters: Sequence[Tensor], entry: LongTensor) -> AbstractContextManager[None]:
        return applied(base.model, {site.name: parameters[0]}, entry)

    by = optimise_together if together else optimise
    return change, by(Stage.of(base, site.block), rows, [change], run, ADAM, **options)  # type: ignore[operator]


def textbook(base: Base, rows: Rows, steps: int, stop_at: float, first_token: bool = False) -> tuple[Tensor, int]:
    """One request on the whole model, whose weight is a leaf: the change (d_in, d_out) and the steps taken."""
    site = site_of(base)
    module = base.model.get_submodule(site.name)
    frozen = module.weight.detach()
    weight = frozen.clone().requires_grad_()
    adam = ADAM([weight])
    for step in range(steps + 1):
        nll = []
        for ids, n_target in zip(rows.ids, rows.n_target, strict=True):
            logits = torch.func.functional_call(
                base.model, {f"{site.name}.weight": weight}, (torch.tensor([ids]),), {"use_cache": False}
            ).logits[0, -n_target - 1 : -1]
            own = torch.nn.functional.cross_entropy(logits, torch.tensor(ids[-n_target:]), reduction="none")
            nll.append(own[:1] if first_token else own)
        loss = torch.cat(nll).mean()
        if loss < stop_at or step == steps:
            break
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()
    return as_product(module, weight.detach() - frozen), step


def only(request: int) -> Rows:
    rows = ROWS.take(index for index, owner in enumerate(ROWS.request) if owner == request)
    return Rows(rows.ids, rows.n_target, (0,) * len(rows))


@pytest.mark.parametrize("objective", ["all", "prompt_last"])
def test_side_by_side_equals_a_plain_loop_for_each_request_until_its_own_end(tiny_base: Base, objective: str) -> None:
    stop_at = 2.5 if objective == "all" else 2.0
    change, done = learn(tiny_base, ROWS, 3, steps=20, stop_at=stop_at, objective=objective)
    for request in range(3):
        expected, steps = textbook(tiny_base, only(request), 20, stop_at, objective == "prompt_last")
        assert int(done.steps[request]) == steps
        torch.testing.assert_close(change[request], expected, rtol=5e-3, atol=1e-3)
        assert float(expected.abs().max()) > 0.03
    assert len(set(done.steps.tolist())) > 1  # they did not end together: momentum had the chance to go on
    assert bool((done.loss < stop_at)[done.steps < 20].all())
    assert not any(tensor.requires_grad for tensor in tiny_base.model.parameters())
    assert count_hooks(tiny_base.model) == 0


def test_without_a_bound_to_stop_at_every_request_takes_all_steps(tiny_base: Base) -> None:
    _, done = learn(tiny_base, ROWS, 3, steps=4)
    assert done.steps.tolist() == [4, 4, 4]


def test_parameters_are_projected_after_every_step(tiny_base: Base) -> None:
    calls = []
    learn(tiny_base, ROWS, 3, steps=4, project=lambda: calls.append(torch.is_grad_enabled()))
    assert calls == [False] * 4


def test_together_learns_the_mean_over_requests_not_over_tokens(tiny_base: Base) -> None:
    """Request 0 has twice the tokens of the others and must not count twice."""
    change, done = learn(tiny_base, ROWS, 1, together=True, steps=1)
    alone, first = learn(tiny_base, ROWS, 3, steps=1)
    assert done.loss.item() == pytest.approx(float(first.loss.mean()), rel=1e-5)
    assert float(first.loss.std()) > 0.01
    assert done.steps.tolist() == [1]
    assert change.shape == (1, *alone.shape[1:])
    in_parts, _ = learn(tiny_base, ROWS, 1, together=True, steps=3, at_once=2)
    whole, _ = learn(tiny_base, ROWS, 1, together=True, steps=3)
    torch.testing.assert_close(in_parts, whole, rtol=5e-3, atol=1e-3)


def test_together_stops_on_the_mean(tiny_base: Base) -> None:
    _, done = learn(tiny_base, ROWS, 1, together=True, steps=30, stop_at=4.0)
    assert 0 < done.steps.item() < 30
    assert done.loss.item() < 4.0


def test_states_made_in_inference_mode_can_be_trained_on(tiny_base: Base) -> None:
    expected, _ = learn(tiny_base, ROWS, 3, steps=2)
    site = site_of(tiny_base)
    change = torch.zeros(3, site.d_in, site.d_out)
    with torch.inference_mode():
        optimise(
            Stage.of(tiny_base, site.block),
            ROWS,
            [change],
            lambda parameters, entry: applied(tiny_base.model, {site.name: parameters[0]}, entry),
            ADAM,
            steps=2,
        )
    assert torch.equal(change, expected)


def test_a_block_is_the_one_asked_for_or_the_methods_own(tiny_base: Base) -> None:
    assert chosen_block(tiny_base, None, 2) == 2
    assert chosen_block(tiny_base, 0, 2) == 0
    for block in (-1, 4):
        with pytest.raises(InputError, match="has blocks 0-3"):
            chosen_block(tiny_base, block, 2)


def test_an_option_below_its_least_value_is_named() -> None:
    at_least(0, lr=0.0, stop_at=None)
    with pytest.raises(InputError, match="steps must be 1 or more; found 0"):
        at_least(1, slots=3, steps=0)
