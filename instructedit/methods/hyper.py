"""KE, MEND and InstructEdit as methods: a trained hypernetwork turns each request's gradient into an update.

InstructEdit alone puts an instruction of its pools in front of a request; KE alone reads the request's text.
Knows nothing about how the hypernetwork was trained, or where it was loaded from.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import LongTensor, Tensor

from instructedit.base.model import Base
from instructedit.checkpoints import load_editor
from instructedit.data.rows import Rows
from instructedit.data.tokenise import tokenise
from instructedit.errors import MismatchError
from instructedit.hypernet.face import MetaEditor
from instructedit.instructions.pools import InstructionPool, pool_for
from instructedit.instructions.rendering import seen_instruction
from instructedit.lowrank import LowRankUpdate, applied
from instructedit.metatrain import Stage, request_gradients, request_updates
from instructedit.methods.base import some
from instructedit.records import EditRequest


@dataclass(frozen=True)
class HyperEdit:
    """What the hypernetwork returned: per site the b requests' low-rank updates, u (b, r, d_in), v (b, r, d_out)."""

    base: Base
    updates: dict[str, LowRankUpdate]

    def applied(self, rows: LongTensor | None = None) -> AbstractContextManager[None]:
        """Let the base compute with the updates inside the block; see ``methods.base.Edit``."""
        return applied(self.base.model, self.updates, rows)

    def tensors(self) -> dict[str, Tensor]:
        """Everything the edit computes with: ``u/<site>`` and ``v/<site>``."""
        return {f"{part}/{name}": getattr(update, part) for name, update in self.updates.items() for part in "uv"}

    def settings(self) -> dict[str, Any]:
        """Return what it needs besides: nothing."""
        return {}

    @classmethod
    def from_tensors(cls, base: Base, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> Self:
        """Make the edit again from its ``tensors``."""
        names = [name.removeprefix("u/") for name in tensors if name.startswith("u/")]
        return cls(base, {name: LowRankUpdate(tensors[f"u/{name}"], tensors[f"v/{name}"]) for name in names})


class HyperMethod:
    """A meta-trained editor as a method.

    Args:
        editor: the hypernetwork, on the base's device.
        stage: the base it was trained on, split at or below the editor's first site.
        name: the row of the table.
        pools: the instruction pools; None for an editor without instructions (MEND, KE).
    """

    def __init__(
        self,
        editor: MetaEditor,
        stage: Stage,
        name: str,
        pools: Mapping[str, InstructionPool] | None = None,
    ) -> None:
        self.editor = editor
        self.stage = stage
        self.name = name
        self.pools = pools

    @classmethod
    def load(cls, folder: Path | str, base: Base) -> "HyperMethod":
        """Load an editor folder, with its instruction pools, on the base it was trained on.

        Raises:
            InputError: the folder is missing or malformed.
            MismatchError: the editor was trained on another base.
        """
        editor, card = load_editor(Path(folder), base)
        return cls(
            editor, Stage.for_evaluation(base, min(site.block for site in editor.sites)), card.method, card.pools
        )

    def first_block(self, base: Base) -> int:
        """Return the block of the editor's first site."""
        return min(site.block for site in self.editor.sites)

    def stage_for(self, base: Base) -> Stage:
        """Return the stage the method was made with."""
        return self.stage

    def edit(self, base: Base, requests: Sequence[EditRequest]) -> HyperEdit:
        """Edit each request in, independently of the others.

        A request without an instruction gets the seen one of its task's pool, where the method has pools.

        Raises:
            InputError: the list is empty, a text is longer than the context, a task has no pool.
            MismatchError: ``base`` is not the one the method was made for.
        """
        if base is not self.stage.base:
            raise MismatchError(
                f"{self.name} was made for base {self.stage.base.name!r} and is asked to edit {base.name!r}. "
                "Load the editor on that base."
            )
        instructed = [self.instructed(request) for request in some(requests)]
        rows = Rows.of(
            (index, tokenise(base.tokenizer, request.text, target, base.max_tokens))
            for index, request in enumerate(instructed)
            for target in request.targets
        )
        # A trainer validates in inference mode, whose tensors no gradient can be taken through.
        with torch.inference_mode(False), torch.no_grad():
            gradients = request_gradients(self.editor, self.stage, rows, len(requests))
            return HyperEdit(base, request_updates(self.editor, self.stage, gradients, instructed))

    def bare(self) -> "HyperMethod":
        """Return the method without its pools: a request without an instruction is edited in as it is."""
        return HyperMethod(self.editor, self.stage, self.name)

    def instructed(self, request: EditRequest) -> EditRequest:
        """Return the request as it is edited in: with the seen instruction of its task's pool where it has none.

        Raises:
            InputError: the task has no pool, or its instruction lacks a slot.
        """
        if self.pools is None or request.instruction:
            return request
        return replace(request, instruction=seen_instruction(pool_for(self.pools, request.task), request))
