"""YAML documents of a file or of a folder's files: how pools and cards of tasks lie on disk."""

from pathlib import Path

import yaml

from instructedit.errors import InputError

CHECKOUT = Path(__file__).resolve().parents[2]


def documents(source: str | Path, what: str, such_as: str) -> list[tuple[Path, object]]:
    """Read the documents of a YAML file, or of every ``*.yaml`` in a folder, each with its file; empty ones left out.

    A relative path that does not exist is also looked for below the repository this package runs from, so that a
    default works from any directory.

    Args:
        source: the file or folder.
        what: what they are, for messages, such as ``instruction pool``.
        such_as: an example of a source.

    Raises:
        InputError: nothing is there, or a file is no YAML.
    """
    path = Path(source)
    if not path.exists() and (CHECKOUT / path).exists():
        path = CHECKOUT / path
    if not path.exists():
        raise InputError(f"No {what}s at {str(source)!r}. Name a YAML file or a folder of them, such as {such_as}.")
    found: list[tuple[Path, object]] = []
    for file in sorted(path.glob("*.yaml")) if path.is_dir() else [path]:
        try:
            read = [each for each in yaml.safe_load_all(file.read_text(encoding="utf-8")) if each is not None]
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise InputError(f"{file} cannot be read as YAML: {error}. Correct the file.") from error
        found += [(file, each) for each in read]
    if not found:
        raise InputError(f"{path} holds no {what}. Name a YAML file or a folder that does.")
    return found
