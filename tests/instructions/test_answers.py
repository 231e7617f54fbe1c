"""From a model's answers to single descriptions, in every form that models answer in."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructedit.instructions.answers import descriptions_in

TEXTS = ["Change the answer to this.", "Keep all other answers as they are.", "Give the new ending, always."]

FORMS = {
    "numbers": "\n".join(f"{n}. {text}" for n, text in enumerate(TEXTS, 1)),
    "brackets": "\n".join(f"{n}) {text}" for n, text in enumerate(TEXTS, 1)),
    "both brackets": "\n".join(f"({n}) {text}" for n, text in enumerate(TEXTS, 1)),
    "bullets": "\n".join(f"- {text}" for text in TEXTS),
    "stars": "\n".join(f"* {text}" for text in TEXTS),
    "dots": "\n".join(f"\u2022 {text}" for text in TEXTS),
    "bold numbers": "\n".join(f"**{n}.** {text}" for n, text in enumerate(TEXTS, 1)),
    "bold titles": "\n".join(f"{n}. **Title {n}**: {text}" for n, text in enumerate(TEXTS, 1)),
    "quotes": "\n".join(f'{n}. "{text}"' for n, text in enumerate(TEXTS, 1)),
    "curly quotes": "\n".join(f"{n}. \u201c{text}\u201d" for n, text in enumerate(TEXTS, 1)),
    "labels": "\n".join(f"{n}. Description: {text}" for n, text in enumerate(TEXTS, 1)),
    "chatter around": "Sure, here you are!\n\n1. {}\n2. {}\n3. {}\n\nLet me know if you want more.".format(*TEXTS),
    "empty lines": "\n\n".join(f"{n}. {text}" for n, text in enumerate(TEXTS, 1)),
    "wrapped": "1. Change the answer\n   to this.\n2. Keep all other answers\nas they are.\n3. " + TEXTS[2],
    "plain lines": "\n".join(TEXTS),
    "a list": json.dumps(TEXTS),
    "an object": json.dumps({"descriptions": TEXTS}),
    "objects": json.dumps([{"id": n, "description": text} for n, text in enumerate(TEXTS)]),
    "numbered object": json.dumps({str(n): text for n, text in enumerate(TEXTS)}),
    "a fence": f"Here:\n```json\n{json.dumps(TEXTS, indent=2)}\n```\nDone.",
    "a fence of lines": "```\n" + "\n".join(f"{n}. {text}" for n, text in enumerate(TEXTS, 1)) + "\n```",
    "a thought first": "<think>1. No, not so.\n2. Hm.</think>\n" + "\n".join(f"- {text}" for text in TEXTS),
    "objects, one a line": "\n".join(json.dumps({"description": text}) for text in TEXTS),
    "a list that is cut off": json.dumps(TEXTS, indent=2)[:-2],
    "a short list that is cut off": json.dumps(TEXTS)[:-1] + ', "And then',
    "objects that are cut off": "```json\n" + json.dumps([{"description": text} for text in TEXTS], indent=1)[:-2],
    "a comma too many": json.dumps(TEXTS)[:-1] + ",]",
    "windows": "\r\n".join(f"{n}. {text}" for n, text in enumerate(TEXTS, 1)),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_descriptions(form: str) -> None:
    assert descriptions_in(FORMS[form]) == TEXTS


def test_placeholders_in_brackets_are_no_json() -> None:
    answer = "1. Be [LABEL] about [TOPIC].\n2. Make replies on [TOPIC] [LABEL]."
    assert descriptions_in(answer) == ["Be [LABEL] about [TOPIC].", "Make replies on [TOPIC] [LABEL]."]


def test_nothing_gives_nothing() -> None:
    assert descriptions_in("") == descriptions_in("\n \n") == descriptions_in("<think>endless") == []


@given(st.text())
def test_anything_gives_single_lines(answer: str) -> None:
    for text in descriptions_in(answer):
        assert text and text == " ".join(text.split())


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_any_json_is_survived(value: object) -> None:
    descriptions_in(json.dumps(value))
    descriptions_in(json.dumps(value)[:-1])
