"""Teacher-forced answers: the target stands in the input, and the tail is read where it predicts its tokens.

Knows an edit by its ``applied`` alone, and questions; nothing about methods, records or generation.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from instructedit.base.split import Split
from instructedit.data.rows import Rows
from instructedit.evaluation.metrics import METRIC_OF, METRICS, Value, exact, hits, mean, named, share, success
from instructedit.evaluation.questions import Asked, Question
from instructedit.losses import token_nll
from instructedit.metatrain import Stage
from instructedit.methods.base import Edit

LOGITS_PER_CHUNK = 256
"""Target positions whose logits exist at once."""


@dataclass(frozen=True)
class _Answer:
    """What a question's t target positions gave, as tensors (t,).

    Each holds argmaxes; for wanted and unwanted texts the log-probabilities of the target tokens.
    ``before`` is the same without the edit where the kind is asked twice, else the target tokens.
    """

    kind: Asked
    after: Tensor
    before: Tensor


def forced_values(
    edit: Edit, stage: Stage, questions: Sequence[Sequence[Question]], tokens_per_pass: int
) -> list[list[Value]]:
    """Ask b requests' questions under their own edits: per request one value per metric, and its exact match."""
    return [list(_values(answers)) for answers in _ask(edit, stage, questions, tokens_per_pass)]


def _ask(
    edit: Edit, stage: Stage, questions: Sequence[Sequence[Question]], tokens_per_pass: int
) -> list[list[_Answer]]:
    """Return per request, per question an answer."""
    found: dict[tuple[int, int], _Answer] = {}
    for kinds, read, twice in _ROUNDS:
        group = [(r, q) for r, own in enumerate(questions) for q, question in enumerate(own) if question.kind in kinds]
        texts = [questions[r][q].text for r, q in group]
        for chosen in passes([len(text.ids) for text in texts], tokens_per_pass):
            # Both are in the order of the requests, so row n is the n-th chosen text.
            rows = Rows.of((group[index][0], texts[index]) for index in chosen)
            hidden = stage.hidden(rows)
            # Before and after see the very same tensors, so that without an edit nothing differs.
            before = _read(stage.split, hidden, rows, read) if twice else rows.targets().label
            with edit.applied(rows.request_index(hidden.device)):
                after = _read(stage.split, hidden, rows, read)
            sizes = list(rows.n_target)
            for index, *both in zip(chosen, after.split(sizes), before.split(sizes), strict=True):
                r, q = group[index]
                found[r, q] = _Answer(questions[r][q].kind, *both)
    return [[found[r, q] for q in range(len(own))] for r, own in enumerate(questions)]


def passes(lengths: Sequence[int], tokens_per_pass: int) -> list[list[int]]:
    """Group rows of like length into passes.

    A pass holds at most ``tokens_per_pass`` tokens, padding included (a row alone may be longer), and
    no row more than half as long again as another, so at most a third of a pass is padding.

    Args:
        lengths: tokens of each row.
        tokens_per_pass: the bound.

    Returns:
        The indices of each pass's rows, increasing within it; every row is in exactly one.
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        length = lengths[index]
        # The rows come shortest first, so this one sets the padded length of the pass it joins.
        fits = groups and (len(groups[-1]) + 1) * length <= tokens_per_pass
        if fits and 2 * length <= 3 * lengths[groups[-1][0]]:
            groups[-1].append(index)
        else:
            groups.append([index])
    return [sorted(group) for group in groups]


def _argmax(logits: Tensor, label: Tensor) -> Tensor:
    return logits.argmax(-1)


def _log_probability(logits: Tensor, label: Tensor) -> Tensor:
    return -token_nll(logits, label)


_ROUNDS: tuple[tuple[frozenset[Asked], Callable[[Tensor, Tensor], Tensor], bool], ...] = (
    (frozenset({"locality"}), _argmax, True),
    (frozenset({"request", "rephrase", "portability"}), _argmax, False),
    (frozenset({"wanted"}), _log_probability, True),
    (frozenset({"unwanted"}), _log_probability, False),
)
"""Kinds asked together, what is read off their logits (m, vocabulary) and labels (m,), and whether it is also read
without the edit."""


def _read(split: Split, hidden: Tensor, rows: Rows, read: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Run the tail over hidden states (n, t, d) and read each target position: (m,) on the CPU, row after row."""
    targets = rows.targets(hidden.device)
    states = targets.select(split.tail(hidden)).split(LOGITS_PER_CHUNK)
    labels = targets.label.split(LOGITS_PER_CHUNK)
    return torch.cat([read(split.logits(part), label) for part, label in zip(states, labels, strict=True)]).cpu()


def _values(answers: Sequence[_Answer]) -> Iterator[Value]:
    """Reduce one example's answers to one value per metric and variant."""
    for metric in METRICS:
        own = [answer for answer in answers if METRIC_OF[answer.kind] == metric]
        behind = (sum(len(answer.after) for answer in own), len(own))
        if metric == "success":
            if {answer.kind for answer in own} == {"wanted", "unwanted"}:
                yield Value(metric, _success(own), *behind)
        elif own:
            hit = [hits(answer.after.tolist(), answer.before.tolist()) for answer in own]
            yield Value(metric, mean([share(h) for h in hit]), *behind)
            yield Value(named(metric, "exact"), mean([exact(h) for h in hit]), *behind)


def _success(answers: Sequence[_Answer]) -> float:
    wanted = [answer for answer in answers if answer.kind == "wanted"]
    unwanted = [answer for answer in answers if answer.kind == "unwanted"]
    return success(
        mean([float(answer.after.mean()) for answer in wanted]),
        mean([float(answer.after.mean()) for answer in unwanted]),
        mean([float(answer.before.mean()) for answer in wanted]),
    )
