"""What stands in front of an evaluated input: an instruction, or a control that tells what an instruction does.

Each control keeps one thing and takes another away: ``wrong`` keeps a well-made instruction, of another task;
``shuffled`` keeps the words and takes their order; ``filler`` keeps the frame and the length and says nothing of any
task; ``empty`` takes everything. All are chosen by hashes of the record's id. Together they tell whether it is the
instruction that helps or the longer prompt; the paper has none of them.
"""

from collections.abc import Mapping
from typing import Literal, get_args

from instructedit.errors import InputError
from instructedit.instructions.pools import InstructionPool, pool_for
from instructedit.instructions.rendering import (
    PLACEHOLDER,
    filled,
    framed,
    render,
    seen_description,
    seen_instruction,
    unseen_instruction,
)
from instructedit.records import EditRequest
from instructedit.tasks.choice import stable_hash

Which = Literal["seen", "unseen", "wrong", "shuffled", "filler", "empty"]
"""Which text is put in front of a record's inputs."""

WHICH: tuple[Which, ...] = get_args(Which)
CONTROLS: tuple[Which, ...] = ("wrong", "shuffled", "filler", "empty")

FILLER = (
    "Soft rain falls over a quiet valley in the early evening.",
    "Small boats drift along the river past tall willow trees.",
    "Warm bread and goat cheese lie on the wooden table.",
    "Two horses graze beside the gate and wait for spring.",
    "Deep snow covers a narrow path between the barn and the pump.",
    "Brown bees hum among the lavender while the sun climbs higher.",
    "Tall clocks tick in the hall of the silent house.",
    "Slow waves roll to the shore under a pale moon.",
    "Yellow leaves float down to the bench near the pond.",
)
"""Sentences about nothing; they share no word with the shipped pools but the, a, in and their like (tested)."""


def instruction_for(which: Which, pools: Mapping[str, InstructionPool], request: EditRequest) -> str:
    """Return the text put in front of a record's inputs; always the same for the same record.

    Args:
        which: what it is to be.
        pools: the pools of all tasks; the record's own and, for ``wrong``, the others.
        request: the record's request; id, task and slots are used.

    Raises:
        InputError: the task has no pool, a placeholder no slot, or a control cannot be made for the record.
    """
    if which == "empty":
        return ""
    own = pool_for(pools, request.task)
    if which == "seen":
        return seen_instruction(own, request)
    if which == "unseen":
        return unseen_instruction(own, request)
    if which == "wrong":
        return wrong_instruction(own, pools, request)
    return shuffled_instruction(own, request) if which == "shuffled" else filler_instruction(own, request)


def wrong_instruction(own: InstructionPool, pools: Mapping[str, InstructionPool], request: EditRequest) -> str:
    """Return an instruction of another task, label and description: one of those its training draws from.

    The other task is any of the pools' whose placeholders the record has values for; a demo task's pool counts as
    the one it copies.

    Raises:
        InputError: there is no such task.
    """
    others = [
        pool
        for _, pool in sorted(pools.items())
        if _family(pool.task) != _family(own.task)
        and _needs(pool) <= {name for name in request.slots if request.slots[name]}
    ]
    if not others:
        raise InputError(
            f"No wrong instruction can be made for record {request.id!r} of task {request.task!r}: of the pools "
            f"({', '.join(sorted(pools))}) none is another task's without placeholders that the record lacks. "
            "Name more pools with instructions, or leave wrong out."
        )
    pool = others[stable_hash("wrong task", request.id) % len(others)]
    return render(pool, pool.seen[stable_hash("wrong", request.id) % len(pool.seen)], request.slots)


def shuffled_instruction(own: InstructionPool, request: EditRequest) -> str:
    """Return the seen instruction with the words of its description in another order; the label stays.

    Placeholders are filled first: the words of a slot's value are moved like any others.

    Raises:
        InputError: the description's words have one order only.
    """
    words = filled(own, seen_description(own, request), request.slots).split()
    if len(set(words)) < 2:
        raise InputError(
            f"The description {' '.join(words)!r} of task {own.task!r} has no other order of words. "
            "Write a longer one, or leave shuffled out."
        )
    moved, attempt = words, 0
    while moved == words:
        order = [stable_hash("shuffled", request.id, str(attempt), str(place)) for place in range(len(words))]
        moved = [words[place] for place in sorted(range(len(words)), key=order.__getitem__)]
        attempt += 1
    return framed(own.label, " ".join(moved))


def filler_instruction(own: InstructionPool, request: EditRequest) -> str:
    """Return sentences about nothing in an instruction's frame, as many words as the seen instruction has.

    The sentence it starts with is chosen by the record's id, as a description is; the label is cut from the one before.
    """
    n_words = len(filled(own, seen_description(own, request), request.slots).split())
    start = stable_hash("filler", request.id) % len(FILLER)
    label = _sentences(start - 1, len(own.label.split()))
    return framed(label.rstrip("."), _sentences(start, n_words))


def _sentences(start: int, n_words: int) -> str:
    """Join the sentences from one on, round and round, and cut them after so many words."""
    words: list[str] = []
    while len(words) < n_words:
        words += FILLER[start % len(FILLER)].split()
        start += 1
    return " ".join(words[:n_words]).rstrip(".") + "."


def _family(task: str) -> str:
    return task.removeprefix("demo-")


def _needs(pool: InstructionPool) -> set[str]:
    return {name for text in pool.seen for name in PLACEHOLDER.findall(text)}
