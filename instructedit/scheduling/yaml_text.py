"""YAML as the real parser has it, which knows ``1e-3`` as a number: read, and written so that it reads the same."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import get_loader

from instructedit.errors import InputError
from instructedit.scheduling.values import control_characters

SHOWN = 200
"""Characters of a text that a message repeats."""


def as_yaml(content: Mapping[str, Any]) -> str:
    """Settings as a file that the parser reads back as they are."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def parsed(text: str) -> Any:
    """A value as the parser reads it from YAML.

    >>> parsed("1e-3"), parsed("[a, 2]"), parsed("a: b: c")
    (0.001, ['a', 2], 'a: b: c')
    """
    if not text.strip():
        return text
    try:
        return get_loader("yaml")(text)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):  # TypeError: of "1:", whose key is no text
        return text


def inline_or_file(text: str) -> Any:
    """The content of a file, or of a text that is YAML itself.

    Raises:
        InputError: there is no such file, or it holds no settings.
    """
    path = Path(text)
    try:
        if not _is_file(path):
            content = parsed(text)
            if isinstance(content, Mapping):
                return content
            raise InputError(f"No configuration at {_short(text)!r}: there is no such file.")
        content = get_loader("yaml")(path.read_text(encoding="utf-8"))
        told = str(content)[:60]  # as deep as what is done with it later
    except RecursionError as error:
        raise InputError(f"The configuration {text} cannot be read: its brackets are too deep. Correct it.") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"The configuration {text} cannot be read: {error}") from error
    if not isinstance(content, Mapping):
        raise InputError(f"{text} holds no settings: {told!r}. Give a YAML file of settings.")
    return content


def _short(text: str) -> str:
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # longer than a name can be, or with a null character: YAML itself
        return False


class _Dumper(yaml.SafeDumper):
    """Quotes every text that the parser's own YAML, which knows ``1e-3``, would read as a number."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    # Single quotes would lose line breaks that are not \n.
    style = '"' if control_characters(text) else "'" if not isinstance(parsed(text), str) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style)


_Dumper.add_representer(str, _represent_text)
