"""Optimising edits step by step, many requests in one batch: what FT-L, CaliNet and GRACE share.

Each request has its own parameters, its own optimiser state and its own end, so that what it becomes does not
depend on the requests beside it; or all share one set of parameters. Only the tail is computed, on states of the
trunk that are there already. Knows nothing about what the parameters mean.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import LongTensor, Tensor

from instructedit.base.model import Base
from instructedit.data.rows import Rows, mean_by
from instructedit.errors import InputError
from instructedit.losses import token_nll
from instructedit.metatrain import Stage

Objective = Literal["prompt_last", "all"]
"""The loss: the target's first token, at the prompt's last position, or all target tokens."""

Run = Callable[[Sequence[Tensor], LongTensor], AbstractContextManager[None]]
"""A context in which the base computes with the given parameters, and row n with the entry that the second argument
(n,) says."""

MakeOptimizer = Callable[[list[Tensor]], torch.optim.Optimizer]


@dataclass(frozen=True)
class Optimised:
    """How far each of b requests came: its last loss (b,) and the steps it took (b,)."""

    loss: Tensor
    steps: Tensor


@torch.inference_mode(False)
def optimise(
    stage: Stage,
    rows: Rows,
    parameters: Sequence[Tensor],
    run: Run,
    optimizer: MakeOptimizer,
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
        run: how the base computes with them.
        optimizer: makes the optimiser; it gets b * len(parameters) tensors, so that each request has its own state.
        steps: the most steps.
        objective: which target tokens count.
        stop_at: a request whose loss is below this takes no further step.
        project: called after every step, to bring parameters back into their bounds.
    """
    rows = _counted(rows, objective)
    n = parameters[0].shape[0]
    own = [[parameter.detach()[index] for parameter in parameters] for index in range(n)]
    stepping = optimizer([tensor for tensors in own for tensor in tensors])
    leaves = [parameter.detach().requires_grad_() for parameter in parameters]
    loss = torch.full((n,), torch.inf)
    taken = torch.zeros(n, dtype=torch.long)
    active = torch.ones(n, dtype=torch.bool)
    hidden = stage.hidden(rows)
    for _ in range(steps):
        with torch.enable_grad():
            losses = _losses(stage, rows, hidden, leaves, run, rows.request_index(hidden.device), n)
            loss = torch.where(active, losses.detach().cpu(), loss)
            if stop_at is not None and bool((active & (loss < stop_at)).any()):
                # Those that end stay out of this step and all that follow. The others' gradients are the same with
                # and without them, so the graph that is there serves once more.
                active &= loss >= stop_at
                if not active.any():
                    break
                rows = rows.take(index for index, request in enumerate(rows.request) if active[request])
                hidden = stage.hidden(rows)
            gradients = torch.autograd.grad(losses.sum(), leaves)
        for index, tensors in enumerate(own):
            for tensor, gradient in zip(tensors, gradients, strict=True):
                # No gradient at all: with a gradient of zero Adam's momentum would go on.
                tensor.grad = gradient[index] if active[index] else None
        _step(stepping, project)
        taken += active
    return Optimised(loss, taken)


@torch.inference_mode(False)
def optimise_together(
    stage: Stage,
    rows: Rows,
    parameters: Sequence[Tensor],
    run: Run,
    optimizer: MakeOptimizer,
    *,
    steps: int,
    objective: Objective = "all",
    stop_at: float | None = None,
    project: Callable[[], None] | None = None,
    at_once: int = 8,
) -> Optimised:
    """Minimise the mean of all requests' losses over parameters that they share, in place.

    Args are those of ``optimise``, but for:
        parameters: tensors (1, ...).
        stop_at: no step is taken once the mean is below this.
        at_once: requests in one pass; bounds the memory, their gradients add up.

    Returns:
        One loss and one number of steps, as (1,) each.
    """
    rows = _counted(rows, objective)
    n = rows.request[-1] + 1
    own = [parameter.detach() for parameter in parameters]
    stepping = optimizer(own)
    leaves = [parameter.detach().requires_grad_() for parameter in parameters]
    loss, taken = torch.full((1,), torch.inf), torch.zeros(1, dtype=torch.long)
    for _ in range(steps):
        total = 0.0
        gradients = [torch.zeros_like(tensor) for tensor in own]
        for part in _passes(rows, at_once):
            hidden = stage.hidden(part)
            entry = torch.zeros(len(part), dtype=torch.long, device=hidden.device)
            with torch.enable_grad():
                mean = _losses(stage, part, hidden, leaves, run, entry, n).sum() / n  # type: ignore[arg-type]
                for whole, gradient in zip(gradients, torch.autograd.grad(mean, leaves), strict=True):
                    whole += gradient
            total += float(mean.detach())
        loss = torch.tensor([total])
        if stop_at is not None and total < stop_at:
            break
        for tensor, gradient in zip(own, gradients, strict=True):
            tensor.grad = gradient
        _step(stepping, project)
        taken += 1
    return Optimised(loss, taken)


def chosen_block(base: Base, block: int | None, otherwise: int) -> int:
    """Return the block asked for, or ``otherwise`` where none was.

    Raises:
        InputError: the base has no such block.
    """
    if block is None:
        return otherwise
    if not 0 <= block < base.n_blocks:
        raise InputError(
            f"block is {block}, but base {base.name!r} has blocks 0-{base.n_blocks - 1}. Choose one of them."
        )
    return block


def at_least(least: float, **options: float | None) -> None:
    """Refuse an option that is not None and below ``least``.

    Raises:
        InputError: naming the first such option.
    """
    for option, value in options.items():
        if value is not None and not value >= least:
            raise InputError(f"{option} must be {least} or more; found {value}.")


def _counted(rows: Rows, objective: Objective) -> Rows:
    """Cut what does not count: for "prompt_last" everything after the first target token."""
    if objective == "all":
        return rows
    pairs = zip(rows.ids, rows.n_target, strict=True)
    return Rows(tuple(ids[: len(ids) - n + 1] for ids, n in pairs), (1,) * len(rows), rows.request)


def _passes(rows: Rows, at_once: int) -> Iterator[Rows]:
    for first in range(0, rows.request[-1] + 1, at_once):
        yield rows.take(i for i, request in enumerate(rows.request) if first <= request < first + at_once)


def _step(stepping: torch.optim.Optimizer, project: Callable[[], None] | None) -> None:
    with torch.no_grad():
        stepping.step()
        if project is not None:
            project()


def _losses(
    stage: Stage,
    rows: Rows,
    hidden: Tensor,
    leaves: Sequence[Tensor],
    run: Run,
    entry: LongTensor,
    n_requests: int,
) -> Tensor:
    """Mean NLL (n_requests,) of a request's target tokens over all its rows, row n computing with entry[n]."""
    targets = rows.targets(hidden.device)
    with run(leaves, entry):
        states = stage.split.tail(hidden)
    nll = token_nll(stage.split.logits(targets.select(states)), targets.label)
    return mean_by(nll, rows.request_index(hidden.device)[targets.row], n_requests)
