"""FT-L: constrained fine-tuning of one block's MLP output matrix on the request alone.

Meng et al. 2022 (ROME, arXiv 2202.05262, section 3.2 and appendix: "FT+L"; its public code), as Yao et al. 2023
(arXiv 2305.13172) and InstructEdit compare with it. ``objective="all"`` is FT-M (Zhang et al. 2024, arXiv 2401.01286).
Knows nothing about the texts that score an edit.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import get_args

import torch
from torch import LongTensor, Tensor

from instructedit.base.model import Base
from instructedit.base.sites import Site, SiteSpec, find_sites
from instructedit.data.rows import Rows
from instructedit.data.tokenise import tokenise
from instructedit.errors import InputError, unknown
from instructedit.metatrain import Stage
from instructedit.methods.base import some
from instructedit.methods.dense import DenseEdit, applied
from instructedit.methods.iterative import (
    Objective,
    Optimised,
    at_least,
    chosen_block,
    optimise,
    optimise_together,
)
from instructedit.records import EditRequest


@dataclass(frozen=True)
class FTL:
    """Fine-tunes dW of one matrix with Adam, brought back to |dW| <= norm_constraint after every step.

    Published settings (the public codes of ROME and of Yao et al.): lr 5e-4, 25 steps, no weight decay, and
    GPT2-XL block 0 with norm_constraint 5e-4, GPT-J block 0 with 5e-5, LLaMA-2-7B block 21 without a constraint.
    The texts a request wants avoided are not used: there is nothing in the method they could enter.

    Args:
        name: the row of the table.
        block: the block whose MLP output matrix is tuned; None takes the one at two thirds of the depth.
        objective: "prompt_last" learns the target's first token only, as the public codes do; "all" is FT-M.
        lr: Adam's learning rate.
        steps: the most steps.
        norm_constraint: the largest change of any weight, in the units of the base's own weights (one base's value is
            no guide to another's); None for no bound. Adam alone moves a weight by about lr * steps at most.
        weight_decay: Adam's; it draws dW to zero, not the weight itself.
        stop_at: no further step once the loss is below this; None never stops early.
        at_once: requests optimised in one batch; bounds the memory, and changes no result.
    """

    name: str = "FT-L"
    block: int | None = None
    objective: Objective = "prompt_last"
    lr: float = 5e-4
    steps: int = 25
    norm_constraint: float | None = 5e-4
    weight_decay: float = 0.0
    stop_at: float | None = 1e-2
    at_once: int = 8
    _stages: dict[int, Stage] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.objective not in get_args(Objective):
            raise unknown("objective", self.objective, get_args(Objective))
        at_least(1, steps=self.steps, at_once=self.at_once)
        at_least(0, lr=self.lr, weight_decay=self.weight_decay, stop_at=self.stop_at)
        if self.norm_constraint is not None and not self.norm_constraint > 0:
            raise InputError(f"norm_constraint must be above 0; found {self.norm_constraint}. None is no bound.")

    def first_block(self, base: Base) -> int:
        """Return the block whose matrix is tuned."""
        return chosen_block(base, self.block, base.n_blocks * 2 // 3)

    def stage_for(self, base: Base) -> Stage:
        """Return the base split before that block; made once and kept."""
        if id(base) not in self._stages:  # a stage holds its base, so no other base can get this id
            self._stages[id(base)] = Stage.for_evaluation(base, self.first_block(base))
        return self._stages[id(base)]

    def edit(self, base: Base, requests: Sequence[EditRequest]) -> DenseEdit:
        """Fine-tune for each request by itself; several wanted texts are learnt side by side.

        Raises:
            InputError: the list is empty, a text is longer than the context, the base has no such block.
        """
        some(requests)
        groups = [requests[start : start + self.at_once] for start in range(0, len(requests), self.at_once)]
        return self._edit(base, [(self._rows(base, group), len(group)) for group in groups], optimise)

    def edit_together(self, base: Base, requests: Sequence[EditRequest]) -> DenseEdit:
        """Fine-tune one dW on all requests at once: their losses' mean.

        Raises:
            InputError: as for ``edit``.
        """
        rows = self._rows(base, some(requests))
        return self._edit(base, [(rows, 1)], partial(optimise_together, at_once=self.at_once))

    def _edit(self, base: Base, groups: Sequence[tuple[Rows, int]], by: Callable[..., Optimised]) -> DenseEdit:
        site = self._site(base)
        with torch.inference_mode(False):
            changes = [self._tuned(base, site, rows, n, by) for rows, n in groups]
            return DenseEdit(base, {site.name: torch.cat(changes)})

    def _tuned(self, base: Base, site: Site, rows: Rows, n: int, by: Callable[..., Optimised]) -> Tensor:
        """Return n changes (n, d_in, d_out)."""
        change = torch.zeros(n, site.d_in, site.d_out, device=base.device)

        def run(parameters: Sequence[Tensor], entry: LongTensor) -> AbstractContextManager[None]:
            return applied(base.model, {site.name: parameters[0]}, entry)

        def project() -> None:
            if self.norm_constraint is not None:
                change.clamp_(-self.norm_constraint, self.norm_constraint)

        by(
            self.stage_for(base),
            rows,
            [change],
            run,
            partial(torch.optim.Adam, lr=self.lr, weight_decay=self.weight_decay),
            steps=self.steps,
            objective=self.objective,
            stop_at=self.stop_at,
            project=project,
        )
        return change

    def _site(self, base: Base) -> Site:
        block = self.first_block(base)
        return find_sites(base, SiteSpec(names=(f"{base.adaptor.block_path(block)}.{base.adaptor.matrices[-1]}",)))[0]

    def _rows(self, base: Base, requests: Sequence[EditRequest]) -> Rows:
        return Rows.of(
            (index, tokenise(base.tokenizer, request.text, target, base.max_tokens))
            for index, request in enumerate(requests)
            for target in request.targets
        )
