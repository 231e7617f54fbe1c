"""Losses a portion of the positions at a time against the same with all logits at once."""

import pytest
import torch

from instructedit.base import Base
from instructedit.head_losses import kl_at, nll_at
from instructedit.losses import token_kl, token_nll


@pytest.fixture(params=[4 * 257, 3 * 4 * 257, 10**9])
def portion(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """One position at a time, three, and all."""
    monkeypatch.setattr("instructedit.head_losses.PORTION_BYTES", request.param)


def states_of(base: Base, seed: int) -> torch.Tensor:
    return torch.randn(7, base.d_model, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def test_nll_equals_all_logits_at_once(tiny_base: Base, portion: None) -> None:
    split, labels = tiny_base.split(1), torch.arange(7) * 11
    weights = torch.linspace(0.1, 2, 7)
    found, wanted = states_of(tiny_base, 0), states_of(tiny_base, 0)
    nll, best = nll_at(split, found, labels)
    logits = split.logits(wanted)
    slow = token_nll(logits, labels)
    torch.testing.assert_close(nll, slow)
    assert torch.equal(best, logits.argmax(-1)) and not best.requires_grad
    (nll * weights).sum().backward()
    (slow * weights).sum().backward()
    torch.testing.assert_close(found.grad, wanted.grad)


def test_kl_equals_all_logits_at_once(tiny_base: Base, portion: None) -> None:
    split, before = tiny_base.split(1), states_of(tiny_base, 1).detach()
    weights = torch.linspace(0.1, 2, 7)
    found, wanted = states_of(tiny_base, 2), states_of(tiny_base, 2)
    kl, same = kl_at(split, before, found)
    logits = [split.logits(states) for states in (before, wanted)]
    slow = token_kl(*logits)
    torch.testing.assert_close(kl, slow)
    assert torch.equal(same, logits[0].argmax(-1) == logits[1].argmax(-1))
    assert float(kl.detach().min()) > 0
    (kl * weights).sum().backward()
    (slow * weights).sum().backward()
    torch.testing.assert_close(found.grad, wanted.grad)


def test_ranks_that_share_a_base_ask_the_head_once(tiny_base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("instructedit.head_losses.PORTION_BYTES", 1)
    split, calls = tiny_base.split(1), []
    real = split.logits
    monkeypatch.setattr(split, "logits", lambda states: (calls.append(len(states)), real(states))[1])
    nll_at(split, states_of(tiny_base, 0), torch.arange(7))
    assert calls == [1] * 7
    calls.clear()
    monkeypatch.setattr(split, "whole_head", True)
    nll_at(split, states_of(tiny_base, 0), torch.arange(7))
    assert calls == [7]


def test_without_a_gradient_nothing_is_kept(tiny_base: Base) -> None:
    nll, _ = nll_at(tiny_base.split(1), states_of(tiny_base, 0).detach(), torch.arange(7))
    assert not nll.requires_grad
