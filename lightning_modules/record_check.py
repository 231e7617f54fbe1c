"""Looks at every record of a run before the first step, so that a bad one does not end it hours later.

Knows records, pools and a tokenizer; nothing about training.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from instructedit.base import Base
from instructedit.data.paraphrase import rewordings
from instructedit.data.tokenise import tokenise
from instructedit.instructions.pools import InstructionPool, pool_for
from instructedit.instructions.rendering import render
from instructedit.records import EditExample

SLACK_BYTES = 16
"""What a tokenizer may add to a text."""


def check_records(
    examples: Iterable[EditExample],
    base: Base,
    pools: Mapping[str, InstructionPool] | None = None,
    reworded: bool = False,
) -> None:
    """Refuse records without a target, or longer than the base's context with their longest instruction.

    A token is at least one byte of text, so only texts with more bytes than the context has tokens
    are tokenised: usually none.

    Args:
        examples: the records.
        base: whose context and tokenizer count.
        pools: the instructions; None for none.
        reworded: whether training's own rewordings of the prompts will be asked too.

    Raises:
        InputError: names the text.
    """
    for example in examples:
        for text, target in _texts(example, pools, reworded):
            if not target.strip() or len((text + target).encode()) + SLACK_BYTES > base.max_tokens:
                tokenise(base.tokenizer, text, target, base.max_tokens)


def prepared_apart(folder: str | Path, tasks: Sequence[str]) -> list[str]:
    """Return the tasks whose data card says that some of the others were not prepared beside them.

    Only tasks prepared together have no training text that is a probe of another one's test split.
    A task without a card says nothing.
    """
    apart = []
    for task in tasks:
        try:
            card = json.loads((Path(folder) / task / "card.json").read_text(encoding="utf-8"))
            together = card["options"]["prepared_together"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if not set(tasks) <= set(together):
            apart.append(task)
    return apart


def _texts(
    example: EditExample, pools: Mapping[str, InstructionPool] | None, reworded: bool
) -> Iterator[tuple[str, str]]:
    request = example.request
    if pools is not None:
        pool = pool_for(pools, request.task)
        example = example.instructed(max((render(pool, d, request.slots) for d in pool.descriptions), key=len))
        request = example.request
    for target in (*request.targets, *request.avoid):
        yield request.text, target
    if request.old_answer:  # what locality keeps when another record borrows this prompt
        yield request.prompt, request.old_answer
    for text in rewordings(request.prompt, request.subject) if reworded else ():
        for target in (request.target, request.old_answer or request.target):
            yield request.instruction + text, target
    for probe in example.probes:
        yield probe.text, probe.target
