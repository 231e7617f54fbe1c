"""One whole step of meta-training without an optimiser: ``meta_loss``, and the pass that starts it.

The order is DESIGN.md's: trunk, inner gradients, hypernetwork, outer pass, loss. Everything is per
request; whoever calls divides by the global number of requests, so neither micro-batches nor
ranks change the mathematics. Works in a bare loop; knows nothing about trainers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from instructedit.base.model import Base
from instructedit.base.split import Split
from instructedit.base.store import PASS_ROWS, PASS_TOKENS, TrunkStore
from instructedit.conditions import OldAnswers, conditions_of
from instructedit.data.collate import Batch
from instructedit.data.rows import Rows, mean_of_means, pad_states
from instructedit.errors import InputError
from instructedit.gradients import EditGradients, inner_gradients
from instructedit.head_losses import kl_at, nll_at
from instructedit.hypernet.editor import HyperEditor
from instructedit.hypernet.face import MetaEditor
from instructedit.hypernet.moments import TokenSums
from instructedit.losses import unlikelihood_of
from instructedit.lowrank import LowRankUpdate, applied, whole_norms
from instructedit.records import EditRequest


@dataclass(frozen=True)
class LossWeights:
    """Weights of the loss: c_edit * (edit + unlikelihood) + c_loc * locality.

    Args:
        edit: the paper's 0.1.
        locality: the paper's 1.0.
        unlikelihood: how much the unlikelihood of unwanted texts counts beside the edit loss.
    """

    edit: float = 0.1
    locality: float = 1.0
    unlikelihood: float = 1.0

    def __post_init__(self) -> None:
        if min(self.edit, self.locality, self.unlikelihood) < 0:
            raise InputError(f"The weights of the loss are 0 or more; found {self}.")


@dataclass(frozen=True)
class MetaLoss:
    """What one step measured, request by request; all (b,) and detached but ``loss``.

    Args:
        loss: sum over the requests; divide it by the global number of requests.
        edit: mean NLL of the wanted tokens, over the edit prompt and its rephrases.
        unlikelihood: mean -log(1 - p) of the unwanted tokens, 0 where a request has none.
        locality: mean KL(base || edited) at the locality targets.
        reliability: share of the edit prompt's target tokens that are the argmax after the edit.
        kept: share of locality target positions whose argmax did not change.
        update_norm: Frobenius norm of the whole update, over all sites.
        sums: what the moments are to learn at the optimiser step; pass it to ``editor.merge``.
        n_tokens: tokens of all rows, padding not counted.
    """

    loss: Tensor
    edit: Tensor
    unlikelihood: Tensor
    locality: Tensor
    reliability: Tensor
    kept: Tensor
    update_norm: Tensor
    sums: list[TokenSums]
    n_tokens: int


PER_REQUEST = ("edit", "unlikelihood", "locality", "reliability", "kept", "update_norm")
"""What a ``MetaLoss`` holds of each request, by name."""

_EVALUATION_STAGES: WeakKeyDictionary[Base, dict[int, tuple[Split, TrunkStore]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Stage:
    """A base split at its first edited block, with a store for the states that enter the tail.

    ``answers`` keeps what the base answers greedily, for the editors that are told.
    """

    base: Base
    split: Split
    store: TrunkStore
    answers: OldAnswers = field(default_factory=OldAnswers, compare=False, repr=False)

    @classmethod
    def of(cls, base: Base, first_block: int, store: TrunkStore | None = None) -> "Stage":
        """Split a base; without a store of the caller's own, states are kept in memory."""
        split = base.split(first_block)
        return cls(base, split, store or TrunkStore(split, base.fingerprint))

    @classmethod
    def for_evaluation(cls, base: Base, first_block: int, memory_mib: int = 512) -> "Stage":
        """Split a base, with a store that computes several inputs in a pass; quicker than one by one.

        Methods that start at the same block get the same stage, so that a text they all ask is computed once.
        ``memory_mib`` counts where the stage is new.
        """
        known = _EVALUATION_STAGES.setdefault(base, {})
        if first_block not in known:
            split = base.split(first_block)
            store = TrunkStore(split, base.fingerprint, PASS_ROWS, PASS_TOKENS, memory_mib, share_prefixes=True)
            # Weak: the stage holds the base, and would keep it for ever from inside the table.
            known[first_block] = split, store
        return cls(base, *known[first_block])

    def hidden(self, rows: Rows) -> Tensor:
        """Return the states (n, t, d) entering the tail, each distinct input computed or read once."""
        return self.hidden_of(rows)[0]

    def hidden_of(self, *roles: Rows) -> list[Tensor]:
        """Return the states (n, t, d) entering the tail for rows of several roles.

        Each distinct input is computed or read once for all of them, and those that are missing share passes
        through the trunk.
        """
        states = iter(self.store.states([ids for rows in roles for ids in rows.ids]))
        return [pad_states(list(islice(states, len(rows))), self.base.device, self.base.dtype) for rows in roles]


def request_gradients(
    editor: MetaEditor, stage: Stage, inner: Rows, n_requests: int, hidden: Tensor | None = None
) -> dict[str, EditGradients]:
    """Run trunk and inner pass for the edit inputs and return every site's factors.

    Args:
        editor: whose sites.
        stage: the split base.
        inner: the edit inputs.
        n_requests: how many requests they belong to.
        hidden: (n, t, d), their states entering the tail, where they are at hand.
    """
    hidden = stage.hidden(inner) if hidden is None else hidden
    return inner_gradients(stage.base, stage.split, editor.sites, hidden, inner, n_requests)[0]


