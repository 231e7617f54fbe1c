import torch
from hypothesis import given
from hypothesis import strategies as st

from instructedit.losses import log1m_exp, token_kl, token_nll, token_unlikelihood


@given(st.floats(-80, -1e-5))
def test_log1m_exp_equals_the_formula_in_double(log_p: float) -> None:
    found = log1m_exp(torch.tensor([log_p], dtype=torch.float64))
    expected = torch.log(1 - torch.exp(torch.tensor([log_p], dtype=torch.float64)))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-12)


def test_unlikelihood_stays_finite_where_the_model_is_certain() -> None:
    logits = torch.tensor([[200.0, 0.0], [-200.0, 0.0]], requires_grad=True)
    loss = token_unlikelihood(logits, torch.tensor([0, 0]))
    loss.sum().backward()
    assert logits.grad is not None and torch.isfinite(logits.grad).all() and torch.isfinite(loss).all()
    assert loss[0] > 10 and loss[1] < 1e-6


def test_unlikelihood_and_likelihood_of_two_outcomes_mirror_each_other() -> None:
    logits = torch.randn(5, 2)
    labels = torch.tensor([0, 1, 0, 1, 0])
    torch.testing.assert_close(token_unlikelihood(logits, labels), token_nll(logits, 1 - labels), rtol=1e-4, atol=1e-5)


def test_kl_is_of_base_to_edited_and_zero_for_the_same() -> None:
    base, edited = torch.randn(4, 9), torch.randn(4, 9)
    p = base.softmax(-1)
    expected = (p * (p.log() - edited.softmax(-1).log())).sum(-1)
    torch.testing.assert_close(token_kl(base, edited), expected)
    assert token_kl(base, base).abs().max() < 1e-6
