"""The editors an analysis holds against each other, each under a name; one name may stand for an editor of each task.

Knows what flags say, editor folders and their cards; weights are loaded when asked for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from instructedit.base.model import Base
from instructedit.checkpoints import EditorCard, read_card
from instructedit.editing.edit import named_dtype
from instructedit.editing.editor import Editor, editor_folder
from instructedit.errors import InputError, MismatchError

EXAMPLE = "--editors InstructEdit=runs/a/editor MEND-single=recent:runs/b/editor,zsre:runs/c/editor"


@dataclass(frozen=True)
class Named:
    """What stands under one name in tables and figures.

    Args:
        name: of the row and the panel.
        folders: the editor folder of each task; the same one for all, of an editor of several tasks.
        cards: their cards.
    """

    name: str
    folders: Mapping[str, Path]
    cards: Mapping[str, EditorCard]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks it is asked to edit."""
        return tuple(self.folders)

    @property
    def alone(self) -> bool:
        """Whether every task has an editor of its own."""
        return len(set(self.folders.values())) > 1

    @property
    def trained_on(self) -> frozenset[str]:
        """The tasks that the editor which is asked was trained on."""
        return frozenset(task for task, card in self.cards.items() if task in card.tasks)


def parse_editors(given: Sequence[str], tasks: Sequence[str]) -> dict[str, dict[str, str]]:
    """Read what ``--editors`` was given: per name the folder of each task.

    >>> parse_editors(["A=runs/a", "one=recent:runs/r,zsre:runs/z"], ["recent", "zsre"])
    {'A': {'recent': 'runs/a', 'zsre': 'runs/a'}, 'one': {'recent': 'runs/r', 'zsre': 'runs/z'}}

    Args:
        given: ``NAME=FOLDER``, or ``NAME=TASK:FOLDER,TASK:FOLDER`` for an editor of each task's own.
        tasks: those that are compared.

    Raises:
        InputError: a name is missing or there twice, or a task is not one of ``tasks``.
    """
    found: dict[str, dict[str, str]] = {}
    for words in given:
        name, equals, value = (part.strip() for part in words.partition("="))
        if not (name and equals and value):
            raise InputError(f"--editors {words!r} is not NAME=FOLDER. Write it as in: {EXAMPLE}.")
        if name in found:
            raise InputError(f"--editors has the name {name!r} twice. Give each editor a name of its own.")
        parts = [part.partition(":") for part in value.split(",")]
        if all(task in tasks and folder for task, _, folder in parts):
            found[name] = {task: folder for task, _, folder in parts}
            if len(found[name]) < len(parts):
                raise InputError(f"--editors {name} names a task twice. Give one editor for each task.")
        elif len(parts) > 1 and all(folder for _, _, folder in parts) and not Path(value).exists():
            wrong = ", ".join(task for task, _, _ in parts if task not in tasks)
            raise InputError(f"--editors {name}: {wrong} is not among --tasks ({', '.join(tasks)}). Add it there.")
        else:
            found[name] = dict.fromkeys(tasks, value)
    return found


def read_editors(folders: Mapping[str, Mapping[str, str]]) -> list[Named]:
    """Find the editors and read their cards; no weights are touched.

    Args:
        folders: per name the folder of each task's editor, or its id on the Hub.

    Raises:
        InputError: there is no such editor, or a name has fewer than two tasks.
        MismatchError: they are not of one base, or do not edit the same sites.
    """
    if not folders:
        raise InputError(f"--editors is missing. Name trained editors, as in: {EXAMPLE}.")
    known: dict[str, tuple[Path, EditorCard]] = {}
    named = []
    for name, per_task in folders.items():
        if len(per_task) < 2:
            raise InputError(
                f"{name} has {len(per_task)} task, which nothing can be told apart from. Give it 2 or more."
            )
        for folder in per_task.values():
            if folder not in known:
                path = editor_folder(folder)
                known[folder] = path, read_card(path)
        named.append(
            Named(
                name,
                {task: known[folder][0] for task, folder in per_task.items()},
                {task: known[folder][1] for task, folder in per_task.items()},
            )
        )
    (first, card), *others = known.values()
    for path, other in others:
        if other.fingerprint != card.fingerprint:
            raise MismatchError(
                f"The editor in {path} is of base {other.base!r}, the one in {first} of {card.base!r}. "
                "Gradients can be held against each other on one base alone: leave one of them out."
            )
        if other.sites != card.sites:
            raise MismatchError(
                f"The editors in {path} and {first} do not edit the same sites. Choose editors of the same sites."
            )
    return named


def load_editors(
    named: Sequence[Named], base: str = "", dtype: str = "auto", device: str = "auto"
) -> dict[Path, Editor]:
    """Load every editor of a list, by its folder, on one base.

    Args:
        named: the editors.
        base: the base, where it is not found under the name that the cards have.
        dtype: float32 or bfloat16; auto takes the one the first editor was trained on.
        device: cpu or cuda; auto takes a GPU where there is one.

    Raises:
        InputError: the base or a file is missing or malformed, or there is no GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: there is no GPU here. Choose cpu or auto.")
    where = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    loaded: dict[Path, Editor] = {}
    on: Base | str | None = base or None
    for one in named:
        for task, folder in one.folders.items():
            if folder not in loaded:
                wanted = one.cards[task].dtype if dtype == "auto" else f"torch.{dtype}"
                loaded[folder] = Editor.load(folder, on, dtype=named_dtype(wanted), device=where)
                on = loaded[folder].base
    return loaded
