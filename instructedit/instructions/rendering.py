"""The instruction text put in front of an input, and which description of a pool a record gets.

Knows nothing about where it is put: records choose the inputs that take one, collation joins the texts.
"""

import re
from collections.abc import Mapping

from instructedit.errors import InputError
from instructedit.instructions.pools import InstructionPool
from instructedit.records import EditRequest
from instructedit.tasks.choice import stable_hash

PLACEHOLDER = re.compile(r"\[([A-Z][A-Z_]*)\]")


def render(pool: InstructionPool, description: str, slots: Mapping[str, str]) -> str:
    r"""Fill a description's placeholders and frame it; the prompt follows directly.

    >>> from instructedit.instructions.pools import load_pools
    >>> pool = load_pools()["convsent"]
    >>> render(pool, "Be [LABEL] about [TOPIC].", {"LABEL": "positive", "TOPIC": "tea"})
    'Task: Conversational sentiment\nDescription: Be positive about tea.\nInput: '

    Raises:
        InputError: a placeholder has no slot, or an empty one.
    """
    return framed(pool.label, filled(pool, description, slots))


def filled(pool: InstructionPool, description: str, slots: Mapping[str, str]) -> str:
    """Return a description with its placeholders filled, without the frame.

    Raises:
        InputError: a placeholder has no slot, or an empty one.
    """

    # One pass over the description, so that brackets inside a slot's value are left as they are.
    def fill(match: re.Match[str]) -> str:
        value = slots.get(match[1], "")
        if not value:
            raise InputError(
                f"An instruction of task {pool.task!r} needs a value for [{match[1]}]; the record has "
                f"{', '.join(sorted(slots)) or 'none'}. Add that slot or drop the placeholder."
            )
        return value

    return PLACEHOLDER.sub(fill, description)


def framed(label: str, description: str) -> str:
    """Return the text that goes in front of an input: a task's label and a description, placeholders filled."""
    return f"Task: {label}\nDescription: {description}\nInput: "


def seen_instruction(pool: InstructionPool, request: EditRequest) -> str:
    """Return the trained-on instruction a record is evaluated with: always the same one for the same id."""
    return render(pool, seen_description(pool, request), request.slots)


def seen_description(pool: InstructionPool, request: EditRequest) -> str:
    """Return the description of a record's seen instruction, placeholders open."""
    return _drawn(pool, stable_hash("seen", request.id))


def unseen_instruction(pool: InstructionPool, request: EditRequest) -> str:
    """Return the instruction that training never shows."""
    return render(pool, pool.unseen, request.slots)


def training_instruction(pool: InstructionPool, request: EditRequest, draw: int) -> str:
    """Return the instruction of one training draw of a record; another draw may bring another description.

    Args:
        pool: the task's pool.
        request: the record's request; its id and slots are used.
        draw: any integer, usually `Draw.seed` of the sampler.
    """
    return render(pool, _drawn(pool, stable_hash("training", request.id, str(draw))), request.slots)


def _drawn(pool: InstructionPool, number: int) -> str:
    return pool.seen[number % len(pool.seen)]
