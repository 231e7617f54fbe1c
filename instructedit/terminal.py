r"""Texts from outside on a terminal: names and messages without control characters, paths in commands to be copied.

Knows characters and a shell's quotes, nothing of what the texts are about.
"""

import shlex
import unicodedata
from pathlib import Path

_INVISIBLE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Kinds of characters a terminal obeys, hides or cannot write; a byte of a name that is no UTF-8 is one of them."""


def shown(text: object) -> str:
    r"""A text in one line, in which what a terminal would obey, hide or cannot write is spelled out.

    >>> shown("a\x1b[31m\nb"), shown(os.fsdecode(b"caf\xe9")), shown("café")
    ('a\\x1b[31m\\nb', 'caf\\xe9', 'café')
    """
    given = str(text)
    return given if given.isprintable() else "".join(map(_spelled, given))


def _spelled(sign: str) -> str:
    if unicodedata.category(sign) not in _INVISIBLE:
        return sign
    if "\udc80" <= sign <= "\udcff":  # how Python holds a byte that is no UTF-8
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode("ascii")


def quoted(path: str | Path) -> str:
    r"""A path as one word of a shell's command line, for commands that are printed to be copied.

    >>> quoted("runs/a"), quoted("runs/$(x) y"), quoted("-x"), quoted("a\nb")
    ('runs/a', "'runs/$(x) y'", './-x', "$'a\\x0ab'")
    """
    text = str(path)
    text = f"./{text}" if text.startswith("-") else text
    if shown(text) == text == " ".join(text.split()):  # an error's message folds spaces
        return shlex.quote(text)
    plain = (chr(byte) if 32 < byte < 127 and chr(byte) not in "'\\" else f"\\x{byte:02x}" for byte in _bytes(text))
    return f"$'{''.join(plain)}'"


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", errors="surrogateescape")
