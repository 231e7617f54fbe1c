"""The controls: each takes away what it says and keeps the rest, the same way every time."""

import re
from collections import Counter
from typing import get_args

import pytest

from instructedit.errors import InputError
from instructedit.instructions.controls import CONTROLS, FILLER, WHICH, Which, instruction_for
from instructedit.instructions.pools import InstructionPool, load_pools
from instructedit.instructions.rendering import seen_instruction, unseen_instruction
from instructedit.records import EditRequest

POOLS = load_pools()
SLOTS = {"LABEL": "negative", "TOPIC": "New Year in Lisbon"}
TASKS = ("recent", "counterfact", "convsent", "zsre", "demo-recent", "demo-convsent")
FRAME = re.compile(r"Task: (?P<label>.+)\nDescription: (?P<description>.+)\nInput: ")
FUNCTION_WORDS = {"a", "an", "and", "for", "in", "of", "on", "the", "to"}


def asked(task: str, number: int) -> EditRequest:
    slots = SLOTS if task.endswith("convsent") else {}
    return EditRequest("What about it?", "fine", id=f"{task} {number}", task=task, slots=slots)


REQUESTS = [asked(task, number) for task in TASKS for number in range(60)]


def own_pool(request: EditRequest) -> InstructionPool:
    return POOLS[request.task.removeprefix("demo-")]


def parts(text: str) -> tuple[str, str]:
    match = FRAME.fullmatch(text)
    assert match, text
    return match["label"], match["description"]


def lower_words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower()))


def test_the_names_are_the_promised_ones() -> None:
    assert WHICH == get_args(Which) == ("seen", "unseen", *CONTROLS)


def test_seen_and_unseen_are_what_they_were() -> None:
    for request in REQUESTS:
        assert instruction_for("seen", POOLS, request) == seen_instruction(own_pool(request), request)
        assert instruction_for("unseen", POOLS, request) == unseen_instruction(own_pool(request), request)


@pytest.mark.parametrize("which", CONTROLS)
def test_a_record_gets_the_same_text_whatever_order_its_pools_come_in(which: Which) -> None:
    turned = dict(reversed(POOLS.items()))
    for request in REQUESTS:
        text = instruction_for(which, POOLS, request)
        assert text == instruction_for(which, turned, request)
        assert "[" not in text


def test_choices_are_pinned() -> None:
    # Results name their rows by these choices: a change of one changes every table of controls.
    request = asked("recent", 7)
    assert {which: instruction_for(which, POOLS, request) for which in CONTROLS} == {
        "wrong": "Task: Question answering\nDescription: Learn the reply to a single question, in whatever words it is "
        "asked.\nInput: ",
        "shuffled": "Task: Recent facts\nDescription: news is. the subject of Store it this everything piece the about "
        "and leave as knows model else\nInput: ",
        "filler": "Task: Soft rain\nDescription: Small boats drift along the river past tall willow trees. Warm bread "
        "and goat cheese lie on the.\nInput: ",
        "empty": "",
    }


def test_wrong_is_a_trained_on_instruction_of_another_task_and_every_other_one_comes() -> None:
    for task in TASKS:
        requests = [request for request in REQUESTS if request.task == task]
        texts = [instruction_for("wrong", POOLS, request) for request in requests]
        family = task.removeprefix("demo-")
        fitting = {name for name in POOLS if name != family and name != "convsent"}
        labels = {POOLS[name].label: name for name in fitting}
        assert {labels[parts(text)[0]] for text in texts} == fitting
        for text in texts:
            label, description = parts(text)
            assert description in POOLS[labels[label]].seen
        assert not {parts(text)[1] for text in texts} & set(POOLS[family].descriptions)
        assert len(set(texts)) > 9


