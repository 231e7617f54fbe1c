"""Fluency against an entropy written out by other means, and by hand."""

import math
import random
from fractions import Fraction

import pytest

from instructedit.evaluation.fluency import ngram_entropy

TEXTS = (
    "The Nile is a river. The Nile is long, and the Nile is old.",
    "I really do like it! I really do. Don't you?",
    "é\u00a0ß 東京 is\n\n東京; it's 3.5 km - or 3.5 km?",
    "word " * 40,
    " ".join(random.Random(0).choices(["a", "b", "c", "the", "of", ",", "."], k=200)),
)


def split_by_hand(text: str) -> list[str]:
    """Words are runs of letters, digits and underscores; any other visible character is a word of its own."""
    words, run = [], ""
    for character in text + " ":
        if character.isalnum() or character == "_":
            run += character
            continue
        words += [run] if run else []
        run = ""
        if not character.isspace():
            words.append(character)
    return words


def entropy_by_hand(words: list[str], n: int) -> float:
    """The chain log2 N - (1/N) sum c log2 c, with exact shares and a dictionary of joined n-grams."""
    grams = ["\x00".join(words[i : i + n]) for i in range(len(words) - n + 1)]
    counts = {gram: grams.count(gram) for gram in sorted(set(grams))}
    within = sum(float(Fraction(c, len(grams))) * math.log(c) for c in counts.values())
    return (math.log(len(grams)) - within) / math.log(2)


@pytest.mark.parametrize("text", TEXTS)
def test_equals_the_independent_computation(text: str) -> None:
    words = split_by_hand(text)
    expected = 100 * (2 / 3 * entropy_by_hand(words, 2) + 4 / 3 * entropy_by_hand(words, 3)) / 2
    assert ngram_entropy(text) == pytest.approx(expected, abs=1e-6)


def test_equals_a_case_worked_out_by_hand() -> None:
    # a b a b a: bigrams ab, ba, ab, ba (1 bit); trigrams aba, bab, aba: log2(3) - 2/3 bits.
    expected = 100 * (2 / 3 * 1 + 4 / 3 * (1.584962500721156 - 2 / 3)) / 2
    assert ngram_entropy("a b a b a") == pytest.approx(expected, abs=1e-6)
    # Four distinct words: 3 bigrams, 2 trigrams, all different.
    assert ngram_entropy("one two three four") == pytest.approx(100 * (2 / 3 * math.log2(3) + 4 / 3) / 2, abs=1e-6)


def test_case_and_punctuation_make_words_and_white_space_does_not() -> None:
    assert ngram_entropy("a b A b") > ngram_entropy("a b a b")
    assert ngram_entropy("a, b, a, b") != ngram_entropy("a b a b")
    assert ngram_entropy(" a\n\tb  a b ") == ngram_entropy("a b a b")


@pytest.mark.parametrize("text", ["", "   ", "one", "one two", "one."])
def test_a_text_without_a_trigram_has_none(text: str) -> None:
    assert ngram_entropy(text) == 0.0


def test_saying_one_thing_is_no_entropy() -> None:
    assert ngram_entropy("no no no no no") == 0.0
