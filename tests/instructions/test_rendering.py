"""Instructions are framed once, filled everywhere, and chosen by hash."""

from collections import Counter

import pytest

from instructedit.errors import InputError
from instructedit.instructions.pools import InstructionPool, load_pools
from instructedit.instructions.rendering import render, seen_instruction, training_instruction, unseen_instruction
from instructedit.records import EditRequest

POOL = InstructionPool("mine", "My task", tuple(f"Number {i} on [TOPIC]." for i in range(10)))


def request_with(id_: str, **slots: str) -> EditRequest:
    return EditRequest("What about it?", "fine", id=id_, task="mine", slots=slots)


def test_render_frames_and_fills() -> None:
    assert render(POOL, "Be [LABEL], be [LABEL] on [TOPIC].", {"LABEL": "kind", "TOPIC": "tea"}) == (
        "Task: My task\nDescription: Be kind, be kind on tea.\nInput: "
    )


def test_a_slot_value_is_never_filled_again() -> None:
    assert "on [LABEL]." in render(POOL, "[LABEL] on [TOPIC].", {"LABEL": "kind", "TOPIC": "[LABEL]"})


@pytest.mark.parametrize("slots", [{}, {"LABEL": "kind"}, {"TOPIC": ""}])
def test_a_missing_or_empty_slot_is_refused(slots: dict[str, str]) -> None:
    with pytest.raises(InputError, match=r"task 'mine' needs a value for \[TOPIC\]"):
        render(POOL, "On [TOPIC].", slots)


def test_no_placeholder_is_left_in_any_shipped_instruction() -> None:
    slots = {"LABEL": "negative", "TOPIC": "Lisbon"}
    for pool in load_pools().values():
        for text in pool.descriptions:
            assert "[" not in render(pool, text, slots)


def test_seen_is_stable_spread_and_never_the_unseen_one() -> None:
    requests = [request_with(f"r{i}", TOPIC="tea") for i in range(400)]
    chosen = [seen_instruction(POOL, request) for request in requests]
    assert chosen == [seen_instruction(POOL, request) for request in requests]
    counts = Counter(chosen)
    assert len(counts) == 9
    assert min(counts.values()) > 20
    assert unseen_instruction(POOL, requests[0]) == "Task: My task\nDescription: Number 9 on tea.\nInput: "
    assert unseen_instruction(POOL, requests[0]) not in counts


def test_seen_choice_is_pinned() -> None:
    # Results name "seen" instructions by this choice: a change of it changes every table.
    chosen = [seen_instruction(POOL, request_with(id_, TOPIC="tea")) for id_ in "abcdef"]
    numbers = [next(i for i in range(10) if f"Number {i} on tea." in text) for text in chosen]
    assert numbers == [3, 6, 6, 2, 5, 3]


def test_training_draws_move_through_the_nine_and_repeat() -> None:
    request = request_with("r0", TOPIC="tea")
    chosen = [training_instruction(POOL, request, draw) for draw in range(300)]
    assert chosen == [training_instruction(POOL, request, draw) for draw in range(300)]
    assert len(set(chosen)) == 9
    assert unseen_instruction(POOL, request) not in chosen
    others = [training_instruction(POOL, request_with("r1", TOPIC="tea"), draw) for draw in range(300)]
    assert chosen != others