def request_updates(
    editor: MetaEditor, stage: Stage, gradients: Mapping[str, EditGradients], requests: Sequence[EditRequest]
) -> dict[str, LowRankUpdate]:
    """Let the editor turn b requests' gradients into updates; tell it what they say where it is conditioned on that.

    Raises:
        ValueError: it is, and there is not one request for each of the gradients.
    """
    return editor(gradients, conditions_of(stage.base, stage.answers, requests) if editor.conditioned else None)


def meta_loss(editor: MetaEditor, stage: Stage, batch: Batch, weights: LossWeights) -> MetaLoss:
    """Edit every request of a batch, each by itself, and measure what the edits did.

    Args:
        editor: the hypernetwork; its moments must have been started where it has any.
        stage: the frozen base, split below the first edited block.
        batch: b requests with their outer rows; tasks may be mixed.
        weights: the weights of the terms.

    Returns:
        The loss, ready for ``backward`` into the editor alone, and its parts.
    """
    n = len(batch.tasks)
    outer = batch.inner + batch.rephrase + batch.avoid
    inner_hidden, outer_hidden, local_hidden = stage.hidden_of(batch.inner, outer, batch.locality)
    gradients = request_gradients(editor, stage, batch.inner, n, inner_hidden)
    sums = editor.sums(gradients)
    updates = request_updates(editor, stage, gradients, batch.requests)
    del gradients  # each as large as an update: the outer passes need the room
    targets, row_request = outer.targets(stage.base.device), outer.request_index(stage.base.device)
    nll, best = nll_at(stage.split, edited_states(stage, updates, outer, outer_hidden), targets.label)
    # Rows come in this order, so the roles are slices.
    asked, wanted = sum(batch.inner.n_target), sum((batch.inner + batch.rephrase).n_target)
    edit = mean_of_means(nll[:wanted], targets.row[:wanted], row_request, n)
    unlikelihood = mean_of_means(unlikelihood_of(nll[wanted:]), targets.row[wanted:], row_request, n)

    local = batch.locality.targets(stage.base.device)
    local_request = batch.locality.request_index(stage.base.device)
    with torch.no_grad():
        before = edited_states(stage, {}, batch.locality, local_hidden)
    divergence, same = kl_at(stage.split, before, edited_states(stage, updates, batch.locality, local_hidden))
    kl = mean_of_means(divergence, local.row, local_request, n)
    loss = (weights.edit * (edit + weights.unlikelihood * unlikelihood) + weights.locality * kl).sum()

    with torch.no_grad():
        right = (best[:asked] == targets.label[:asked]).float()
        reliability = mean_of_means(right, targets.row[:asked], row_request, n)
        kept = mean_of_means(same.float(), local.row, local_request, n)
        norm = whole_norms(updates)
    return MetaLoss(
        loss=loss,
        edit=edit.detach(),
        unlikelihood=unlikelihood.detach(),
        locality=kl.detach(),
        reliability=reliability,
        kept=kept,
        update_norm=norm,
        sums=sums,
        n_tokens=batch.inner.n_tokens + outer.n_tokens + batch.locality.n_tokens,
    )


def edited_states(stage: Stage, updates: dict[str, LowRankUpdate], rows: Rows, hidden: Tensor | None = None) -> Tensor:
    """Return the states (m, d) that predict the rows' target tokens, each row under its request's edit."""
    hidden = stage.hidden(rows) if hidden is None else hidden
    with applied(stage.base.model, updates, rows.request_index(hidden.device)):
        states = stage.split.tail(hidden, rows.windows(hidden.device))
    return rows.targets(hidden.device).select(states)


@torch.no_grad()
def warm_up(editor: MetaEditor, stage: Stage, batches: Sequence[Batch]) -> None:
    """Start the editor's moments from the gradients of a few batches, and calibrate its alphas.

    Scaling gradients to one norm changes the size of an editor's first updates. So that
    ``direction="site"`` and ``"none"`` start level, each site's alpha is multiplied by the ratio of
    the mean update norms the two give on these batches before any training.

    Args:
        editor: a new editor; one that has no moments, or whose moments have started, is left alone.
        stage: the split base.
        batches: batches of training data, the first few steps' for instance.
    """
    if editor.started or not isinstance(editor, HyperEditor):
        return
    collected = [request_gradients(editor, stage, batch.inner, len(batch.tasks)) for batch in batches]
    _start(editor, collected)
    if editor.config.direction == "none":
        return
    plain = HyperEditor(editor.sites, type(editor.config)(rank=1, alpha_init=editor.config.alpha_init))
    plain.to(editor.alpha.device)
    _start(plain, collected)
    ratios = _first_norms(plain, collected) / _first_norms(editor, collected).clamp_min(1e-30)
    editor.rescale_alphas(ratios)


def _start(editor: HyperEditor, collected: Sequence[dict[str, EditGradients]]) -> None:
    for gradients in collected:
        editor.merge(editor.sums(gradients))


def _first_norms(editor: HyperEditor, collected: Sequence[dict[str, EditGradients]]) -> Tensor:
    """Mean norm (n_sites,) of the updates over all requests."""
    norms = [torch.stack([update.norms() for update in editor(g).values()]) for g in collected]
    return torch.cat(norms, 1).mean(1)
