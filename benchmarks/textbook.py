"""MEND's training step as a textbook has it: one edit at a time, the whole model, full weight gradients.

Mitchell et al. 2022, algorithm 1. Written for comparison, from the formulas: four forward passes of the whole model
(inner, edited with the outer texts, locality before and after), two backward passes, weight gradients and edited
weights as dense matrices, ``torch.func.functional_call`` to compute with changed weights. It takes its numbers from a
``HyperEditor``'s parameters, and its gradients lie there too. Shares no code of the step with the library.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from instructedit.base import Base
from instructedit.data.collate import Batch
from instructedit.data.rows import Rows
from instructedit.hypernet.editor import HyperEditor
from instructedit.hypernet.moments import TokenSums
from instructedit.metatrain import LossWeights

ACCUMULATED = 2
"""Edits in one optimiser step, as in the released settings."""


@dataclass(frozen=True)
class Edited:
    """What one request's step has computed.

    Args:
        loss: the request's weighted loss, with its graph.
        changes: per site the dense change (d_in, d_out) of y = x W, detached.
        sums: per site what the moments are to learn.
    """

    loss: Tensor
    changes: dict[str, Tensor]
    sums: list[TokenSums]


def textbook_step(base: Base, editor: HyperEditor, batch: Batch, request: int, weights: LossWeights) -> Edited:
    """Edit one request of a batch and measure it; the caller calls ``backward`` on the loss."""
    model = base.model
    names = [site.name for site in editor.sites]
    plain = {name: model.get_submodule(name).weight for name in names}
    leaves = {name: weight.detach().requires_grad_() for name, weight in plain.items()}
    seen: dict[str, tuple[Tensor, Tensor]] = {}

    def watch(name: str) -> nn.Module:
        def hook(_: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            output.register_hook(lambda delta: seen.__setitem__(name, (args[0].detach(), delta)))

        return model.get_submodule(name).register_forward_hook(hook)

    handles = [watch(name) for name in names]
    inner = _texts(batch.inner, request)
    loss = _nll(_logits(base, leaves, inner), inner).mean()
    torch.autograd.grad(loss, list(leaves.values()))  # the weight gradients MEND's backward forms
    for handle in handles:
        handle.remove()

    edited: dict[str, Tensor] = {}
    changes: dict[str, Tensor] = {}
    sums = []
    alphas = editor.alphas()
    for index, name in enumerate(names):
        x, delta = (part.flatten(0, 1).float() for part in seen[name])
        keep = (delta != 0).any(1)
        z = torch.cat([x[keep], delta[keep]], 1)
        moments = editor.moments[index]
        sums.append(moments.sums(z))
        shape, place = editor.place_of(name)
        d_in = x.shape[1]
        z = (z - moments.mean) / moments.std()
        for block in editor.networks[shape].blocks:
            z = z + functional.relu(
                block.scale[place] * (z @ block.down.T @ block.up.T + block.bias) + block.offset[place]
            )
        change = -alphas[index] * z[:, :d_in].T @ z[:, d_in:]
        changes[name] = change.detach()
        turned = change.T if isinstance(model.get_submodule(name), nn.Linear) else change
        edited[name] = plain[name] + turned.to(plain[name].dtype)

    outer = _texts(batch.inner, request) + _texts(batch.rephrase, request)
    edit = _row_means(_nll(_logits(base, edited, outer), outer), outer).mean()
    local = _texts(batch.locality, request)
    with torch.no_grad():
        before = _at_targets(_logits(base, {}, local), local).log_softmax(-1)
    after = _at_targets(_logits(base, edited, local), local).log_softmax(-1)
    kl = _row_means((before.exp() * (before - after)).sum(-1), local).mean()
    return Edited(weights.edit * edit + weights.locality * kl, changes, sums)


Texts = list[tuple[tuple[int, ...], int]]
"""(token ids, how many of the last are the target)."""


def _texts(rows: Rows, request: int) -> Texts:
    return [(ids, n) for ids, n, own in zip(rows.ids, rows.n_target, rows.request, strict=True) if own == request]


def _logits(base: Base, weights: dict[str, Tensor], texts: Texts) -> Tensor:
    """Logits (n, t, vocabulary) of every token under changed weights."""
    ids = nn.utils.rnn.pad_sequence([torch.tensor(ids) for ids, _ in texts], batch_first=True)
    changed = {f"{name}.weight": weight for name, weight in weights.items()}
    logits: Tensor = functional_call(base.model, changed, (ids,), {"use_cache": False}).logits
    return logits


def _at_targets(logits: Tensor, texts: Texts) -> Tensor:
    parts = [row[len(ids) - n - 1 : len(ids) - 1] for row, (ids, n) in zip(logits, texts, strict=True)]
    return torch.cat(parts).float()


def _nll(logits: Tensor, texts: Texts) -> Tensor:
    labels = torch.tensor([label for ids, n in texts for label in ids[len(ids) - n :]])
    return functional.cross_entropy(_at_targets(logits, texts), labels, reduction="none")


def _row_means(values: Tensor, texts: Texts) -> Tensor:
    return torch.stack([part.mean() for part in values.split([n for _, n in texts])])