def test_wrong_may_need_the_slots_a_record_has() -> None:
    request = EditRequest("How is it?", "good", id="r", task="recent", slots=SLOTS)
    two = {name: POOLS[name] for name in ("recent", "convsent")}
    label, description = parts(instruction_for("wrong", two, request))
    assert label == POOLS["convsent"].label and SLOTS["TOPIC"] in description
    for slots in ({}, {"LABEL": "negative"}, SLOTS | {"TOPIC": ""}):
        with pytest.raises(InputError, match=r"No wrong instruction .* record 'r' of task 'recent'.*convsent, recent"):
            instruction_for("wrong", two, EditRequest("How is it?", "good", id="r", task="recent", slots=slots))


def test_a_pool_of_the_same_task_under_another_name_is_not_another_task() -> None:
    copy = InstructionPool("demo-recent", "Copied", POOLS["recent"].descriptions)
    pools = {"recent": POOLS["recent"], "demo-recent": copy, "zsre": POOLS["zsre"]}
    for task in ("recent", "demo-recent"):
        labels = {parts(instruction_for("wrong", pools, asked(task, number)))[0] for number in range(20)}
        assert labels == {POOLS["zsre"].label}


def test_shuffled_has_the_words_of_the_seen_instruction_in_another_order() -> None:
    orders = set()
    for request in REQUESTS:
        label, description = parts(seen_instruction(own_pool(request), request))
        moved_label, moved = parts(instruction_for("shuffled", POOLS, request))
        assert moved_label == label and moved != description
        assert Counter(moved.split()) == Counter(description.split())
        orders.add(moved)
    assert len(orders) > len(REQUESTS) * 0.9, "records of one description should differ in order"


def test_two_words_are_always_turned_round_and_one_cannot_be() -> None:
    two = InstructionPool("t", "T", tuple(f"word {n}." for n in range(10)))
    for number in range(40):
        request = EditRequest("p", "t", id=str(number), task="t")
        assert re.fullmatch(r"\d\. word", parts(instruction_for("shuffled", {"t": two}, request))[1])
    for text in ("again{0}", "x{0} x{0} x{0}"):
        one = InstructionPool("t", "T", tuple(text.format(n) for n in range(10)))
        with pytest.raises(InputError, match="no other order"):
            instruction_for("shuffled", {"t": one}, EditRequest("p", "t", id="1", task="t"))


def test_filler_is_as_long_as_the_seen_instruction_and_shares_no_word_that_means_anything() -> None:
    of_pools = set()
    for pool in POOLS.values():
        for text in (pool.label, pool.task, *pool.descriptions):
            of_pools |= lower_words(text)
    assert len(of_pools - FUNCTION_WORDS) > 100
    assert not lower_words(" ".join(FILLER)) & (of_pools - FUNCTION_WORDS)
    texts = set()
    for request in REQUESTS:
        seen, filler = (
            parts(seen_instruction(own_pool(request), request)),
            parts(instruction_for("filler", POOLS, request)),
        )
        assert [len(text.split()) for text in filler] == [len(text.split()) for text in seen]
        assert lower_words(" ".join(filler)) <= lower_words(" ".join(FILLER))
        assert filler[1].endswith(".") and not filler[0].endswith(".")
        texts.add(filler)
    assert len(texts) > len(FILLER)


def test_filler_is_never_too_short() -> None:
    long = InstructionPool("t", "A label of six words here", tuple(f"{n} " + "word " * 300 + "end" for n in range(10)))
    label, description = parts(instruction_for("filler", {"t": long}, EditRequest("p", "t", id="1", task="t")))
    assert len(label.split()) == 6 and len(description.split()) == 302


def test_empty_is_nothing_and_needs_no_pool() -> None:
    assert instruction_for("empty", {}, asked("recent", 1)) == ""
    for which in ("wrong", "shuffled", "filler"):
        with pytest.raises(InputError, match="instruction pool"):
            instruction_for(which, {}, asked("recent", 1))  # type: ignore[arg-type]


def test_a_control_made_of_a_description_with_an_unfilled_slot_is_refused() -> None:
    for which in ("shuffled", "filler"):
        with pytest.raises(InputError, match=r"\[TOPIC\]|\[LABEL\]"):
            instruction_for(which, POOLS, EditRequest("p", "t", id="1", task="convsent"))  # type: ignore[arg-type]
