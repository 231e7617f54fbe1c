"""What flags of ``instructedit edit`` go together, told before anything heavy is loaded.

Knows the flags' values and the file system; nothing of editors.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from instructedit.editing.requests import Wanted
from instructedit.errors import InputError
from instructedit.records import EditExample, EditRequest, Probe


@dataclass(frozen=True)
class Asked:
    """What the flags for one request say."""

    prompt: str
    target: str
    rephrases: tuple[str, ...]
    instruction: str
    task: str
    slots: Mapping[str, str]

    @property
    def given(self) -> bool:
        """Whether any of them is there."""
        return bool(self.prompt or self.target or self.rephrases)

    def wanted(self) -> Wanted:
        """Return the one request that the flags ask for, with its rephrases as probes."""
        probes = tuple(Probe("rephrase", text, self.target) for text in self.rephrases)
        return Wanted(EditExample(self.request(self.prompt, self.target), probes), self.instruction)

    def request(self, prompt: str, target: str) -> EditRequest:
        """Return a request with the flags' task and slots."""
        return EditRequest(prompt, target, task=self.task, slots=self.slots)


def check_ways(given: Mapping[str, object], asked: Asked, editor: str) -> None:
    """Refuse none and more than one of the ways to say what is wanted, and half of one.

    Args:
        given: per way its flag and what was given to it.
        asked: the flags for one request.
        editor: the flag of that name.

    Raises:
        InputError: says which flags to give.
    """
    ways = [name for name, value in given.items() if value]
    if len(ways) != 1:
        found = f"{' and '.join(ways)} were given together" if ways else "There is nothing to edit in"
        raise InputError(f"{found}. Give --prompt and --target, or --file, or --interactive, or --merge.")
    if ways == ["--prompt"]:
        for name, text in (("prompt", asked.prompt), ("target", asked.target)):
            if not text.strip():
                raise InputError(f"--{name} is missing or empty. Give both --prompt and --target.")
    if not editor and ways != ["--merge"]:
        raise InputError("--editor is missing. Name the folder that `instructedit fit` made, such as runs/demo/editor.")


def check_together(merged: int, editor: str, file: str, how: str, after: str, interactive: bool, json: bool) -> None:
    """Refuse flags that say nothing together.

    Raises:
        InputError: says which.
    """
    if merged and (merged < 2 or editor or after):
        raise InputError("--merge joins two saved edits or more, without --editor or --after.")
    if how == "alone" and (after or not file):
        raise InputError("--how alone is for the requests of a --file, without --after.")
    if interactive and (json or after):
        raise InputError("--interactive goes neither with --json nor with --after.")


def check_numbers(answer_tokens: int, max_drift: float | None) -> None:
    """Refuse numbers that mean nothing.

    Raises:
        InputError: says which.
    """
    if max_drift is not None and not max_drift >= 0:
        raise InputError(f"--max-drift is {max_drift}. Give a number of nats, 0 or more.")
    if answer_tokens < 1:
        raise InputError(f"--answer-tokens is {answer_tokens}. Give 1 or more.")


def check_out(path: Path, folder: bool) -> None:
    """Refuse a place that could not be written, before the work is done.

    Args:
        path: the file, or the folder of files.
        folder: which of them.

    Raises:
        InputError: it is the other one, or what it lies in cannot be written.
    """
    if folder and path.exists() and not path.is_dir():
        raise InputError(f"--out {path} is a file, and what is written needs a folder. Choose another name.")
    if not folder and path.is_dir():
        raise InputError(f"--out {path} is a folder. Name a file, such as {path / 'edit.safetensors'}.")
    place = path if folder else path.parent
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
        raise InputError(f"Cannot write to --out {path}: {place} is no folder that can be written. Choose another.")
