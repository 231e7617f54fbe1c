"""What one step trains on, read back from the token ids."""

import pytest

from instructedit.base import Base
from instructedit.data.collate import Collator, TrainingMix
from instructedit.data.rows import Rows
from instructedit.data.samplers import Draw
from instructedit.errors import InputError
from instructedit.instructions.pools import InstructionPool
from instructedit.records import EditExample, EditRequest, Probe
from tests.conftest import byte_tokenizer

TOKENIZER = byte_tokenizer()


def fact(n: int, **changes: object) -> EditExample:
    fields = {"id": f"f{n}", "task": "facts", "subject": f"S{n}", "old_answer": f"old{n}", **changes}
    request = EditRequest(f"The colour of S{n} is", f"new{n}", **fields)  # type: ignore[arg-type]
    return EditExample(request, (Probe("locality", f"The size of S{n} is", f"size{n}"),))


def talk(n: int) -> EditExample:
    request = EditRequest(
        f"What about T{n}?", "Great!", f"t{n}", "talk", f"T{n}", ("Lovely.",), ("Bad.", "Worse."), {"TOPIC": f"T{n}"}
    )
    return EditExample(request, (Probe("rephrase", f"Tell me of T{n}.", "So nice."),))


EXAMPLES = {"facts": [fact(n) for n in range(6)], "talk": [talk(n) for n in range(3)]}
POOLS = {
    "facts": InstructionPool("facts", "Facts", tuple(f"Describe {n}." for n in range(10))),
    "talk": InstructionPool("talk", "Talk", tuple(f"Be {n} on [TOPIC]." for n in range(10))),
}
DRAWS = [Draw("facts", 2, 11), Draw("talk", 1, 12), Draw("facts", 4, 13)]


def texts(rows: Rows) -> list[tuple[int, str, str]]:
    return [
        (request, TOKENIZER.decode(ids[:-n]), TOKENIZER.decode(ids[-n:]))
        for ids, n, request in zip(rows.ids, rows.n_target, rows.request, strict=True)
    ]


def collator(pools: dict[str, InstructionPool] | None = None, **mix: object) -> Collator:
    return Collator(TOKENIZER, 512, EXAMPLES, pools, TrainingMix(**mix))  # type: ignore[arg-type]


def test_a_mixed_batch_keeps_every_records_own_texts() -> None:
    batch = collator()(DRAWS)
    assert batch.tasks == ("facts", "talk", "facts") and batch.record_ids == ("f2", "t1", "f4")
    assert texts(batch.inner) == [
        (0, "The colour of S2 is ", "new2"),
        (1, "What about T1? ", "Great!"),
        (1, "What about T1? ", "Lovely."),
        (2, "The colour of S4 is ", "new4"),
    ]
    rephrases = texts(batch.rephrase)
    assert [(r, target) for r, _, target in rephrases] == [(0, "new2"), (1, "So nice."), (2, "new4")]
    assert rephrases[0][1].strip() != "The colour of S2 is" and "S2" in rephrases[0][1]
    assert [(r, t) for r, _, t in texts(batch.avoid)] in ([(1, "Bad.")], [(1, "Worse.")])


def test_requests_are_as_they_were_asked() -> None:
    batch = collator(POOLS, reworded=1.0)(DRAWS)
    asked = [(request.text.strip(), request.target) for request in batch.requests]
    assert asked == [(text.strip(), target) for _, text, target in texts(batch.inner) if target != "Lovely."]
    assert batch.requests[0].prompt != "The colour of S2 is" and batch.requests[0].old_answer == "old2"
    assert batch.requests[2].instruction.startswith("Task: Facts")


def test_locality_has_the_records_own_input_first_then_others_with_their_old_answers() -> None:
    batch = collator(locality=3)(DRAWS)
    local = texts(batch.locality)
    assert [r for r, _, _ in local] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert local[0] == (0, "The size of S2 is ", "size2")
    for request, text, target in local[1:3] + local[3:6] + local[7:]:
        own = {0: "S2", 1: "T1", 2: "S4"}[request]
        assert own not in text and not target.startswith("new")


def test_the_instruction_is_before_edit_and_rephrase_and_never_before_locality() -> None:
    batch = collator(POOLS)(DRAWS)
    for request, text, _ in texts(batch.inner) + texts(batch.rephrase) + texts(batch.avoid):
        label = ["Facts", "Talk", "Facts"][request]
        assert text.startswith(f"Task: {label}\nDescription: ")
        assert "[TOPIC]" not in text
        if request == 1:
            assert " on T1.\nInput: " in text
    assert not any("Task:" in text for _, text, _ in texts(batch.locality))
    assert not any("Describe 9" in text for seed in range(200) for _, text, _ in texts(batch_of(seed).inner))
    assert len({text for seed in range(200) for _, text, _ in texts(batch_of(seed).inner)}) == 9


def batch_of(seed: int):  # type: ignore[no-untyped-def]
    return collator(POOLS)([Draw("facts", 0, seed)])


def test_a_batch_is_a_pure_function_of_its_draws_wherever_they_stand() -> None:
    together, alone = collator(POOLS)(DRAWS), collator(POOLS)(DRAWS[2:])
    assert collator(POOLS)(DRAWS) == together
    last = [(text, target) for request, text, target in texts(together.rephrase) if request == 2]
    assert last == [(text, target) for _, text, target in texts(alone.rephrase)]


def test_reworded_requests_train_on_another_form_and_ask_for_the_first() -> None:
    forms = {texts(collator(reworded=1.0, rephrases=9)([Draw("facts", 0, s)]).inner)[0][1] for s in range(60)}
    assert "The colour of S0 is " not in forms and "What is the colour of S0? " in forms
    batch = collator(reworded=1.0, rephrases=99)([Draw("facts", 0, 1)])
    assert any(text == "The colour of S0 is " for _, text, _ in texts(batch.rephrase))


def test_a_rephrase_is_never_the_edit_input_itself() -> None:
    build = collator(reworded=1.0, rephrases=99)
    for seed in range(30):
        batch = build([Draw("facts", 0, seed)])
        assert texts(batch.inner)[0][1] not in {text for _, text, _ in texts(batch.rephrase)}


def test_records_without_a_subject_can_be_trained_on() -> None:
    bare = {"facts": [fact(n, subject="") for n in range(3)]}
    batch = Collator(TOKENIZER, 512, bare, None, TrainingMix(locality=3))([Draw("facts", 0, 1)])
    assert len(batch.locality) == 3 and not any("colour of S0" in text for _, text, _ in texts(batch.locality)[1:])


@pytest.mark.parametrize(
    ("mix", "name"),
    [
        ({"locality": 0}, "locality"),
        ({"reworded": 1.5}, "reworded"),
        ({"rephrases": -1}, "rephrases"),
        ({"avoid": -3}, "avoid"),
    ],
)
def test_impossible_mixes_are_refused(mix: dict[str, float], name: str) -> None:
    with pytest.raises(InputError, match=name):
        TrainingMix(**mix)  # type: ignore[arg-type]


def test_a_lone_subject_has_nothing_to_keep() -> None:
    lone = {"facts": [fact(0)]}
    with pytest.raises(InputError, match="more than one subject"):
        Collator(TOKENIZER, 512, lone, None)([Draw("facts", 0, 1)])


def test_a_prompt_beyond_the_context_is_refused(tiny_llama_base: Base) -> None:
    with pytest.raises(InputError, match="context of 20"):
        Collator(TOKENIZER, 20, EXAMPLES, None)(DRAWS)
