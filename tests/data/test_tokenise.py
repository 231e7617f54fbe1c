import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from instructedit.data.tokenise import tokenise, tokenise_all
from instructedit.errors import InputError
from tests.conftest import byte_tokenizer

TOKENIZER = byte_tokenizer()
TEXTS = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)


@given(TEXTS, TEXTS)
def test_input_then_target_give_the_joint_text_back(text: str, target: str) -> None:
    text, target = text.strip() or "x", target.strip() or "y"
    found = tokenise(TOKENIZER, text, target, 512)
    assert TOKENIZER.decode(found.ids) == f"{text} {target}"
    assert TOKENIZER.decode(found.ids[-found.n_target :]) == target


def test_no_second_space_after_white_space() -> None:
    assert TOKENIZER.decode(tokenise(TOKENIZER, "Q: x\nA:\n", "y", 512).ids) == "Q: x\nA:\ny"


def test_a_token_that_holds_the_space_counts_as_target() -> None:
    words = {"The": 0, "\u0120capital": 1, "\u0120is": 2, "\u0120Paris": 3}
    raw = Tokenizer(models.WordLevel(words, unk_token="The"))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    found = tokenise(PreTrainedTokenizerFast(tokenizer_object=raw), "The capital is", "Paris", 512)
    assert found.ids == (0, 1, 2, 3) and found.n_target == 1


@pytest.mark.parametrize(
    ("text", "target", "limit", "message"),
    [
        ("The capital is", "  ", 512, "Empty target"),
        ("The capital is", "Paris", 10, "20 tokens is longer than the base's context of 10"),
        ("", "Paris", 512, None),
    ],
)
def test_bad_texts_are_refused_with_advice(text: str, target: str, limit: int, message: str | None) -> None:
    if message is None:  # the joining space stands before the target: nothing to refuse
        assert tokenise(TOKENIZER, text, target, limit).n_target == 5
        return
    with pytest.raises(InputError, match=message):
        tokenise(TOKENIZER, text, target, limit)


@given(st.lists(st.tuples(TEXTS, TEXTS), max_size=4))
def test_several_at_once_are_each_as_alone(pairs: list[tuple[str, str]]) -> None:
    pairs = [(text.strip() or "x", target.strip() or "y") for text, target in pairs]
    alone = [tokenise(TOKENIZER, text, target, 512) for text, target in pairs]
    assert tokenise_all(TOKENIZER, pairs, 512) == alone


def test_one_bad_text_among_several_is_refused() -> None:
    with pytest.raises(InputError, match="'Rome is'"):
        tokenise_all(TOKENIZER, [("Paris is", "big"), ("Rome is", " ")], 512)
