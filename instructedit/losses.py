"""Losses of meta-training: likelihood, unlikelihood, and locality as a divergence.

Pure functions of tensors, all in fp32. A term is averaged within each request first, so a batch of
B requests gives B numbers and none depends on its neighbours.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional


def log1m_exp(log_p: Tensor) -> Tensor:
    """Return log(1 - exp(log_p)) for log_p <= 0 without losing digits at either end.

    Where p rounds to 1 the value is held at log(2^-20), about -14, so that neither it nor its
    gradient becomes infinite.
    """
    log_p = log_p.clamp_max(-(2.0**-20))
    near_one = log_p > -math.log(2)
    # Each branch only ever sees the half it is exact on: otherwise the unused one's infinite
    # gradient would turn the sum into NaN.
    high = torch.log(-torch.expm1(torch.where(near_one, log_p, -1.0)))
    low = torch.log1p(-torch.exp(torch.where(near_one, -1.0, log_p)))
    return torch.where(near_one, high, low)


def token_nll(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each label: logits (m, vocabulary), labels (m,) -> (m,)."""
    return functional.cross_entropy(logits.float(), labels, reduction="none")


def token_unlikelihood(logits: Tensor, labels: Tensor) -> Tensor:
    """-log(1 - p(label)) for each position: logits (m, vocabulary), labels (m,) -> (m,).

    Welleck et al. 2020; ConvSent puts it on the completions of the side that is not wanted
    (PAPER.md, ConvSent, made exact).
    """
    return unlikelihood_of(token_nll(logits, labels))


def unlikelihood_of(nll: Tensor) -> Tensor:
    """-log(1 - p) of -log p (m,) -> (m,)."""
    return -log1m_exp(-nll)


def token_kl(base_logits: Tensor, edited_logits: Tensor) -> Tensor:
    """KL(base || edited) at each position: two times (m, vocabulary) -> (m,)."""
    with torch.no_grad():
        log_p = base_logits.float().log_softmax(-1)
        p = log_p.exp()
    log_q = edited_logits.float().log_softmax(-1)
    return (p * (log_p - log_q)).sum(-1)
