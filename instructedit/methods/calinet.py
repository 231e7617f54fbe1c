"""CaliNet: calibration slots added beside one block's MLP, trained on the request and paraphrases of our own.

Dong et al. 2022 (arXiv 2210.03329): MLP'(x) = MLP(x) + act(x K^T) V, where only K and V are trained. Knows
nothing about the texts that score an edit: its paraphrases come from rules and the request alone.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import LongTensor, Tensor
from transformers.activations import ACT2FN

from instructedit.base.model import Base
from instructedit.data.paraphrase import rewordings
from instructedit.data.rows import Rows
from instructedit.data.tokenise import tokenise
from instructedit.hooks import replace
from instructedit.metatrain import Stage
from instructedit.methods.base import some
from instructedit.methods.iterative import Optimised, at_least, chosen_block, optimise, optimise_together
from instructedit.records import EditRequest
from instructedit.tasks.choice import stable_hash, stable_sample


@dataclass(frozen=True)
class SlotEdit:
    """The b requests' slots beside the MLP of one block: keys (b, slots, d), values (b, slots, d), in fp32."""

    base: Base
    block: int
    keys: Tensor
    values: Tensor

    def applied(self, rows: LongTensor | None = None) -> AbstractContextManager[None]:
        """Let the base compute with the slots inside the block; see ``methods.base.Edit``."""
        keys, values = self.keys, self.values
        if rows is None:  # all slots side by side: their contributions add up
            keys, values = keys.flatten(0, 1).unsqueeze(0), values.flatten(0, 1).unsqueeze(0)
        act: Callable[[Tensor], Tensor] = ACT2FN[getattr(self.base.model.config, self.base.adaptor.activation)]

        def function(x: Tensor, y: Tensor) -> Tensor:
            # Not in a narrow base's dtype, whose rounding would stop values from learning small steps.
            own_keys, own_values = (keys, values) if rows is None else (keys[rows], values[rows])
            return y + (act(x.to(keys.dtype) @ own_keys.transpose(1, 2)) @ own_values).to(y.dtype)

        return replace(
            self.base.model, {f"{self.base.adaptor.block_path(self.block)}.{self.base.adaptor.mlp}": function}
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return keys and values."""
        return {"keys": self.keys, "values": self.values}

    def settings(self) -> dict[str, Any]:
        """Return the block."""
        return {"block": self.block}

    @classmethod
    def from_tensors(cls, base: Base, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> "SlotEdit":
        """Make the edit again from what ``tensors`` and ``settings`` gave."""
        return cls(base, int(settings["block"]), tensors["keys"], tensors["values"])


@dataclass(frozen=True)
class CaliNet:
    """Adds slots to one MLP and trains them with Adam on all target tokens.

    Published settings (the public code, T5-base, 100 facts at once): 64 slots in the last decoder block, a constant
    learning rate of 1e-2 with Adafactor, 5,000 steps on several paraphrases of each fact. Here every request has
    slots of its own, so far fewer steps are enough; ``edit_together`` is the published case of one set for all.
    The texts a request wants avoided are not used.

    Args:
        name: the row of the table.
        block: the block whose MLP gets the slots; None takes the last.
        slots: how many.
        paraphrases: rewordings of the prompt learnt beside it, chosen by a stable hash; the request's instruction is
            put in front of them too. There may be fewer: see ``data.paraphrase``.
        lr: Adam's learning rate.
        steps: the most steps.
        stop_at: no further step once the loss is below this; None never stops early.
        seed: varies the first keys, which also depend on the request but on nothing beside it.
        at_once: requests optimised in one batch; bounds the memory, and changes no result.
    """

    name: str = "CaliNet"
    block: int | None = None
    slots: int = 64
    paraphrases: int = 2
    lr: float = 2e-3
    steps: int = 25
    stop_at: float | None = 0.5
    seed: int = 0
    at_once: int = 8
    _stages: dict[int, Stage] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        at_least(1, slots=self.slots, steps=self.steps, at_once=self.at_once)
        at_least(0, paraphrases=self.paraphrases, lr=self.lr, stop_at=self.stop_at)

    def first_block(self, base: Base) -> int:
        """Return the block that gets the slots."""
        return chosen_block(base, self.block, base.n_blocks - 1)

    def stage_for(self, base: Base) -> Stage:
        """Return the base split before that block; made once and kept."""
        if id(base) not in self._stages:  # a stage holds its base, so no other base can get this id
            self._stages[id(base)] = Stage.for_evaluation(base, self.first_block(base))
        return self._stages[id(base)]

    def edit(self, base: Base, requests: Sequence[EditRequest]) -> SlotEdit:
        """Train slots for each request by itself; several wanted texts are learnt side by side.

        Raises:
            InputError: the list is empty, a text is longer than the context, the base has no such block.
        """
        some(requests)
        groups = [requests[start : start + self.at_once] for start in range(0, len(requests), self.at_once)]
        with torch.inference_mode(False):
            trained = [self._trained(base, group, [[request] for request in group], optimise) for group in groups]
            keys, values = (torch.cat(tensors) for tensors in zip(*trained, strict=True))
            return SlotEdit(base, self.first_block(base), keys, values)

    def edit_together(self, base: Base, requests: Sequence[EditRequest]) -> SlotEdit:
        """Train one set of slots on all requests at once: their losses' mean.

        Raises:
            InputError: as for ``edit``.
        """
        some(requests)
        with torch.inference_mode(False):
            by = partial(optimise_together, at_once=self.at_once)
            return SlotEdit(base, self.first_block(base), *self._trained(base, requests, [requests], by))

    def texts(self, request: EditRequest) -> tuple[str, ...]:
        """Return the inputs learnt for a request: its own first, then the paraphrases; instruction in front of each."""
        made = rewordings(request.prompt, request.subject) if request.prompt.strip() else ()
        chosen = stable_sample(made, self.paraphrases, "calinet", request.id, request.prompt)
        return tuple(request.instruction + prompt for prompt in (request.prompt, *chosen))

    def _trained(
        self,
        base: Base,
        requests: Sequence[EditRequest],
        owners: Sequence[Sequence[EditRequest]],
        by: Callable[..., Optimised],
    ) -> tuple[Tensor, Tensor]:
        """Return keys and values (b, slots, d), one entry for each of b owners: the requests that share it."""
        rows = Rows.of(
            (index, tokenise(base.tokenizer, text, target, base.max_tokens))
            for index, request in enumerate(requests)
            for text in self.texts(request)
            for target in request.targets
        )
        keys = torch.stack([self._first_keys(base, owner) for owner in owners])
        values = torch.zeros_like(keys)  # so that the edit starts as nothing
        block = self.first_block(base)

        def run(parameters: Sequence[Tensor], entry: LongTensor) -> AbstractContextManager[None]:
            return SlotEdit(base, block, *parameters).applied(entry)

        adam = partial(torch.optim.Adam, lr=self.lr)
        by(self.stage_for(base), rows, [keys, values], run, adam, steps=self.steps, stop_at=self.stop_at)
        return keys, values

    def _first_keys(self, base: Base, requests: Sequence[EditRequest]) -> Tensor:
        """Draw keys (slots, d) on which a state of unit variance has a product of unit variance."""
        parts = [part for request in requests for part in (request.id, request.prompt, request.target)]
        # On the CPU, whose numbers are the same on every machine.
        generator = torch.Generator().manual_seed(stable_hash("calinet", str(self.seed), *parts) >> 1)
        return (torch.randn(self.slots, base.d_model, generator=generator) * base.d_model**-0.5).to(base.device)
