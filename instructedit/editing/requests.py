"""Requests as a user writes them: flags of a command line, or a file with one JSON object a line.

Knows texts; nothing of editors or bases. A bad line stops everything, with its number: nothing is edited by halves.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from instructedit.errors import InputError
from instructedit.records import EditExample
from instructedit.tasks.jsonl import FIELDS, Jsonl
from instructedit.tasks.knowedit import Unfit, optional_text

OWN = ("task", "instruction")
"""Fields a line may have beside those of a prepared task's."""

SHOWN_FAULTS = 3


@dataclass(frozen=True)
class Wanted:
    """One thing to edit in, as it was asked for.

    Args:
        example: the request, and what else to ask after the edit.
        description: an instruction in the user's own words; empty for one of the task's.
    """

    example: EditExample
    description: str = ""


def read_requests(path: Path, task: str = "") -> list[Wanted]:
    """Read a file of requests: lines as `prepare` reads them for a task of one's own, with two more fields.

    Args:
        path: the file. A line holds ``prompt`` and ``target`` and what else `tasks.jsonl.Jsonl` lists, and where wanted
            ``task`` and ``instruction``.
        task: of lines that name none.

    Raises:
        InputError: there is no such file, or lines are malformed; it names the first few, by number.
    """
    if not path.is_file():
        raise InputError(f"No file {path}. Give --file a file with one JSON object a line.")
    source = Jsonl(path.stem, str(path))
    found, faults = [], []
    for index, line in source.lines():
        try:
            found.append(_wanted(source, line, index, task))
        except Unfit as unfit:
            faults.append(f"line {index + 1}: {unfit.reason}")
    if faults:
        more = f"; {len(faults) - SHOWN_FAULTS} more lines" if len(faults) > SHOWN_FAULTS else ""
        raise InputError(
            f"{path}, {'; '.join(faults[:SHOWN_FAULTS])}{more}. Nothing was edited. A line is an object with prompt "
            f"and target; it may have {', '.join(name for name in (*FIELDS[2:], *OWN) if name != 'split')}."
        )
    return found


def _wanted(source: Jsonl, line: str, index: int, task: str) -> Wanted:
    try:
        record: Any = json.loads(line)
    except (json.JSONDecodeError, RecursionError):
        raise Unfit("it is not JSON") from None
    if not isinstance(record, dict):
        raise Unfit("it is not an object")
    own = {name: optional_text(record, name) for name in OWN}
    example, left_out = source.example({key: value for key, value in record.items() if key not in OWN}, index)
    if left_out:
        raise Unfit(left_out[0])
    request = replace(example.request, task=own["task"] or task)
    return Wanted(replace(example, request=request), own["instruction"])


def read_slots(given: Iterable[str]) -> dict[str, str]:
    """Read values for an instruction's placeholders, each written ``NAME=VALUE``.

    Raises:
        InputError: one is not written like that.
    """
    slots = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (name.strip() and equals and value.strip()):
            raise InputError(f"--slot is {text!r}. Write NAME=VALUE, such as TOPIC=tea.")
        slots[name.strip()] = value.strip()
    return slots
