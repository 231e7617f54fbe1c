"""What KE is told about a request: its prompt, the old answer and the new one, as vectors per token.

One text of tokens, "prompt SEP old answer SEP new answer" (De Cao et al. 2021, section 3.2), looked
up in the base's frozen input embeddings. SEP is the tokenizer's end-of-text token: it stands between
texts in pretraining too. Where the source tells no old answer, it is what the base answers greedily.
Knows requests and the base; knows nothing about editors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import LongTensor, Tensor

from instructedit.base.generation import continuations
from instructedit.base.model import Base
from instructedit.data.tokenise import tokenise
from instructedit.errors import InputError
from instructedit.hooks import count_hooks
from instructedit.records import EditRequest

MAX_ANSWER = 8
"""Tokens of a greedy answer, at most; it is also no longer than the new answer."""


@dataclass(frozen=True)
class Conditions:
    """The embedded texts of b requests, padded with zeros on the right.

    Shapes: embedded (b, t, d) in fp32, lengths (b,) int64 on the CPU, each at least 1.
    """

    embedded: Tensor
    lengths: LongTensor


class OldAnswers:
    """The base's greedy answers, each found once.

    Requests are answered one by one: next to others an answer could differ by a rounding, and a
    resumed run, which answers them in other company, would not be the same to the bit.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[int, ...], tuple[int, ...]] = {}

    def of(self, base: Base, prompt: tuple[int, ...], n_tokens: int) -> tuple[int, ...]:
        """Return at most so many tokens of the base's greedy answer to a prompt's tokens.

        Under an edit that is applied, the edited base answers and nothing is kept.
        """
        if count_hooks(base.model):
            return continuations(base, [prompt], n_tokens)[0]
        known = (*prompt, n_tokens)
        if known not in self._known:
            self._known[known] = continuations(base, [prompt], n_tokens)[0]
        return self._known[known]


def condition_tokens(base: Base, answers: OldAnswers, request: EditRequest) -> tuple[int, ...]:
    """Return the tokens of "prompt SEP old answer SEP new answer".

    Without the instruction, which KE does not know. The new answer is the first wanted text: further
    ones reach the editor through the gradient alone.

    Raises:
        InputError: a text is empty or too long, or the tokenizer has no end-of-text token.
    """
    separator = base.tokenizer.eos_token_id
    if separator is None:
        raise InputError(f"KE needs a tokenizer with an end-of-text token; that of base {base.name!r} has none.")
    wanted = tokenise(base.tokenizer, request.prompt, request.target, base.max_tokens)
    prompt, new = wanted.ids[: -wanted.n_target], wanted.ids[-wanted.n_target :]
    if request.old_answer.strip():
        told = tokenise(base.tokenizer, request.prompt, request.old_answer, base.max_tokens)
        old = told.ids[-told.n_target :]
    else:
        old = answers.of(base, prompt, min(len(new), MAX_ANSWER))
    return (*prompt, separator, *old, separator, *new)


@torch.no_grad()
def conditions_of(base: Base, answers: OldAnswers, requests: Sequence[EditRequest]) -> Conditions:
    """Embed what KE is told about each request.

    Every token's vector is brought to mean 0 and variance 1: the bases' embeddings differ in size by
    far more than an LSTM's starting weights would forgive.

    Raises:
        InputError: as ``condition_tokens``.
    """
    texts = [condition_tokens(base, answers, request) for request in requests]
    embedding = base.model.get_input_embeddings()
    vectors = [embedding(torch.tensor(text, device=base.device)).float() for text in texts]
    scaled = [torch.nn.functional.layer_norm(vector, vector.shape[-1:]) for vector in vectors]
    lengths: LongTensor = torch.tensor([len(text) for text in texts])  # type: ignore[assignment]
    return Conditions(torch.nn.utils.rnn.pad_sequence(scaled, batch_first=True), lengths)
