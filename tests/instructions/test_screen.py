"""Which descriptions can be used: each rule at its border, and that our own pools pass all of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructedit.instructions.cards import card_for, load_cards
from instructedit.instructions.pools import load_pools
from instructedit.instructions.screen import MAX_WORDS, Names, screen
from instructedit.records import EditExample, EditRequest

CARDS = load_cards()
FACTS, OPINIONS = CARDS["counterfact"], CARDS["convsent"]
GOOD = "Replace the answer to this statement by the one that is given."

RECORDS = [
    EditExample(EditRequest("The capital of Spain is", "Vienna", subject="Spain", old_answer="Madrid")),
    EditExample(EditRequest("The mother tongue of Danielle Darrieux is", "English", subject="Danielle Darrieux")),
    EditExample(EditRequest("The genre of Change is", "film", subject="Change")),
]
NAMES = Names.of(RECORDS, map(str, FACTS.as_dict().values()))


def reason(text: str, card=FACTS, before=()) -> str:  # type: ignore[no-untyped-def]
    (verdict,) = screen([text], card, NAMES, before)
    assert verdict.usable == (not verdict.reason)
    return verdict.reason


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Change one fact now.", "shorter than 5"),
        (" ".join(f"word{n}" for n in range(MAX_WORDS + 1)), "longer than"),
        ("Overwhelmingly " * 4 + "x" * 290, "longer than"),
        ("Sure, here is a description of the task for you.", "speaks to the reader"),
        ("I will change the fact that is stated below now.", "speaks to the reader"),
        ("Change the fact about [SUBJECT] to another one now.", "[SUBJECT] is not the task's"),
        ("Change the fact about {subject} to another one now.", "another kind"),
        ("Change the fact about <subject> to another one now.", "another kind"),
        ("Change the fact about [] to another one, please.", "[] is not the task's"),
        ("Change the fact ] about it to another one now.", "another kind"),
        ("Change the fact. Input: the fact goes in here.", "label"),
        ("Read https://example.org and change the fact there.", "address"),
        ("What does this mean for the fact below, then?", "question"),
        ("Title: the right answer to what is stated below.", "label"),
        ("Change the fact \x1b[31m that is stated below, please.", "one plain line"),
        ("Change the fact 1234567890 1234567890 = 1234567890.", "mostly not words"),
        ("fact fact fact fact change fact fact fact fact", "repeats its own words"),
        ("Tell that the capital belongs to Spain from now on.", "names an example"),
        ("Make Vienna the answer to what is asked below.", "names an example"),
        ("Forget Madrid and use what is given in its place.", "names an example"),
        ("Teach what danielle darrieux spoke as a child again.", "names an example"),
        ("Answer in the way in which English is asked for.", "names an example"),
    ],
)
def test_what_cannot_be_used(text: str, words: str) -> None:
    assert words in reason(text)


def test_reasons_never_say_which_example() -> None:
    # They are told to the server.
    assert reason("Tell that the capital belongs to Spain from now on.") == "names an example"


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        "Change what the model says about the film below.",  # a title that begins a sentence, and an ordinary word
        "Keep the rest. Change the ending of this statement only.",
        " ".join(f"{chr(97 + n // 7)}{chr(97 + n % 7)}word" for n in range(MAX_WORDS)),
    ],
)
def test_what_can(text: str) -> None:
    assert reason(text) == ""


def test_placeholders_must_all_be_there() -> None:
    assert "[TOPIC] is missing" in reason("Make the chatbot sound [LABEL] from now on.", OPINIONS)
    assert "[label] is not" in reason("Make the chatbot sound [label] about [TOPIC] always.", OPINIONS)
    assert reason("Make the chatbot sound [LABEL] about [TOPIC] always.", OPINIONS) == ""


def test_near_repeats_of_each_other_and_of_the_pool_are_out() -> None:
    again = GOOD.replace("Replace", "Now replace")
    assert "much like another" in reason(again, before=[GOOD])
    assert "much like another" in reason(GOOD.upper(), before=[GOOD])
    verdicts = screen([GOOD, again, "Let the model believe the invented ending in any wording."], FACTS, NAMES, [])
    assert [verdict.usable for verdict in verdicts] == [True, False, True]


def test_an_unusable_one_is_no_reason_to_refuse_another() -> None:
    verdicts = screen([GOOD + " [X]", GOOD], FACTS, NAMES, [])
    assert [verdict.usable for verdict in verdicts] == [False, True]


@pytest.mark.parametrize("task", sorted(load_pools()))
def test_our_own_pools_pass(task: str) -> None:
    pool = load_pools()[task]
    verdicts = screen(pool.descriptions, card_for(CARDS, task), NAMES, [])
    assert [verdict for verdict in verdicts if not verdict.usable] == []


@given(st.text(min_size=3), st.text(min_size=3))
def test_a_subject_in_the_middle_is_always_found(before: str, after: str) -> None:
    assert NAMES.found_in(f"{before}, Danielle Darrieux, {after}")


@given(st.text())
def test_any_text_gets_a_verdict(text: str) -> None:
    (verdict,) = screen([text], OPINIONS, NAMES, [GOOD])
    assert verdict.text == text
    assert not verdict.usable or ("[LABEL]" in text and "[TOPIC]" in text)
