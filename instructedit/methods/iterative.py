"""Optimising many requests' own states in one batch: what FT-L, CaliNet and GRACE share.

Each request has its own parameters, its own optimiser state and its own end, so that what it becomes does not
depend on the requests beside it. Only the tail is computed, on states of the trunk that are there already.
Knows nothing about what the parameters mean.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import LongTensor, Tensor

from instructedit.data.rows import Rows, mean_by
from instructedit.losses import token_nll
from instructedit.metatrain import Stage

Objective = Literal["prompt_last", "all"]
"""The loss: the target's first token, at the prompt's last position, or all target tokens."""


@dataclass(frozen=True)
class Optimised:
    """How far each of b requests came: its last loss (b,) and the steps it took (b,)."""

    loss: Tensor
    steps: Tensor


def optimise(
    stage: Stage,
    rows: Rows,
    parameters: Sequence[Tensor],
    run: Callable[[Sequence[Tensor], LongTensor], AbstractContextManager[None]],
    optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
    *,
    steps: int,
    objective: Objective = "all",
    stop_at: float | None = None,
    project: Callable[[], None] | None = None,
) -> Optimised:
    """Minimise every request's mean NLL of its target tokens over its own parameters, in place.

    Args:
        stage: the base, split at or below the first block the parameters act on.
        rows: the texts to learn, with at least one for each request 0 .. b - 1.
        parameters: tensors (b, ...), entry i of each belonging to request i; fp32, changed in place.
        run: a context in which the base computes with the given parameters, and row n with the entry that
            the second argument (n,) says.
        optimizer: makes the optimiser; it gets b * len(parameters) tensors, so that each request has its own state.
        steps: the most steps.
        objective: which target tokens count.
        stop_at: a request whose loss is below this takes no further step.
        project: called after every step, to bring parameters back into their bounds.
    """
    n = parameters[0].shape[0]
    own = [[parameter.detach()[index] for parameter in parameters] for index in range(n)]
    stepping = optimizer([tensor for tensors in own for tensor in tensors])
    leaves = [parameter.detach().requires_grad_() for parameter in parameters]
    loss = torch.full((n,), torch.inf)
    taken = torch.zeros(n, dtype=torch.long)
    active = torch.ones(n, dtype=torch.bool)
    for _ in range(steps):
        asked = rows.take(index for index, request in enumerate(rows.request) if active[request])
        hidden = stage.hidden(asked)
        with torch.inference_mode(False), torch.enable_grad():
            losses = _losses(stage, asked, hidden, leaves, run, objective, n)
            loss = torch.where(active, losses.detach().cpu(), loss)
            if stop_at is not None:
                active &= loss >= stop_at
                if not active.any():
                    break
            gradients = torch.autograd.grad(losses.sum(), leaves)
        for index, tensors in enumerate(own):
            for tensor, gradient in zip(tensors, gradients, strict=True):
                # No gradient at all: with a gradient of zero Adam's momentum would go on.
                tensor.grad = gradient[index] if active[index] else None
        stepping.step()
        taken += active
        if project is not None:
            with torch.no_grad():
                project()
    return Optimised(loss, taken)


def _losses(
    stage: Stage,
    rows: Rows,
    hidden: Tensor,
    leaves: Sequence[Tensor],
    run: Callable[[Sequence[Tensor], LongTensor], AbstractContextManager[None]],
    objective: Objective,
    n_requests: int,
) -> Tensor:
    """Mean NLL (n_requests,) of the target tokens that count, over all rows of a request."""
    row_request = rows.request_index(hidden.device)
    targets = rows.targets(hidden.device)
    with run(leaves, row_request):
        states = stage.split.tail(hidden)
    nll = token_nll(stage.split.logits(targets.select(states)), targets.label)
    row = targets.row
    if objective == "prompt_last":
        first = torch.ones_like(row, dtype=torch.bool)
        first[1:] = row[1:] != row[:-1]
        nll, row = nll[first], row[first]
    return mean_by(nll, row_request[row], n_requests)
