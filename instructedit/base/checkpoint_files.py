"""The files of a base's folder: which are read, and which have to be there. Loads no torch.

Knows names; nothing of what is in a weight or a tokenizer.
"""

import json
from collections.abc import Iterator
from pathlib import Path

from instructedit.errors import InputError

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
WEIGHTS = ["model*.safetensors", INDEX]
TOKENIZER = [CONFIG, "tokenizer*", "vocab.json", "merges.txt", "special_tokens_map.json", "added_tokens.json"]
VOCABULARIES = ("tokenizer.json", "vocab.json", "tokenizer.model")
"""A tokenizer has one of them at least."""


def is_path(name: str) -> bool:
    """Whether a base's name can only be a folder's, not a Hub id."""
    return name.startswith((".", "~", "/")) or name.count("/") > 1


def no_folder(name: str) -> InputError:
    """Build the error for a folder that is not there."""
    return InputError(f"Base folder {name!r} does not exist. Give a folder with {CONFIG} and model.safetensors.")


def weight_files(name: str, folder: Path) -> list[Path]:
    """Return the safetensors files of a base.

    Raises:
        InputError: there are none, one is missing, or the index cannot be read.
    """
    index = folder / INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise InputError(f"Base {name!r}: {index} is malformed: {error}. Use a complete checkpoint.") from error
    else:
        names = ["model.safetensors"]
    files = [folder / file for file in names]
    for file in files:
        if not file.is_file():
            raise InputError(
                f"Base {name!r} has no {file.name} in {folder}. Only safetensors weights are read: convert the "
                f"checkpoint with save_pretrained(safe_serialization=True)."
            )
    return files


def check_vocabulary(name: str, folder: Path) -> None:
    """Check that a tokenizer was saved.

    Raises:
        InputError: none was.
    """
    if not any((folder / file).is_file() for file in VOCABULARIES):
        raise InputError(f"Base {name!r} has no tokenizer in {folder}: none of {', '.join(VOCABULARIES)} is there.")


def faults(name: str, folder: Path) -> Iterator[str]:
    """Tell what a base's folder lacks; nothing where all is there."""
    if not (folder / CONFIG).is_file():
        yield f"Base {name!r} has no {CONFIG} in {folder}. Use a complete checkpoint."
    for check in (weight_files, check_vocabulary):
        try:
            check(name, folder)
        except InputError as error:
            yield str(error)
