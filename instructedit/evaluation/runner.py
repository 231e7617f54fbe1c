"""Asks a method's edits all their probes: examples in, one ``Outcome`` per example and metric out.

The same for every method; the numbers are not averaged here. Knows nothing about files, tables or training, and
leaves reading the answers to ``forced`` and ``generated``.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import LongTensor

from instructedit.base.model import Base
from instructedit.errors import InputError, unknown
from instructedit.evaluation.forced import forced_values
from instructedit.evaluation.generated import Generated, GeneratedText, check_room, generated_values
from instructedit.evaluation.greedy import BeforeCache
from instructedit.evaluation.metrics import METRICS, NAMES
from instructedit.evaluation.questions import questions_of
from instructedit.instructions.controls import Which, instruction_for
from instructedit.instructions.pools import InstructionPool
from instructedit.metatrain import Stage
from instructedit.methods.base import Edit, EditMethod
from instructedit.methods.several import edit_in_sequence, edit_together
from instructedit.records import EditExample, EditRequest, Outcome

TOKENS_PER_PASS = 1024
"""Tokens of one tail pass, padding included; long enough to keep a machine busy, and what bounds the memory."""

Editing = Literal["alone", "together", "sequence"]
"""How a batch's requests are edited in: each by itself, all in one base at once, all in one base one by one."""


@dataclass(frozen=True)
class _Shared:
    """An edit that holds all of a batch's requests: every row sees all of it, whichever request it belongs to."""

    edit: Edit

    def applied(self, rows: LongTensor | None = None) -> AbstractContextManager[None]:
        return self.edit.applied()


def dress(
    examples: Sequence[EditExample],
    pools: Mapping[str, InstructionPool] | None,
    which: Which | None,
) -> list[EditExample]:
    """Put instructions into examples: in front of the request and of every probe that takes one.

    Args:
        examples: examples without instructions.
        pools: the instruction pools; needed where ``which`` is given and not ``empty``.
        which: the seen instruction of each record, chosen by its id; the one no training shows; a control; or None.
            None and ``empty`` leave the examples as they are. A method that has pools of its own puts the seen
            instruction in front of bare requests; ``empty`` asks its ``HyperMethod.bare()``.

    Raises:
        InputError: a task has no pool, a placeholder no slot, a control cannot be made, or there are no pools at all.
    """
    if which is None or which == "empty":
        return list(examples)
    if pools is None:
        raise InputError(f"No instruction pools were given for the {which} instructions. Name their file or folder.")
    return [example.instructed(instruction_for(which, pools, example.request)) for example in examples]


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
    editing: Editing = "alone",
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
    if editing not in get_args(Editing):
        raise unknown("way of editing", editing, get_args(Editing))
    if batch < 1 or tokens_per_pass < 1:
        raise InputError(f"batch and tokens_per_pass must be at least 1; found {batch} and {tokens_per_pass}.")
    lowest = method.first_block(stage.base)
    if stage.split.first_block > lowest:
        raise InputError(
            f"{method.name} edits block {lowest}, but the base is split before block {stage.split.first_block}. "
            f"Split it before block {lowest} or lower."
        )
    measured = METRICS if metrics is None else metrics
    questions = [list(questions_of(stage.base, example, measured)) for example in examples]
    generated = _measured(generated or Generated(), measured)
    for example, own in zip(examples, questions, strict=True):
        check_room(stage.base, example.request, own, generated)
    before = before or BeforeCache()
    outcomes: list[Outcome] = []
    # A trainer validates in inference mode: a state the store keeps from there could never be trained on.
    with torch.inference_mode(False), torch.no_grad():
        for start in range(0, len(examples), batch):
            asked = questions[start : start + batch]
            requests = [example.request for example in examples[start : start + batch]]
            edit = _edited(method, stage.base, requests, editing)
            forced = forced_values(edit, stage, asked, tokens_per_pass)
            free = generated_values(edit, stage.base, requests, asked, generated, before)
            for request, values, (more, said) in zip(requests, forced, free, strict=True):
                label = (request.id, request.task, name or method.name)
                found = sorted([*values, *more], key=lambda value: NAMES.index(value.metric))
                outcomes += [Outcome(*label, v.metric, v.value, v.n_tokens, v.n_probes) for v in found]
                if on_text:
                    for each in said:
                        on_text(GeneratedText(*label, each.kind, each.prompt, each.text, each.wanted))
            if on_progress:
                on_progress(len(requests))
    return outcomes


def _edited(method: EditMethod, base: Base, requests: Sequence[EditRequest], editing: Editing) -> Edit:
    """Edit a batch's requests in; row n of what is asked sees the edit of request rows[n], or of all of them."""
    if editing == "alone":
        return method.edit(base, requests)
    return _Shared((edit_together if editing == "together" else edit_in_sequence)(method, base, requests))


def _measured(generated: Generated, metrics: Collection[str]) -> Generated:
    """Leave fluency out where it is not measured; the questions of other metrics are left out already."""
    return generated if "fluency" in metrics else replace(generated, fluency=frozenset())
