"""The analysis ``gradients``: the tasks' editing gradients by editor and site, embedded and told apart."""

from collections.abc import Sequence

from instructedit.errors import InputError


def gradients(argv: Sequence[str]) -> None:
    """Measure and draw what the flags ask for; see ``instructedit analyse gradients --help``."""
    raise InputError("analyse gradients is not there yet.")
