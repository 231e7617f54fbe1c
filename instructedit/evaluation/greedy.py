"""Greedy continuations beside the targets: what an edited base says when nobody tells it the answer.

A continuation starts from the tokens before the target, the very place the teacher-forced metrics are taken at.
Knows an edit by its ``applied`` alone, and questions; nothing about methods, records or files.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import LongTensor

from instructedit.base.generation import continuations, decoded, like_lengths
from instructedit.base.model import Base
from instructedit.evaluation.metrics import (
    LOOK_AHEAD,
    METRIC_OF,
    VARIED,
    Value,
    begins_with,
    exact,
    hits,
    mean,
    named,
    share,
)
from instructedit.evaluation.questions import Asked, Question
from instructedit.methods.base import Edit

_END = -1
"""Stands in the places after a continuation's end; no token has this id."""


class BeforeCache:
    """Greedy continuations of unedited bases; hand one object to the evaluations of several methods.

    Kept by whole passes, since a row's neighbours may move its rounding, and an edit that changes nothing must agree
    with the base exactly. So they are found again where the same examples come in the same batches.
    """

    def __init__(self) -> None:
        self._found: dict[tuple[object, ...], list[tuple[int, ...]]] = {}

    def continuations(self, base: Base, inputs: Sequence[tuple[int, ...]], tokens: int) -> list[tuple[int, ...]]:
        """Continue n inputs in one pass, or say again what was said before; no edit may be applied."""
        key = (base.fingerprint, base.dtype, base.device, tuple(inputs), tokens)
        if key not in self._found:
            self._found[key] = continuations(base, inputs, tokens)
        return self._found[key]


@dataclass(frozen=True)
class Said:
    """One continuation: a ``GeneratedText`` but for whose it is."""

    kind: Asked | Literal["fluency"]
    prompt: str
    text: str
    wanted: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Start:
    """What one continuation starts from, and under whose edit."""

    request: int
    local: bool
    ids: tuple[int, ...]


def greedy_values(
    edit: Edit, base: Base, questions: Mapping[int, Sequence[Question]], rows_per_pass: int, before: BeforeCache
) -> dict[int, tuple[list[Value], list[Said]]]:
    """Ask requests' questions by greedy generation under their own edits.

    Args:
        edit: the edit of b requests.
        base: the base.
        questions: what is asked of a request, by its index among the b.
        rows_per_pass: sequences generated at once.
        before: where the unedited base's continuations are kept.

    Returns:
        Per request the values of every metric it has questions for, and every continuation.
    """
    needed = _needed(base, questions)
    after: dict[_Start, tuple[int, ...]] = {}
    kept: dict[_Start, tuple[int, ...]] = {}
    for starts in _groups(needed, rows_per_pass):
        inputs = [start.ids for start in starts]
        tokens = max(needed[start] for start in starts)
        with edit.applied(row_index([start.request for start in starts], base.device)):
            found = continuations(base, inputs, tokens)
        # A pass goes on for its longest row; what is judged must not depend on the neighbours.
        after |= {start: ids[: needed[start]] for start, ids in zip(starts, found, strict=True)}
        if starts[0].local:
            found = before.continuations(base, inputs, tokens)
            kept |= {start: ids[: needed[start]] for start, ids in zip(starts, found, strict=True)}
    return {number: _judged(base, number, own, after, kept) for number, own in questions.items()}


def most_tokens(base: Base, questions: Sequence[Question]) -> int:
    """Return how long a sequence may become when questions are asked by generation, in tokens."""
    return max((len(start.ids) + _rounded(n) for start, n in _needed(base, {0: questions}).items()), default=0)


def row_index(requests: Sequence[int], device: torch.device) -> LongTensor:
    """Return (n,): the request of each row."""
    return torch.tensor(requests, dtype=torch.long, device=device)  # type: ignore[return-value]


def _needed(base: Base, questions: Mapping[int, Sequence[Question]]) -> dict[_Start, int]:
    """Say what is to be continued, each distinct start of a request once, and by how many tokens."""
    needed: dict[_Start, int] = {}
    for number, own in questions.items():
        for question in own:
            if METRIC_OF[question.kind] in VARIED:
                start = _start(number, question)
                needed[start] = max(needed.get(start, 0), _tokens(base, question))
    return needed


def _start(number: int, question: Question) -> _Start:
    return _Start(number, question.kind == "locality", question.prompt_ids)


def _tokens(base: Base, question: Question) -> int:
    """Return how many tokens must be seen to judge a question."""
    if question.kind == "locality":
        return question.text.n_target
    encoded = base.tokenizer([" " + answer for answer in question.answers], add_special_tokens=False)["input_ids"]
    return max(question.text.n_target, *map(len, encoded)) + LOOK_AHEAD


def _rounded(tokens: int) -> int:
    """Round up to a power of two."""
    return 1 << (tokens - 1).bit_length()


def _groups(needed: Mapping[_Start, int], rows_per_pass: int) -> list[list[_Start]]:
    """Group starts that are generated together: locality by itself, and alike in length before and after.

    Locality by itself: its passes are then the same ones for a method with instructions and one without. Alike: a
    short answer does not wait for a long one's tokens.
    """
    alike: dict[tuple[bool, int], list[_Start]] = {}
    for start, tokens in needed.items():
        alike.setdefault((start.local, _rounded(tokens)), []).append(start)
    return [
        [starts[index] for index in chosen]
        for _, starts in sorted(alike.items())
        for chosen in like_lengths([len(start.ids) for start in starts], rows_per_pass)
    ]


def _judged(
    base: Base,
    number: int,
    questions: Sequence[Question],
    after: Mapping[_Start, tuple[int, ...]],
    kept: Mapping[_Start, tuple[int, ...]],
) -> tuple[list[Value], list[Said]]:
    """Compare one request's continuations with what was wanted."""
    scores: dict[str, list[tuple[float, float, int]]] = {}
    said: list[Said] = []
    for question in questions:
        metric, start, n = METRIC_OF[question.kind], _start(number, question), question.text.n_target
        if metric not in VARIED:
            continue
        text = decoded(base, after[start])
        if start.local:
            hit = hits(_filled(after[start], n), _filled(kept[start], n))
            whole, wanted = exact(hit), [decoded(base, kept[start])]
        else:
            hit = hits(_filled(after[start], n), question.target_ids)
            whole = float(any(begins_with(text, answer) for answer in question.answers))
            wanted = list(question.answers)
        scores.setdefault(metric, []).append((share(hit), whole, n))
        said.append(Said(question.kind, question.prompt, text, tuple(wanted)))
    values = []
    for metric, found in scores.items():
        shares, wholes, sizes = zip(*found, strict=True)
        values.append(Value(named(metric, "greedy"), mean(shares), sum(sizes), len(sizes)))
        values.append(Value(named(metric, "greedy_exact"), mean(wholes), sum(sizes), len(sizes)))
    return values, said


def _filled(tokens: Sequence[int], n: int) -> list[int]:
    """Return the first n tokens; the places after a continuation's end hold the mark of the end."""
    return [*tokens[:n], *[_END] * (n - len(tokens))]
