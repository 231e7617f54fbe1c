"""``meta_loss`` for a batch that is too large for the memory: portion by portion, with the gradients of the whole.

Each portion's graph goes as soon as its gradients are added up. What comes back looks like the whole batch's loss:
``backward`` hands the summed gradients on, through whatever an engine has hung on the parameters.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from instructedit.data.collate import Batch
from instructedit.data.portions import by_tokens, take
from instructedit.hypernet.face import MetaEditor
from instructedit.metatrain import PER_REQUEST, LossWeights, MetaLoss, Stage, meta_loss


def meta_loss_within(editor: MetaEditor, stage: Stage, batch: Batch, weights: LossWeights, tokens: int) -> MetaLoss:
    """Edit every request of a batch and measure, with at most so many tokens at once.

    Args:
        editor: the hypernetwork, its parameters whole.
        stage: the split base.
        batch: any number of requests.
        weights: the weights of the terms.
        tokens: see ``instructedit.data.portions.by_tokens``.

    Returns:
        What ``meta_loss`` returns of the whole batch, but for rounding.

    Raises:
        InputError: one request alone has more tokens.
    """
    portions = by_tokens(batch, tokens)
    if len(portions) == 1:
        return meta_loss(editor, stage, batch, weights)
    parameters = [parameter for parameter in editor.parameters() if parameter.requires_grad]
    gradients = [torch.zeros_like(parameter) for parameter in parameters]
    found: list[MetaLoss] = []
    for portion in portions:
        result = meta_loss(editor, stage, take(batch, portion), weights)
        parts = torch.autograd.grad(result.loss, parameters, allow_unused=True)
        for kept, part in zip(gradients, parts, strict=True):
            if part is not None:
                kept += part
        found.append(replace(result, loss=result.loss.detach()))
        del result, parts
    total = torch.stack([result.loss for result in found]).sum()
    sums = found[0].sums
    for result in found[1:]:
        sums = [kept + new for kept, new in zip(sums, result.sums, strict=True)]
    came = [request for portion in portions for request in portion]
    back = torch.tensor(sorted(range(len(came)), key=came.__getitem__), device=total.device)
    whole = {name: torch.cat([getattr(result, name) for result in found]).index_select(0, back) for name in PER_REQUEST}
    loss = _Known.apply(total, gradients, *parameters) if torch.is_grad_enabled() else total
    return MetaLoss(loss=loss, **whole, sums=sums, n_tokens=sum(result.n_tokens for result in found))


class _Known(torch.autograd.Function):
    """A number whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_value: Tensor) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        return None, None, *(part.mul_(of_value.to(part.dtype)) for part in gradients)
