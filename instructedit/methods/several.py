"""Many requests in one base: all together, or one after another, with any method.

A method that knows better (``EditsTogether``, ``EditsInSequence``) is asked; for any other, changes
add up. Knows the verb only, not how a method edits.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from torch import LongTensor

from instructedit.base.model import Base
from instructedit.methods.base import Edit, EditMethod, EditsInSequence, EditsTogether, some
from instructedit.records import EditRequest


@dataclass(frozen=True)
class Stacked:
    """Edits made one after another, each on the base as the earlier ones left it."""

    edits: tuple[Edit, ...]

    def applied(self, rows: LongTensor | None = None) -> AbstractContextManager[None]:
        """Let the base compute with all edits inside the block; ``rows`` must be None: there is one state."""
        if rows is not None:
            raise ValueError("Edits made in sequence have one state for all rows; apply them without rows.")
        stack = ExitStack()
        try:
            for edit in self.edits:
                stack.enter_context(edit.applied())
        except BaseException:
            stack.close()
            raise
        return stack  # type: ignore[return-value]  # a context manager whose value nobody uses


def edit_together(method: EditMethod, base: Base, requests: Sequence[EditRequest]) -> Edit:
    """Edit all requests in at once; apply the result without rows.

    Raises:
        InputError: the list of requests is empty.
    """
    if isinstance(method, EditsTogether):
        return method.edit_together(base, some(requests))
    return method.edit(base, requests)


def edit_in_sequence(method: EditMethod, base: Base, requests: Sequence[EditRequest]) -> Edit:
    """Edit the requests in one after another, each on the base as the earlier ones left it.

    Raises:
        InputError: the list of requests is empty.
    """
    if isinstance(method, EditsInSequence):
        edit: Edit | None = None
        for request in some(requests):
            edit = method.edit_next(base, edit, request)
        assert edit is not None
        return edit
    edits: list[Edit] = []
    with ExitStack() as earlier:
        for request in some(requests):
            edits.append(method.edit(base, [request]))
            earlier.enter_context(edits[-1].applied())
    return Stacked(tuple(edits))
