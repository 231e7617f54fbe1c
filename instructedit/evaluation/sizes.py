"""How large a trained editor's edits are on records it was not trained on: what later edits are held against.

Per request the norm of its whole update and how far it moves the answers it must not touch. Knows hypernetworks'
edits, which are low-rank; nothing about training, files or what is done with the numbers.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import torch
from torch import Tensor

from instructedit.data.rows import Rows, mean_of_means
from instructedit.data.tokenise import tokenise
from instructedit.head_losses import kl_at
from instructedit.lowrank import LowRankUpdate, whole_norms
from instructedit.metatrain import Stage, edited_states
from instructedit.methods.hyper import HyperMethod
from instructedit.records import EditExample

VALIDATION_EDITS = "validation_edits"
"""The key of an editor card's results that holds ``size_quantiles`` of the validation records."""

QUANTILES = {"min": 0.0, "q05": 0.05, "q50": 0.5, "q95": 0.95, "max": 1.0}


@dataclass(frozen=True)
class EditSize:
    """How large one request's edit is.

    Args:
        id: the record's id.
        task: the record's task.
        update_norm: Frobenius norm of the whole update, over all sites.
        locality_kl: mean KL(base || edited) in nats at the targets of its locality probes; NaN where it has none.
    """

    id: str
    task: str
    update_norm: float
    locality_kl: float


def edit_sizes(
    method: HyperMethod,
    stage: Stage,
    examples: Sequence[EditExample],
    batch: int = 8,
    on_progress: Callable[[int], None] | None = None,
) -> list[EditSize]:
    """Edit each example in by itself and say how large its edit is.

    Args:
        method: a trained editor.
        stage: the base, split at or below the editor's first site.
        examples: instructions already put in (see ``runner.dress``).
        batch: edits made at once.
        on_progress: called after every batch with the number of examples it had.
    """
    base = stage.base
    found: list[EditSize] = []
    # A trainer validates in inference mode, whose tensors an edit's own may not meet.
    with torch.inference_mode(False), torch.no_grad():
        for start in range(0, len(examples), batch):
            part = examples[start : start + batch]
            updates = method.edit(base, [example.request for example in part]).updates
            local = Rows.of(
                (number, tokenise(base.tokenizer, probe.text, probe.target, base.max_tokens))
                for number, example in enumerate(part)
                for probe in example.of_kind("locality")
            )
            kl = [math.nan] * len(part)
            if len(local):
                asked = set(local.request)
                values = request_kl(stage, updates, local, len(part)).tolist()
                kl = [value if number in asked else math.nan for number, value in enumerate(values)]
            for example, norm, moved in zip(part, whole_norms(updates).tolist(), kl, strict=True):
                found.append(EditSize(example.request.id, example.request.task, norm, moved))
            if on_progress:
                on_progress(len(part))
    return found


def request_kl(stage: Stage, updates: dict[str, LowRankUpdate], rows: Rows, n_requests: int) -> Tensor:
    """Return each request's mean KL(base || edited) at its rows' targets: (n_requests,), as ``meta_loss`` takes it."""
    hidden = stage.hidden(rows)
    before, after = (edited_states(stage, each, rows, hidden) for each in ({}, updates))
    divergence, _ = kl_at(stage.split, before, after)
    return mean_of_means(divergence, rows.targets(hidden.device).row, rows.request_index(hidden.device), n_requests)


def size_quantiles(sizes: Sequence[EditSize]) -> dict[str, Any]:
    """Say what is usual, as JSON values: ``records``, and quantiles of ``update_norm`` and ``locality_kl``.

    Numbers that are not finite take no part; a measure nothing was found of is left out.
    """
    told: dict[str, Any] = {"records": len(sizes)}
    for name in ("update_norm", "locality_kl"):
        values = [value for size in sizes if math.isfinite(value := getattr(size, name))]
        if values:
            told[name] = {key: float(f"{numpy.quantile(values, share):.6g}") for key, share in QUANTILES.items()}
    return told
