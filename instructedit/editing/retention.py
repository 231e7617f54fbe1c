"""What is left of N edits in one base, and what they cost: earlier edits still answered, unrelated answers moved.

Knows editors and requests; nothing of files or figures.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from instructedit.editing.editor import Editor, How
from instructedit.records import EditRequest, Probe


@dataclass(frozen=True)
class Kept:
    """One question, asked when all edits of a group were in.

    Args:
        id: the record's id.
        kind: ``request``: asked bare; ``instructed``: with the instruction it was edited in with; ``unrelated``.
        place: the request's place among the edits, from 1; 0 for an unrelated question.
        right: whether the greedy answer begins with the target; of an unrelated one, whether it is the base's own.
        probability: of the target, after the edits.
        kl: mean KL(base || edited) in nats at the target's tokens.
    """

    id: str
    kind: Literal["request", "instructed", "unrelated"]
    place: int
    right: bool
    probability: float
    kl: float


@dataclass(frozen=True)
class Retention:
    """A group of edits.

    Args:
        kept: every question.
        update_norm: norm of the whole change.
        seconds: of the editing alone.
    """

    kept: tuple[Kept, ...]
    update_norm: float
    seconds: float


def retention(
    editor: Editor,
    requests: Sequence[EditRequest],
    unrelated: Sequence[tuple[str, Probe]],
    how: How,
    answer_tokens: int = 8,
) -> Retention:
    """Edit a group of requests into one base and ask for all of them, and what has nothing to do with them.

    Args:
        editor: the editor.
        requests: the group, in the order in which a sequence edits them in.
        unrelated: record ids and locality probes, of records that no request of the group belongs to.
        how: all at once, or one after another.
        answer_tokens: length of the answers to the unrelated questions.

    Raises:
        InputError: as ``Editor.edit``.
    """
    since = time.perf_counter()
    edit = editor.edit(requests, how)
    seconds = time.perf_counter() - since
    nothing: list[list[Probe]] = [[] for _ in requests]
    nothing[0] = [probe for _, probe in unrelated]
    report = edit.report(probes=nothing, answer_tokens=answer_tokens)
    found = []
    ids = iter(id for id, _ in unrelated)
    for line in report.lines:
        if line.kind == "kept":
            found.append(Kept(next(ids), "unrelated", 0, line.before == line.after, line.probability_after, line.kl))
        elif line.kind in ("request", "instructed"):
            kind: Literal["request", "instructed"] = "request" if line.kind == "request" else "instructed"
            place, id = line.request + 1, requests[line.request].id
            found.append(Kept(id, kind, place, line.right, line.probability_after, line.kl))
    return Retention(tuple(found), report.update_norm, seconds)
