"""The one verb every method has, and what it returns.

Knows nothing about how a method edits. A method never changes the base: it returns an ``Edit``, and
leaving ``applied`` gives the base back bit for bit.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

from torch import LongTensor

from instructedit.base.model import Base
from instructedit.errors import InputError
from instructedit.metatrain import Stage
from instructedit.records import EditRequest


class Edit(Protocol):
    """What a method returns for a list of requests."""

    def applied(self, rows: LongTensor | None = None) -> AbstractContextManager[None]:
        """Let the base compute with the edit inside the block.

        Args:
            rows: (n,), which request's edit sequence n of the coming batches sees; None: all of
                them at once.
        """
        ...


class EditMethod(Protocol):
    """A way to edit a base."""

    name: str

    def first_block(self, base: Base) -> int:
        """Return the first block an edit may touch; states entering it are the same for every edit."""
        ...

    def stage_for(self, base: Base) -> Stage:
        """Return the base split at or below ``first_block``, with the store the method itself reads from."""
        ...

    def edit(self, base: Base, requests: Sequence[EditRequest]) -> Edit:
        """Edit each request in, independently of the others."""
        ...


@runtime_checkable
class EditsTogether(Protocol):
    """A method that can find one change for many requests at once, better than the sum of their own changes."""

    def edit_together(self, base: Base, requests: Sequence[EditRequest]) -> Edit:
        """Edit all requests in with one shared change; the edit is used with ``applied()``, without rows."""
        ...


@runtime_checkable
class EditsInSequence(Protocol):
    """A method that keeps what earlier edits left, so that a later edit has to know them."""

    def edit_next(self, base: Base, before: Edit | None, request: EditRequest) -> Edit:
        """Edit one more request in after ``before`` (None for the first); the result holds all of them.

        ``before`` is left as it is.
        """
        ...


def some(requests: Sequence[EditRequest]) -> Sequence[EditRequest]:
    """Return the requests, or refuse an empty list."""
    if not requests:
        raise InputError("No request to edit in: the list is empty. Give at least one EditRequest(prompt, target).")
    return requests
