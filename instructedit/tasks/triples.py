"""The two tasks over WikiData triples share one record layout; this reads it.

Knows KnowEdit's fields subject, prompt, target_new, ground_truth, rephrase, portability and locality.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from instructedit.records import EditExample, EditRequest
from instructedit.tasks.base import Reject, SourceFile, SourceSplit
from instructedit.tasks.knowedit import (
    ProbeReader,
    Unfit,
    answers,
    load_list,
    optional_text,
    present,
    read_records,
    required_text,
    shown,
)


def read_triples(
    task: str, source: Path, split: SourceSplit, files: tuple[SourceFile, ...]
) -> Iterator[EditExample | Reject]:
    """Yield the examples and rejects of one split's files."""

    def build(record: Mapping[str, Any], index: int) -> tuple[EditExample, list[str]]:
        return triple_example(record, task, f"{task}-{split}-{index}")

    seen: set[tuple[str, str]] = set()
    for path in present(source, files):
        yield from read_records(load_list(path), shown(path, source), build, seen)


def triple_example(record: Mapping[str, Any], task: str, id: str) -> tuple[EditExample, list[str]]:
    """Make one record an example, with the reasons for which probes were left out; raises Unfit."""
    prompt, target = required_text(record, "prompt"), required_text(record, "target_new")
    request = EditRequest(
        prompt=prompt,
        target=target,
        id=id,
        task=task,
        subject=optional_text(record, "subject"),
        old_answer=_old_answer(record.get("ground_truth"), target),
    )
    reader = ProbeReader(prompt, target)
    reader.add_rephrases(record.get("rephrase") or record.get("rephrase_prompt"))
    reader.add_kinds("portability", "portability", record.get("portability"))
    reader.add_kinds("locality", "locality", record.get("locality"))
    return EditExample(request, reader.finished()), reader.left_out


def _old_answer(value: Any, target: str) -> str:
    if value is None or value == "" or value == []:
        return ""
    try:
        names = [name for answer in answers(value) for name in answer]
    except Unfit as unfit:
        raise Unfit(f"'ground_truth': {unfit.reason}") from unfit
    # The target among the old answers is what a reader compares with: then the edit changes nothing.
    return next((name for name in names if name.casefold() == target.casefold()), names[0])
