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
    (found,) = tokenise_all(tokenizer, [(text, target)], max_tokens)
    return found


def tokenise_all(
    tokenizer: PreTrainedTokenizerBase, pairs: Sequence[tuple[str, str]], max_tokens: int
) -> list[TokenisedText]:
    """Do what ``tokenise`` does for several (text, target) at once.

    One call of the tokenizer for all of them takes half the time of one each.

    Raises:
        InputError: as ``tokenise``, for any of them.
    """
    joints = []
    for text, target in pairs:
        if not target.strip():
            raise InputError(f"Empty target for the input {text[-80:]!r}: a request needs a text to edit in.")
        joints.append(text if text and text[-1].isspace() else text + " ")
    if not joints:
        return []
    whole = [joint + target for joint, (_, target) in zip(joints, pairs, strict=True)]
    encoded = tokenizer(whole, return_offsets_mapping=True, verbose=False)
    tokens = zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)
    return [
        _found(ids, ends, joint, pair, max_tokens)
        for joint, pair, (ids, ends) in zip(joints, pairs, tokens, strict=True)
    ]


def _found(
    ids: Sequence[int], ends: Sequence[tuple[int, int]], joint: str, pair: tuple[str, str], max_tokens: int
) -> TokenisedText:
    """Find where the target begins in the tokens of ``joint`` and target."""
    text, target = pair
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
