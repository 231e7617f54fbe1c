"""Cards: what a model that writes descriptions is told about a task, and what is published with them.

Knows YAML and names; nothing of records, models or prompts.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from instructedit.errors import InputError, unknown
from instructedit.instructions.documents import documents

DEFAULT_CARDS = "configs/instructions/cards"
"""Where the cards of the built-in tasks lie, from the top of the repository."""

_TEXTS = ("task", "label", "family", "definition", "input_template", "target_template")
_NAME = re.compile(r"[A-Z][A-Z_]*")


@dataclass(frozen=True)
class TaskCard:
    """One task as its descriptions are written for it.

    Args:
        task: the task's name, as in `EditRequest.task`.
        label: the short name shown after ``Task:``.
        family: the kind of edits, in words.
        definition: what such an edit does and what it leaves alone.
        input_template: what an input looks like; no record's own text.
        target_template: what a target looks like.
        placeholders: what every description must hold in brackets, by name, and what each stands for.

    Raises:
        InputError: a text is empty or has several lines, or a placeholder's name is not in capitals.
    """

    task: str
    label: str
    family: str
    definition: str
    input_template: str
    target_template: str
    placeholders: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in _TEXTS:
            text = getattr(self, name)
            if not text.strip() or "\n" in text.strip():
                raise InputError(f"The card of task {self.task!r} has {name} {text!r}. Write one line of text.")
        for name in self.placeholders:
            if not _NAME.fullmatch(name):
                raise InputError(f"The card of task {self.task!r} has the placeholder {name!r}. Write it in capitals.")

    def as_dict(self) -> dict[str, Any]:
        """The card as plain data."""
        return asdict(self) | {"placeholders": dict(self.placeholders)}


def load_cards(source: str | Path = DEFAULT_CARDS) -> dict[str, TaskCard]:
    """Read all cards of a YAML file, or of every ``*.yaml`` in a folder, by task name.

    A document holds the fields of `TaskCard`; ``---`` separates several in one file. A relative path that does not
    exist is also looked for below the repository this package runs from.

    Raises:
        InputError: nothing is there, a document is malformed, or two describe the same task.
    """
    cards: dict[str, TaskCard] = {}
    for file, document in documents(source, "card", DEFAULT_CARDS):
        card = _card(file, document)
        if card.task in cards:
            raise InputError(f"{file} describes task {card.task!r} a second time. Keep one card a task.")
        cards[card.task] = card
    return cards


def card_for(cards: Mapping[str, TaskCard], task: str) -> TaskCard:
    """Return a task's card.

    Raises:
        InputError: it has none; the message names the tasks that have one.
    """
    if task not in cards:
        raise unknown("task", task, cards, f"For a task of your own write a card as in {DEFAULT_CARDS}: --card FILE.")
    return cards[task]


def _card(file: Path, document: object) -> TaskCard:
    wanted = {*_TEXTS, "placeholders"}
    if not isinstance(document, dict) or not set(_TEXTS) <= set(document) <= wanted:
        found = ", ".join(sorted(map(str, document))) if isinstance(document, dict) else type(document).__name__
        raise InputError(
            f"{file} holds a card with {found or 'nothing'}. Write {', '.join((*_TEXTS, 'placeholders'))}."
        )
    placeholders = document.get("placeholders") or {}
    texts = [*(document[name] for name in _TEXTS), *(placeholders.values() if isinstance(placeholders, dict) else [0])]
    if not all(isinstance(text, str) for text in texts):
        raise InputError(f"{file}: the fields of a card are texts, and placeholders maps names to texts. Quote them.")
    return TaskCard(**{name: document[name].strip() for name in _TEXTS}, placeholders=placeholders)
