"""Losses at the output head, a portion of the positions at a time: logits of all of them are never there together.

The head is frozen and every position's loss depends on its own state alone, so its gradient is known as soon as its
logits are: it is taken while they are at hand, and the logits go. What stays for the backward pass is one vector (d,)
a position, in place of several of the vocabulary's length. Knows states and labels; knows nothing about requests.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from instructedit.base.split import Split
from instructedit.losses import token_kl, token_nll

PORTION_BYTES = 32 * 2**20
"""Of the fp32 logits of one portion: few enough to stay near the processor, enough for a fast product."""

Measure = Callable[[Tensor, slice], tuple[Tensor, Tensor]]
"""Logits (p, vocabulary) of a portion and which positions they are, to values (p,) and notes (p,)."""


def nll_at(split: Split, states: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Negative log-likelihood of labels, and the likeliest tokens.

    Args:
        split: its head computes the logits.
        states: (m, d), after the last norm.
        labels: (m,).

    Returns:
        The likelihoods (m,), differentiable with respect to the states, and the tokens (m,).
    """

    def measure(logits: Tensor, place: slice) -> tuple[Tensor, Tensor]:
        return token_nll(logits, labels[place]), logits.argmax(-1)

    return _measured(split, states, measure)


def kl_at(split: Split, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
    """KL(base || edited), and whether the likeliest token stays.

    Args:
        split: its head computes the logits.
        before: (m, d), the base's states after the last norm.
        after: (m, d), those of the edited base.

    Returns:
        The divergences (m,), differentiable with respect to ``after``, and booleans (m,).
    """

    def measure(logits: Tensor, place: slice) -> tuple[Tensor, Tensor]:
        with torch.no_grad():
            kept = split.logits(before[place])
        return token_kl(kept, logits), kept.argmax(-1) == logits.argmax(-1)

    return _measured(split, after, measure)


def _measured(split: Split, states: Tensor, measure: Measure) -> tuple[Tensor, Tensor]:
    rows = split.positions_at_once(PORTION_BYTES)
    values, notes = _Portions.apply(states, split, measure, rows)
    return values, notes


class _Portions(torch.autograd.Function):
    """Values of all positions, with the gradients of all states kept in place of logits."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, split: Split, measure: Measure, rows: int | None) -> tuple[Tensor, Tensor]:
        wanted = ctx.needs_input_grad[0]
        values: list[Tensor] = []
        notes: list[Tensor] = []
        gradients: list[Tensor] = []
        for first in range(0, max(1, len(states)), rows or max(1, len(states))):
            place = slice(first, len(states) if rows is None else first + rows)
            part = states[place].detach().requires_grad_(wanted)
            with torch.set_grad_enabled(wanted):
                value, note = measure(split.logits(part), place)
                if wanted:
                    gradients += torch.autograd.grad(value.sum(), part)
            values.append(value.detach())
            notes.append(note)
        if wanted:
            ctx.save_for_backward(torch.cat(gradients))
        found = torch.cat(notes)
        ctx.mark_non_differentiable(found)
        return torch.cat(values), found

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_values: Tensor, _: Tensor) -> tuple[Tensor | None, None, None, None]:
        (gradients,) = ctx.saved_tensors
        return gradients * of_values.unsqueeze(1).to(gradients.dtype), None, None, None
