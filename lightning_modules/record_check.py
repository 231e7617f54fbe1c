"""Looks at every record of a run before the first step, so that a bad one does not end it hours later.

Knows records, pools and a tokenizer; nothing about training.
"""

from collections.abc import Iterable, Iterator, Mapping

from instructedit.base import Base
from instructedit.data.tokenise import tokenise
from instructedit.instructions.pools import InstructionPool, pool_for
from instructedit.instructions.rendering import render
from instructedit.records import EditExample

SLACK_BYTES = 64
"""What a rewording may add to a prompt, and a tokenizer to a text."""


def check_records(
    examples: Iterable[EditExample], base: Base, pools: Mapping[str, InstructionPool] | None = None
) -> None:
    """Refuse records without a target, or longer than the base's context with their longest instruction.

    A token is at least one byte of text, so only texts with more bytes than the context has tokens
    are tokenised: usually none.

    Raises:
        InputError: names the text.
    """
    for example in examples:
        for text, target in _texts(example, pools):
            if not target.strip() or len((text + target).encode()) + SLACK_BYTES > base.max_tokens:
                tokenise(base.tokenizer, text, target, base.max_tokens)


def _texts(example: EditExample, pools: Mapping[str, InstructionPool] | None) -> Iterator[tuple[str, str]]:
    request = example.request
    if pools is not None:
        pool = pool_for(pools, request.task)
        example = example.instructed(max((render(pool, d, request.slots) for d in pool.descriptions), key=len))
        request = example.request
    for target in (*request.targets, *request.avoid):
        yield request.text, target
    for probe in example.probes:
        yield probe.text, probe.target
