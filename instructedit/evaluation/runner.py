"""Asks a method's edits all their probes: examples in, one ``Outcome`` per example and metric out.

The same for every method. Each example is edited by itself, whatever is beside it in a batch; the
numbers are not averaged here. Knows nothing about files, tables or training.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from instructedit.base.split import Split
from instructedit.data.rows import Rows
from instructedit.data.tokenise import TokenisedText, tokenise
from instructedit.errors import InputError, unknown
from instructedit.evaluation.generated import BeforeCache, Generated, GeneratedText
from instructedit.evaluation.metrics import METRIC_OF, METRICS, exact, hits, mean, share, success
from instructedit.instructions.pools import InstructionPool, pool_for
from instructedit.instructions.rendering import seen_instruction, unseen_instruction
from instructedit.losses import token_nll
from instructedit.metatrain import Stage
from instructedit.methods.base import Edit, EditMethod
from instructedit.records import EditExample, Outcome, ProbeKind

TOKENS_PER_PASS = 1024
"""Tokens of one tail pass, padding included; long enough to keep a machine busy, and what bounds the memory."""

LOGITS_PER_CHUNK = 256
"""Target positions whose logits exist at once."""


Asked = Literal["request"] | ProbeKind


@dataclass(frozen=True)
class _Question:
    """One text to score, and what it is: the request's own, or a kind of probe."""

    kind: Asked
    text: TokenisedText


@dataclass(frozen=True)
class _Answer:
    """What a question's t target positions gave, as tensors (t,).

    Each holds argmaxes; for wanted and unwanted texts the log-probabilities of the target tokens.
    ``before`` is the same without the edit where the kind is asked twice, else the target tokens.
    """

    kind: Asked
    after: Tensor
    before: Tensor


def dress(
    examples: Sequence[EditExample],
    pools: Mapping[str, InstructionPool] | None,
    which: Literal["seen", "unseen"] | None,
) -> list[EditExample]:
    """Put instructions into examples: in front of the request and of every probe that takes one.

    Args:
        examples: examples without instructions.
        pools: the instruction pools; needed where ``which`` is given.
        which: the seen instruction of each record, chosen by its id; the one no training shows; or
            None, which leaves the examples as they are.

    Raises:
        InputError: a task has no pool, a placeholder no slot, or there are no pools at all.
    """
    if which is None:
        return list(examples)
    if pools is None:
        raise InputError(f"No instruction pools were given for the {which} instructions. Name their file or folder.")
    choose = seen_instruction if which == "seen" else unseen_instruction
    return [example.instructed(choose(pool_for(pools, example.request.task), example.request)) for example in examples]


def evaluate(
    method: EditMethod,
    stage: Stage,
    examples: Sequence[EditExample],
    *,
    name: str | None = None,
    batch: int = 8,
    tokens_per_pass: int = TOKENS_PER_PASS,
    metrics: Collection[str] | None = None,
    generated: Generated | None = None,
    editing: Literal["alone", "together", "sequence"] = "alone",
    before: BeforeCache | None = None,
    on_text: Callable[[GeneratedText], None] | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> list[Outcome]:
    """Edit examples in and measure what the edits did.

    Args:
        method: any method.
        stage: the base, split at or below the first block the method edits.
        examples: what to ask, instructions already put in (see ``dress``).
        name: the row of the table; None takes the method's name.
        batch: edits made at once; where they are not alone, edits that share a base.
        tokens_per_pass: tokens of one tail pass, padding included.
        metrics: what to measure, without suffixes; the probes of the others are not asked. None is all.
        generated: which records are also asked by generation; None asks none.
        editing: each example by itself, whatever is beside it in a batch; or all of a batch's requests in one base,
            edited in together or one after another, and then all the batch's probes. Locality is always agreement
            with the unedited base.
        before: what the unedited base says by greedy generation, kept from one evaluation to the next.
        on_text: called with every continuation.
        on_progress: called after every batch with the number of examples it had.

    Returns:
        Per example, in order, the metrics it has probes for (reliability always) in the order of
        ``metrics.NAMES``. Texts the request wants are the probes of reliability.

    Raises:
        InputError: the split lies above an edited block, a number is below 1, a metric does not
            exist, a text is longer than the context (found before the first edit is made).
    """
    for metric in metrics or ():
        if metric not in METRICS:
            raise unknown("metric", metric, METRICS)
    if batch < 1 or tokens_per_pass < 1:
        raise InputError(f"batch and tokens_per_pass must be at least 1; found {batch} and {tokens_per_pass}.")
    lowest = method.first_block(stage.base)
    if stage.split.first_block > lowest:
        raise InputError(
            f"{method.name} edits block {lowest}, but the base is split before block {stage.split.first_block}. "
            f"Split it before block {lowest} or lower."
        )
    measured = METRICS if metrics is None else metrics
    questions = [list(_questions(stage, example, measured)) for example in examples]
    outcomes: list[Outcome] = []
    # A trainer validates in inference mode: a state the store keeps from there could never be trained on.
    with torch.inference_mode(False), torch.no_grad():
        for start in range(0, len(examples), batch):
            asked = questions[start : start + batch]
            requests = [example.request for example in examples[start : start + batch]]
            answers = _ask(method.edit(stage.base, requests), stage, asked, tokens_per_pass)
            for request, own in zip(requests, answers, strict=True):
                outcomes += _outcomes((request.id, request.task, name or method.name), own)
            if on_progress:
                on_progress(len(requests))
    return outcomes


def _questions(stage: Stage, example: EditExample, metrics: Collection[str]) -> Iterator[_Question]:
    """Tokenise everything an example is asked: its request's wanted texts, then its probes."""
    asked: list[tuple[Asked, str, str]] = [
        *(("request", example.request.text, target) for target in example.request.targets),
        *((probe.kind, probe.text, probe.target) for probe in example.probes),
    ]
    for kind, text, target in asked:
        if METRIC_OF[kind] in metrics:
            yield _Question(kind, tokenise(stage.base.tokenizer, text, target, stage.base.max_tokens))


def _ask(
    edit: Edit, stage: Stage, questions: Sequence[Sequence[_Question]], tokens_per_pass: int
) -> list[list[_Answer]]:
    """Ask b requests' questions under their own edits: per request, per question an answer."""
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


def _outcomes(label: tuple[str, str, str], answers: Sequence[_Answer]) -> Iterator[Outcome]:
    """Reduce one example's answers to one value per metric and variant."""
    for metric in METRICS:
        own = [answer for answer in answers if METRIC_OF[answer.kind] == metric]
        behind = (sum(len(answer.after) for answer in own), len(own))
        if metric == "success":
            if {answer.kind for answer in own} == {"wanted", "unwanted"}:
                yield Outcome(*label, metric, _success(own), *behind)
        elif own:
            hit = [hits(answer.after.tolist(), answer.before.tolist()) for answer in own]
            yield Outcome(*label, metric, mean([share(h) for h in hit]), *behind)
            yield Outcome(*label, f"{metric}_exact", mean([exact(h) for h in hit]), *behind)


def _success(answers: Sequence[_Answer]) -> float:
    wanted = [answer for answer in answers if answer.kind == "wanted"]
    unwanted = [answer for answer in answers if answer.kind == "unwanted"]
    return success(
        mean([float(answer.after.mean()) for answer in wanted]),
        mean([float(answer.after.mean()) for answer in unwanted]),
        mean([float(answer.before.mean()) for answer in wanted]),
    )
