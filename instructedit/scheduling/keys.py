"""Keys and tokens where job scripts would show them: names of variables that hold one, and texts that give one.

Knows names and forms, no services. Messages never hold the value.
"""

import re
from collections.abc import Iterator

from instructedit.errors import InputError

_NAME = re.compile(
    r"(TOKEN|SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIALS?|API_?KEY|ACCESS_?KEY|(^|_)(KEY|PAT)|_PWD)"
    r"(_(ID|VALUE|\d+))?$",
    re.IGNORECASE,
)
"""The last word counts: HF_TOKEN_PATH names a file, TOKENIZERS_PARALLELISM no token, and KEYBOARD no key."""

_GIVEN = re.compile(r"(?<![A-Za-z0-9_-])([A-Za-z_][A-Za-z0-9_]*)=(\"\"|''|[\"']?[^\s\"',;]?)")
"""An assignment, and the first character of its value."""

_FORMS = re.compile(
    r"\bhf_[A-Za-z0-9]{20,}|\bgh[pousr]_[A-Za-z0-9]{20,}|\bgithub_pat_\w{20,}|\bsk-[A-Za-z0-9_-]{20,}"
    r"|\bwandb_v\d_\w{20,}|\bwandb\s+login\b[^#]*\s[A-Za-z0-9_-]{40,}"
)


def names_key(name: str) -> bool:
    """Whether a variable of this name holds a key.

    >>> [names_key(name) for name in ("WANDB_API_KEY", "GITHUB_PAT", "AWS_ACCESS_KEY_ID", "KEYBOARD", "HF_TOKEN_PATH")]
    [True, True, True, False, False]
    """
    return _NAME.search(name) is not None


def check_text(text: str, source: str) -> None:
    """Refuse a text of a script that gives a key, in an assignment or as it is; one that is read from a file may stand.

    Args:
        text: an option or a line of shell.
        source: where it stands, for the message.

    Raises:
        InputError: names the variable, never the value.
    """
    named = next(_given(text), None)
    if named or _FORMS.search(text):
        what = f"gives {named} a value" if named else "holds what looks like a key"
        raise InputError(f"{source} {what}, and {_ADVICE}")


def check_name(name: str, source: str) -> None:
    """Refuse a variable whose name says that it holds a key.

    Raises:
        InputError: names it.
    """
    if names_key(name):
        raise InputError(f"{source} sets {name}, and {_ADVICE}")


_ADVICE = (
    "job scripts are no place for keys. Export it in the shell you submit from (SLURM passes it on), or read it from a "
    "file of yours in `setup`."
)


def _given(text: str) -> Iterator[str]:
    """The variables for keys that get a plain value; ``$(cat FILE)`` and ``$OTHER`` are none."""
    for found in _GIVEN.finditer(text):
        value = found[2].strip("\"'")
        if names_key(found[1]) and value not in ("", "$", "`"):
            yield found[1]
