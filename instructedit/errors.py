"""Errors a person can act on: what is wrong, what was found, what to do.

The command line prints an ``InputError`` as one line and exits with status 2; anything else is a
fault of ours and keeps its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Bad input from outside: a name, a file, a record, a configuration.

    The message is one line (line breaks inside it are folded) and says what is wrong, what was
    found and what to do.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


class MismatchError(InputError):
    """Two things that must belong together do not: an editor and a base, a run and its config."""


class NonFiniteError(InputError):
    """Training met non-finite losses or gradients too many times in a row."""


def unknown(what: str, found: str, known: Iterable[str], advice: str = "") -> InputError:
    """Build the error for a name that does not exist, naming what does and the nearest match.

    Args:
        what: the kind of thing, for instance ``"task"``.
        found: the name that was given.
        known: the names that exist.
        advice: a last sentence, where choosing another name is not the only way out.
    """
    names = sorted(known)
    near = get_close_matches(found, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return InputError(f"Unknown {what} {found!r}.{hint} Known: {', '.join(names) or 'none'}. {advice}")
