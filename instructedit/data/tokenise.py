"""From text and target to token ids, for every task and method alike.

Knows tokenizers and context lengths; it never sees a model, a batch or a loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from instructedit.errors import InputError


@dataclass(frozen=True)
class TokenisedText:
    """Token ids of ``text + " " + target``; the last ``n_target`` of them are the target's."""

    ids: tuple[int, ...]
    n_target: int


def tokenise(tokenizer: PreTrainedTokenizerBase, text: str, target: str, max_tokens: int) -> TokenisedText:
    r"""Tokenise an input and its target as one text and tell where the target begins.

    The two are joined by one space, unless the text ends in white space already (an instruction's
    ``"Input: "`` with an empty prompt, a paraphrase ending in a line break). A token that holds
    the join's space and the target's first letters counts as target, which is how GPT-2's and
    LLaMA's vocabularies spell a word in the middle of a sentence.

    Example:
        ``tokenise(t, "The capital of France is", "Paris", 1024)`` gives ids for
        ``The| capital| of| France| is| Paris`` and ``n_target=1``.

    Args:
        tokenizer: a fast tokenizer (it must report character offsets).
        text: the input as the model sees it, instruction included.
        target: the answer, without a leading space.
        max_tokens: the base's context length, in tokens.

    Raises:
        InputError: the target is empty, or the whole is longer than the context.
    """
    if not target.strip():
        raise InputError(f"Empty target for the input {text[-80:]!r}: a request needs a text to edit in.")
    joint = text if text and text[-1].isspace() else text + " "
    encoded = tokenizer(joint + target, return_offsets_mapping=True, verbose=False)
    ids: list[int] = list(encoded["input_ids"])
    ends: Sequence[tuple[int, int]] = encoded["offset_mapping"]
    if ids and ends[-1][0] == ends[-1][1]:  # a closing special token, which some tokenizers add
        ids, ends = ids[:-1], ends[:-1]
    n_target = sum(1 for _, end in ends if end > len(joint))
    if len(ids) > max_tokens:
        raise InputError(
            f"Input of {len(ids)} tokens is longer than the base's context of {max_tokens}: {text[:60]!r}... "
            "Shorten the prompt, the instruction or the target."
        )
    if n_target == len(ids):
        raise InputError(f"No token stands before the target {target[:40]!r}: give a prompt that is not empty.")
    return TokenisedText(tuple(ids), n_target)
