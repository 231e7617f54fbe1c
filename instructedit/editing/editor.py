"""A trained editor, ready to edit its base: the first thing a user loads.

Knows editor folders, bases and requests; how an update is made, the methods know.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Literal, get_args

import torch

from instructedit import hub
from instructedit.base.checkpoint_files import is_path
from instructedit.base.loading import load_base
from instructedit.base.model import Base
from instructedit.checkpoints import EditorCard, read_card, weights_hash
from instructedit.editing.about import told_of_editor
from instructedit.editing.edit import Edit, named_dtype
from instructedit.editing.limits import Limits
from instructedit.errors import InputError, unknown
from instructedit.instructions.pools import InstructionPool, pool_for
from instructedit.instructions.rendering import PLACEHOLDER, framed
from instructedit.lowrank import whole_norms
from instructedit.methods.base import some
from instructedit.methods.hyper import HyperMethod
from instructedit.records import EditRequest

How = Literal["together", "sequence"]
"""``together``: every request by itself on the base as it is, then all changes added up. ``sequence``: each on the
base as the earlier ones left it."""


class Editor:
    """A meta-trained editor (InstructEdit, MEND or KE) on the base it was trained on; ``Editor.load`` makes one.

    Attributes:
        method: the editor as a method.
        card: what it is and where it comes from.
        base: its base.
        limits: what its validation saw; None where the card does not say.
        weights_sha256: of its file of weights; empty where it was not loaded from one.
    """

    def __init__(self, method: HyperMethod, card: EditorCard, weights_sha256: str = "") -> None:
        self.method = method
        self.card = card
        self.base: Base = method.stage.base
        self.limits = Limits.of(card.results)
        self.weights_sha256 = weights_sha256
        self._told = told_of_editor(card, weights_sha256)

    @classmethod
    def load(
        cls,
        editor: Path | str,
        base: Base | Path | str | None = None,
        *,
        dtype: torch.dtype | None = None,
        device: str | torch.device = "cpu",
        revision: str | None = None,
    ) -> "Editor":
        """Load an editor and, where it is not given, its base.

        Args:
            editor: the folder that `instructedit fit` made, or an editor's id on the Hub.
            base: the base it was trained on: loaded, or its name or folder; None loads the one its card names.
            dtype: of a base that is loaded here; None takes the one the editor was trained on.
            device: where a base that is loaded here goes.
            revision: a commit, branch or tag, for an editor on the Hub.

        Raises:
            InputError: there is no such editor or base, or a file is malformed.
            MismatchError: the editor was trained on another base.
        """
        folder = editor_folder(editor, revision)
        card = read_card(folder)
        if not isinstance(base, Base):
            base = load_base(str(base or card.base), dtype or named_dtype(card.dtype), device)
        return cls(HyperMethod.load(folder, base), card, weights_hash(folder))

    def task_of(self, request: EditRequest) -> str:
        """Return the task whose instruction a request gets: its own, else the first of the editor's that fits any fact.

        Empty for an editor that takes no instructions.

        Raises:
            InputError: the request has no task, and the editor none that needs no slots.
        """
        if request.task or self.card.pools is None:
            return request.task
        known = [task for task in (*self.card.tasks, *self.card.pools) if _has_pool(self.card.pools, task)]
        for task in known:
            if not any(PLACEHOLDER.search(text) for text in pool_for(self.card.pools, task).seen):
                return task
        raise InputError(f"Which task is the edit of? Name one of the editor's: {', '.join(known) or 'it has none'}.")

    def instructed(self, request: EditRequest, instruction: str = "") -> EditRequest:
        """Return a request as it is edited in: with its task, and with the instruction put before its prompt.

        Args:
            request: one that has an instruction already is left alone.
            instruction: a description in your own words, put into the frame the editor knows; empty for one of its
                task's pool.

        Raises:
            InputError: the prompt or the target is empty, the task has no pool, a slot is missing, or the editor takes
                no instructions.
        """
        if not request.prompt.strip():
            raise InputError("A request's prompt is empty. Give the question or the start of the sentence to answer.")
        if not request.target.strip():
            raise InputError(f"Empty target for the prompt {request.prompt[:60]!r}: give the answer to edit in.")
        if instruction and self.card.pools is None:
            raise InputError(f"{self.card.method} takes no instructions. Leave the instruction out.")
        request = replace(request, task=self.task_of(request))
        if instruction and self.card.pools is not None and not request.instruction:
            if not instruction.strip():
                raise InputError("The instruction is empty. Describe the edit in a sentence, or leave it out.")
            label = pool_for(self.card.pools, request.task).label
            request = replace(request, instruction=framed(label, " ".join(instruction.split())))
        return self.method.instructed(request)

    def edit(
        self,
        requests: EditRequest | Sequence[EditRequest],
        how: How = "together",
        after: Edit | None = None,
        instruction: str = "",
    ) -> Edit:
        """Edit requests in and return the edit; the base stays as it is.

        Args:
            requests: one, or several.
            how: on what base each is made, see ``How``.
            after: an edit that is there already: the new ones are made on the base as it leaves it, and the edit
                returned holds all.
            instruction: a description in your own words, for requests without an instruction of their own.

        Raises:
            InputError: there is no request, a text is empty or too long, a task is unknown, or an update is not finite.
        """
        if how not in get_args(How):
            raise unknown("way of editing", how, get_args(How))
        given = [requests] if isinstance(requests, EditRequest) else some(list(requests))
        ready = [self.instructed(request, instruction) for request in given]
        if after is not None:
            self._check_sites(after)
        if how == "together" or len(ready) == 1:
            made = self._made(ready, after)
            return made if after is None else after.merge(made)
        for request in ready:
            made = self._made([request], after)
            after = made if after is None else after.merge(made)
        assert after is not None
        return after

    def _made(self, requests: Sequence[EditRequest], after: Edit | None) -> Edit:
        with nullcontext() if after is None else after.applied():
            updates = self.method.edit(self.base, requests).updates
        norms = tuple(whole_norms(updates).tolist())
        for request, norm in zip(requests, norms, strict=True):
            if not math.isfinite(norm):
                raise InputError(
                    f"The update for {request.prompt[:60]!r} is not finite: the editor is broken, or was trained on "
                    "another kind of request. Use another editor, or train it again."
                )
        return Edit(self.base, updates, tuple(requests), norms, self._told)

    def _check_sites(self, after: Edit) -> None:
        """Refuse an edit below this editor's blocks: the states it starts from are those of the unedited base."""
        first = self.method.first_block(self.base)
        blocks = [self.base.adaptor.block_path(block) for block in range(first)]
        below = [name for name in after.updates if any(name.startswith(f"{path}.") for path in blocks)]
        if below:
            raise InputError(
                f"The earlier edit changes {below[0]}, below the first block ({first}) of this editor. Make this one "
                "first, or join two that were made apart with merge."
            )


def editor_folder(editor: Path | str, revision: str | None = None) -> Path:
    """Return an editor's folder: one that is there, or one fetched from the Hub.

    Raises:
        InputError: it is neither.
    """
    path = Path(editor).expanduser()
    if path.is_dir():
        return path
    if isinstance(editor, Path) or path.exists() or is_path(str(editor)) or not str(editor):
        raise InputError(
            f"No editor at {str(editor)!r}. Name the folder that `instructedit fit` made, such as runs/demo/editor, "
            "or an editor's id on the Hub."
        )
    return hub.editor_folder(str(editor), revision)


def _has_pool(pools: Mapping[str, InstructionPool], task: str) -> bool:
    try:
        pool_for(pools, task)
    except InputError:
        return False
    return True
