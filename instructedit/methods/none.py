"""The base as it is: the row every table starts with. Knows nothing; it edits nothing."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

from torch import LongTensor

from instructedit.base.model import Base
from instructedit.metatrain import Stage
from instructedit.methods.base import some
from instructedit.records import EditRequest


class NoEdit:
    """A method whose edits change nothing.

    Args:
        name: the row of the table.
    """

    def __init__(self, name: str = "Base") -> None:
        self.name = name

    def first_block(self, base: Base) -> int:
        """Return the last block: no block is touched, and this is the latest a base can be split before."""
        return base.n_blocks - 1

    def stage_for(self, base: Base) -> Stage:
        """Return the base split before its last block."""
        return Stage.for_evaluation(base, self.first_block(base))

    def edit(self, base: Base, requests: Sequence[EditRequest]) -> "Unedited":
        """Return an edit that does nothing.

        Raises:
            InputError: the list of requests is empty.
        """
        some(requests)
        return Unedited()


class Unedited:
    """An edit that leaves the base alone."""

    def applied(self, rows: LongTensor | None = None) -> AbstractContextManager[None]:
        """Do nothing inside the block."""
        return nullcontext()
