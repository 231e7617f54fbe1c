"""What is left of N edits in one base, and what they cost: earlier edits still answered, unrelated answers moved.

For each N the first N requests of one list are edited in, so that the curve of N is one of growing lists; the unrelated
questions are the same for every N. Knows editors, records and numbers; nothing of files or figures.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import LongTensor

from instructedit.data.tokenise import tokenise
from instructedit.editing.ask import at_targets
from instructedit.editing.edit import Edit
from instructedit.editing.editor import Editor
from instructedit.errors import InputError, unknown
from instructedit.evaluation.forced import forced_values
from instructedit.evaluation.intervals import Estimate, estimate
from instructedit.evaluation.metrics import mean
from instructedit.evaluation.questions import questions_of
from instructedit.evaluation.runner import TOKENS_PER_PASS
from instructedit.metatrain import Stage
from instructedit.records import EditExample, EditRequest
from instructedit.tasks.choice import stable_sample
from instructedit.tasks.knowedit import text_key
from instructedit.tasks.separation import limit_probes

Way = Literal["alone", "together", "sequence"]
"""``alone``: each request in an edit of its own, what the others are held against. ``together``: every request by
itself on the base as it is, all changes added up. ``sequence``: each on the base as the earlier ones left it."""

WAYS: tuple[Way, ...] = get_args(Way)
COUNTS = (1, 10, 50, 100)
EDITED_AT_ONCE = 8


@dataclass(frozen=True)
class Kept:
    """What is left of one edit.

    Args:
        id: the record's id.
        place: its place among the edits, from 1.
        share: reliability: the share of the target's tokens that are the likeliest, the ones before them in the input.
        exact: the share of its wanted texts of which every token is.
    """

    id: str
    place: int
    share: float
    exact: float


@dataclass(frozen=True)
class Moved:
    """What has become of the answers to one unrelated record's locality probes, the mean over them.

    Args:
        id: the record's id.
        kl: mean KL(base || edited) in nats at the target's tokens; infinite where it is no number.
        unchanged: the share of these tokens at which the likeliest token is still the base's.
    """

    id: str
    kl: float
    unchanged: float


@dataclass(frozen=True)
class Point:
    """What was found with n edits in.

    Args:
        how: the way they were edited in.
        n: how many.
        update_norm: of the whole change, all edits added up; NaN for edits alone.
        edits: one per edit, in order.
        unrelated: one per unrelated record; none for edits alone.
    """

    how: Way
    n: int
    update_norm: float
    edits: tuple[Kept, ...]
    unrelated: tuple[Moved, ...] = ()

    @property
    def first(self) -> tuple[Kept, ...]:
        """The first tenth of the edits, at least one: in a sequence those that had the most behind them."""
        return self.edits[: math.ceil(self.n / 10)]

    def estimates(self) -> dict[str, Estimate]:
        """Return the means over edits and over unrelated records, with 95 % bootstrap intervals, by their names.

        ``retention``, ``exact`` and ``first_tenth`` (of retention); ``unchanged`` and ``kl`` where unrelated questions
        were asked.
        """
        found = {
            "retention": [one.share for one in self.edits],
            "exact": [one.exact for one in self.edits],
            "first_tenth": [one.share for one in self.first],
            "unchanged": [one.unchanged for one in self.unrelated],
            "kl": [one.kl for one in self.unrelated],
        }
        return {name: _estimate(values) for name, values in found.items() if values}


@dataclass(frozen=True)
class Chosen:
    """Which records are edited in, in order, and whose locality probes are asked."""

    edited: tuple[EditExample, ...]
    unrelated: tuple[EditExample, ...]


def choose(examples: Sequence[EditExample], n: int, unrelated: int, probes: int = 2, seed: int = 0) -> Chosen:
    """Choose records by a hash of their ids: n to edit in, and of the others those whose locality probes are asked.

    A longer list of edits begins with the shorter one. A record that is about the subject of one that is edited in,
    and a probe that asks the prompt of one, are not unrelated.

    Args:
        examples: all records, of different ids.
        n: how many to edit in.
        unrelated: the most records whose probes are asked.
        probes: the most locality probes of one record.
        seed: another one chooses others.

    Raises:
        InputError: there are too few records, none is left with a locality probe, or a number is below 1.
    """
    if min(n, unrelated, probes) < 1:
        raise InputError(f"Edits, unrelated records and probes are 1 or more; found {n}, {unrelated} and {probes}.")
    by_id = {example.request.id: example for example in examples}
    if len(by_id) != len(examples):
        raise InputError("Two records have one id. Give each its own.")
    if n > len(examples):
        raise InputError(f"There are {len(examples)} records, too few to edit {n} in. Ask for smaller counts.")
    order = [by_id[id] for id in stable_sample(by_id, len(by_id), "retention", str(seed))]
    edited = order[:n]
    subjects = {text_key(one.request.subject) for one in edited if one.request.subject.strip()}
    prompts = {text_key(one.request.prompt) for one in edited}
    found = []
    for example in order[n:]:
        local = tuple(p for p in example.of_kind("locality") if text_key(p.prompt) not in prompts)
        if local and text_key(example.request.subject) not in subjects:
            found.append(limit_probes(EditExample(example.request, local), probes))
    if not found:
        raise InputError(
            f"None of the {len(examples) - n} records that are not edited in has a locality probe about something "
            "else, so no drift can be measured. Give more records, with locality probes, or ask for smaller counts."
        )
    return Chosen(tuple(edited), tuple(found[:unrelated]))


def retention(
    editor: Editor,
    requests: Sequence[EditRequest],
    unrelated: Sequence[EditExample],
    counts: Sequence[int] = COUNTS,
    ways: Sequence[Way] = WAYS,
    on_edits: Callable[[Way, int], None] | None = None,
) -> Iterator[Point]:
    """Edit the first n requests into one base, for growing n, and ask for all of them and for what is unrelated.

    A request is asked as it was edited in, with its instruction, which is how reliability is measured; unrelated
    questions are asked bare.

    Args:
        editor: the editor.
        requests: at least as many as the largest count, in the order in which a sequence edits them in.
        unrelated: records whose locality probes are asked.
        counts: the numbers of edits.
        ways: how they are edited in.
        on_edits: called with the way and how many edits were made since it was called last.

    Yields:
        A point for each way and count, as soon as it is known; counts in rising order.

    Raises:
        InputError: a count or a way is refused, a text is empty or too long (before the first edit), or an update is
            not finite.
    """
    counts = check_counts(counts)
    for way in ways:
        if way not in WAYS:
            raise unknown("way of editing", way, WAYS)
    if counts[-1] > len(requests):
        raise InputError(f"There are {len(requests)} requests, too few for {counts[-1]} edits. Ask for smaller counts.")
    found = _Curve(editor, [editor.instructed(request) for request in requests[: counts[-1]]], unrelated, on_edits)
    for way in ways:
        yield from found.points(way, counts)


def check_counts(counts: Sequence[int]) -> list[int]:
    """Return counts in rising order, each once.

    Raises:
        InputError: there is none, or one is below 1.
    """
    if not counts or min(counts) < 1:
        told = ", ".join(map(str, counts)) or "none"
        raise InputError(f"Numbers of edits are 1 or more; found {told}. Give some, such as 1 10 50 100.")
    return sorted(set(counts))


class _Curve:
    """Requests, questions and the base they are asked of."""

    def __init__(
        self,
        editor: Editor,
        requests: Sequence[EditRequest],
        unrelated: Sequence[EditExample],
        on_edits: Callable[[Way, int], None] | None,
    ) -> None:
        self.editor, self.requests = editor, requests
        base = editor.base
        self.on_edits = on_edits or (lambda way, n: None)
        self.stage = Stage.for_evaluation(base, editor.method.first_block(base))
        self.questions = [list(questions_of(base, EditExample(request), {"reliability"})) for request in requests]
        asked = [(example.request.id, probe) for example in unrelated for probe in example.of_kind("locality")]
        self.unrelated_ids = [id for id, _ in asked]
        self.unrelated = [tokenise(base.tokenizer, p.text, p.target, base.max_tokens) for _, p in asked]
        self._apart: list[Edit] = []

    def points(self, way: Way, counts: Sequence[int]) -> Iterator[Point]:
        if way == "alone":
            yield from self._alone(counts)
            return
        edit: Edit | None = None
        for before, n in zip((0, *counts), counts, strict=False):
            if way == "sequence":
                for request in self.requests[before:n]:
                    edit = self.editor.edit(request, after=edit)
                    self.on_edits(way, 1)
            else:
                apart = self._made_apart(n, way)
                edit = apart[0].merge(*apart[1:n])
            assert edit is not None
            kept = self._kept(_Shared(edit), range(n))
            yield Point(way, n, edit.norm, tuple(kept), tuple(self._moved(edit)))

    def _alone(self, counts: Sequence[int]) -> Iterator[Point]:
        kept: list[Kept] = []
        for n in counts:
            apart = self._made_apart(n, "alone")
            for place in range(len(kept), n):
                kept += self._kept(_Shared(apart[place]), [place])
            yield Point("alone", n, math.nan, tuple(kept))

    def _made_apart(self, n: int, way: Way) -> list[Edit]:
        """Return at least n edits of one request each, made side by side; what was made once is kept."""
        while len(self._apart) < n:
            start = len(self._apart)
            part = self.requests[start : min(n, start + EDITED_AT_ONCE)]
            self._apart += self.editor.edit(part).alone()
            self.on_edits(way, len(part))
        return self._apart

    def _kept(self, edit: "_Shared", places: Sequence[int]) -> Iterator[Kept]:
        # Not in inference mode: a state the store keeps from there could never be trained on.
        with torch.no_grad():
            found = forced_values(edit, self.stage, [self.questions[place] for place in places], TOKENS_PER_PASS)
        for place, values in zip(places, found, strict=True):
            share, exact = (value.value for value in values)
            yield Kept(self.requests[place].id, place + 1, share, exact)

    def _moved(self, edit: Edit) -> Iterator[Moved]:
        found = at_targets(edit, self.stage, self.unrelated)
        for id in dict.fromkeys(self.unrelated_ids):
            own = [one for its, one in zip(self.unrelated_ids, found, strict=True) if its == id]
            yield Moved(id, mean([one.kl for one in own]), mean([one.kept for one in own]))


@dataclass(frozen=True)
class _Shared:
    """An edit of which every row sees all, whichever request it belongs to."""

    edit: Edit

    def applied(self, rows: LongTensor | None = None) -> AbstractContextManager[None]:
        return self.edit.applied()


def _estimate(values: Sequence[float]) -> Estimate:
    if all(map(math.isfinite, values)):
        return estimate(values)
    return Estimate(math.inf, math.inf, math.inf, len(values))
