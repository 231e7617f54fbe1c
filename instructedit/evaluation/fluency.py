"""Fluency of one text: the weighted entropy of its word bigrams and trigrams. Knows strings only."""

import math
import re
from collections import Counter

WORD = re.compile(r"\w+|[^\w\s]")
"""A word: a run of letters, digits and underscores, or one punctuation mark. Case is kept, white space dropped."""


def ngram_entropy(text: str) -> float:
    """Measure how little a text repeats itself, in hundredths of a bit.

    ::

        100 * (2/3 * H2 + 4/3 * H3) / 2,    H_n = - sum_g f(g) log2 f(g)

    over the distinct n-grams g of words and their shares f(g) of the text's n-grams (Zhang et al. 2018 for the
    entropy, Meng et al. 2022, ROME, for the weights; PAPER.md, Metrics). A text that says one thing over and over
    is near 0; m different trigrams give at most about 100 * log2(m).

    Returns:
        0 or more; 0 for a text of fewer than three words, which has no trigram.
    """
    words = WORD.findall(text)
    if len(words) < 3:
        return 0.0
    return 100 * (2 / 3 * _entropy(words, 2) + 4 / 3 * _entropy(words, 3)) / 2


def _entropy(words: list[str], n: int) -> float:
    """Entropy, in bits, of a text's n-grams."""
    counts = Counter(zip(*(words[start:] for start in range(n)), strict=False))
    total = counts.total()
    return sum(count / total * math.log2(total / count) for count in counts.values())
