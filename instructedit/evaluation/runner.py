"""Asks a method's edits all their probes: examples in, one ``Outcome`` per example and metric out.

The same for every method. Each example is edited by itself, whatever is beside it in a batch; the
numbers are not averaged here. Knows nothing about files, tables or training.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch

from instructedit.base.split import Split
from instructedit.data.rows import Rows
from instructedit.data.tokenise import TokenisedText, tokenise
from instructedit.errors import InputError
from instructedit.evaluation.metrics import METRIC_OF, METRICS, exact, hits, mean, share
from instructedit.instructions.pools import InstructionPool, pool_for
from instructedit.instructions.rendering import seen_instruction, unseen_instruction
from instructedit.metatrain import Stage
from instructedit.methods.base import Edit, EditMethod
from instructedit.records import EditExample, Outcome

TOKENS_PER_PASS = 1024
"""Tokens of one tail pass, padding included; long enough to keep a machine busy, and what bounds the memory."""

LOGITS_PER_CHUNK = 256
"""Target positions whose logits exist at once."""


@dataclass(frozen=True)
class _Question:
    """One text to score, and the metric it counts for."""

    metric: str
    text: TokenisedText


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
    on_progress: Callable[[int], None] | None = None,
) -> list[Outcome]:
    """Edit every example in, by itself, and measure what the edit did.

    Args:
        method: any method.
        stage: the base, split at or below the first block the method edits.
        examples: what to ask, instructions already put in (see ``dress``).
        name: the row of the table; None takes the method's name.
        batch: edits made at once.
        tokens_per_pass: tokens of one tail pass, padding included.
        on_progress: called after every batch with the number of examples it had.

    Returns:
        Per example, in order, the metrics it has probes for (reliability always), each followed by
        its ``_exact`` variant. Texts the request wants are the probes of reliability.

    Raises:
        InputError: the split lies above an edited block, a number is below 1, a text is longer than
            the context (found before the first edit is made).
    """
    if batch < 1 or tokens_per_pass < 1:
        raise InputError(f"batch and tokens_per_pass must be at least 1; found {batch} and {tokens_per_pass}.")
    lowest = method.first_block(stage.base)
    if stage.split.first_block > lowest:
        raise InputError(
            f"{method.name} edits block {lowest}, but the base is split before block {stage.split.first_block}. "
            f"Split it before block {lowest} or lower."
        )
    questions = [list(_questions(stage, example)) for example in examples]
    outcomes: list[Outcome] = []
    # A trainer validates in inference mode: a state the store keeps from there could never be trained on.
    with torch.inference_mode(False), torch.no_grad():
        for start in range(0, len(examples), batch):
            asked = questions[start : start + batch]
            requests = [example.request for example in examples[start : start + batch]]
            hit = _ask(method.edit(stage.base, requests), stage, asked, tokens_per_pass)
            for request, own, own_hits in zip(requests, asked, hit, strict=True):
                label = (request.id, request.task, name or method.name)
                outcomes += _outcomes(label, own, own_hits)
            if on_progress:
                on_progress(len(requests))
    return outcomes


def _questions(stage: Stage, example: EditExample) -> Iterator[_Question]:
    """Tokenise everything an example is asked: its request's wanted texts, then its probes."""

    def text(prompt: str, target: str) -> TokenisedText:
        return tokenise(stage.base.tokenizer, prompt, target, stage.base.max_tokens)

    for target in example.request.targets:
        yield _Question("reliability", text(example.request.text, target))
    for probe in example.probes:
        if probe.kind in METRIC_OF:
            yield _Question(METRIC_OF[probe.kind], text(probe.text, probe.target))


def _ask(
    edit: Edit, stage: Stage, questions: Sequence[Sequence[_Question]], tokens_per_pass: int
) -> list[list[list[bool]]]:
    """Ask b requests' questions under their own edits: per request, per question, per target token a hit."""
    hit: list[list[list[bool]]] = [[[] for _ in own] for own in questions]
    places = [(r, q) for r, own in enumerate(questions) for q in range(len(own))]
    # Locality stays apart: it is short, having no instruction, and is asked a second time without the edit.
    local = [(r, q) for r, q in places if questions[r][q].metric == "locality"]
    edited = [(r, q) for r, q in places if questions[r][q].metric != "locality"]
    for group, twice in ((local, True), (edited, False)):
        texts = [questions[r][q].text for r, q in group]
        for chosen in passes([len(text.ids) for text in texts], tokens_per_pass):
            # Both are in the order of the requests, so row n is the n-th chosen text.
            rows = Rows.of((group[index][0], texts[index]) for index in chosen)
            hidden = stage.hidden(rows)
            # Before and after see the very same tensors, so that without an edit nothing differs.
            before = _argmaxes(stage.split, hidden, rows) if twice else None
            with edit.applied(rows.request_index(hidden.device)):
                after = _argmaxes(stage.split, hidden, rows)
            for row, index in enumerate(chosen):
                r, q = group[index]
                wanted = before[row] if before else texts[index].ids[-texts[index].n_target :]
                hit[r][q] = hits(after[row], wanted)
    return hit


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


def _argmaxes(split: Split, hidden: torch.Tensor, rows: Rows) -> list[list[int]]:
    """Run the tail over hidden states (n, t, d): per row the argmax at each of its target positions."""
    states = rows.targets(hidden.device).select(split.tail(hidden))
    found = torch.cat([split.logits(part).argmax(-1) for part in states.split(LOGITS_PER_CHUNK)]).tolist()
    return [found[end - n : end] for end, n in zip(accumulate(rows.n_target), rows.n_target, strict=True)]


def _outcomes(
    label: tuple[str, str, str], questions: Sequence[_Question], hit: Sequence[Sequence[bool]]
) -> Iterator[Outcome]:
    """Reduce one example's hits to one value per metric and variant."""
    for metric in METRICS:
        own = [h for question, h in zip(questions, hit, strict=True) if question.metric == metric]
        if own:
            n_tokens = sum(len(h) for h in own)
            yield Outcome(*label, metric, mean([share(h) for h in own]), n_tokens, len(own))
            yield Outcome(*label, f"{metric}_exact", mean([exact(h) for h in own]), n_tokens, len(own))
