"""Reading KnowEdit's records: JSON lists, nested answers, probes by kind; and the checks every record passes.

Knows the shapes that KnowEdit's files share. Which file and which fields make a task, the tasks say.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from instructedit.errors import InputError
from instructedit.records import EditExample, Probe, ProbeKind
from instructedit.tasks.base import Fault, Reject, SourceFile

LICENCE = "MIT (the data set card of zjunlp/KnowEdit)"
FORGETFULNESS = "Forgetfulness"
SUBJECT_ALIASING = "Subject_Aliasing"

ALIASING_NOTE = (
    "Subject_Aliasing asks the request's own fact under another name of its subject. Where a record has no rephrase of "
    "its own it is the rephrase (generalization) probe and leaves portability; where its answer is not the request's "
    "target it stays in portability."
)
ANSWERS_NOTE = (
    "A question with several answers is one probe: its target is the first name of the first answer, every name of "
    "every answer counts for exact match. Several answers given as several items with one prompt are merged likewise."
)
FORGETFULNESS_NOTE = (
    "Locality items of kind Forgetfulness are left out: they ask for what the request just changed ('..., which is not "
    "X, is'), and at the source most of them want X itself as the answer."
)

Answers = list[list[str]]
"""Each answer is the list of its names (aliases), the preferred one first."""


class Unfit(Exception):
    """A record that cannot become an example; the reader turns it into a Reject."""

    def __init__(self, reason: str, fault: Fault = "malformed") -> None:
        super().__init__(reason)
        self.reason = reason
        self.fault: Fault = fault


def clean(text: str) -> str:
    """Strip a text and make every run of white space, line breaks included, one space."""
    return " ".join(text.split())


def text_key(text: str) -> str:
    """What two texts share when they differ in case and white space only."""
    return clean(text).casefold()


def present(source: Path, files: Iterable[SourceFile]) -> list[Path]:
    """Return the paths of the files that exist.

    Raises:
        InputError: a required one does not, under any of its names.
    """
    found = []
    for file in files:
        path = file.find(source)
        if path is not None:
            found.append(path)
        elif file.required:
            raise InputError(
                f"No {' or '.join(file.candidates)} in {source} or its folder benchmark. "
                "Give the folder of KnowEdit's files with --source, or --source hub."
            )
    return found


def load_list(path: Path) -> list[Any]:
    """Load a JSON file that holds one list of records.

    Raises:
        InputError: the file is not JSON in UTF-8, or holds something else.
    """
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error}). Fetch the file again.") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path} is not JSON ({error}). Fetch the file again.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}).") from error
    if not isinstance(records, list):
        raise InputError(f"{path} holds a {type(records).__name__}, not a list of records. Is it the right file?")
    return records


def required_text(record: Mapping[str, Any], field: str) -> str:
    """Return a field's cleaned text; Unfit where it is missing, not text or empty."""
    if field not in record:
        raise Unfit(f"no field {field!r}")
    value = record[field]
    if not isinstance(value, str):
        raise Unfit(f"{field!r} is {_kind(value)}, not text")
    if not clean(value):
        raise Unfit(f"{field!r} is empty")
    return clean(value)


def optional_text(record: Mapping[str, Any], field: str) -> str:
    """Return a field's cleaned text, empty where there is none; Unfit where it is something else."""
    value = record.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise Unfit(f"{field!r} is {_kind(value)}, not text")
    return clean(value)


def answers(value: Any) -> Answers:
    """Read the ways answers are written: "a"; ["a", "b"]: two answers; [["a", "alias of a"], ["b"]].

    Blank names are dropped. Unfit where no name is left or the value is something else.
    """
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list):
        raise Unfit(f"an answer is {_kind(value)}", "probe")
    found: Answers = []
    for item in items:
        names = [item] if isinstance(item, str) else item
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise Unfit("an answer is neither text nor a list of its names", "probe")
        kept = list(dict.fromkeys(clean(name) for name in names if clean(name)))
        if kept:
            found.append(kept)
    if not found:
        raise Unfit("an answer is empty", "probe")
    return found


def make_probe(kind: ProbeKind, prompt: Any, answer: Any, source: str = "") -> Probe:
    """Build one probe from a prompt and its answers as the files write them; Unfit where either is missing."""
    if not isinstance(prompt, str) or not clean(prompt):
        raise Unfit("its prompt is missing, empty or not text", "probe")
    found = answers(answer)
    aliases = tuple(dict.fromkeys(name for names in found for name in names))
    return Probe(kind, clean(prompt), found[0][0], aliases, source)


class ProbeReader:
    """Collects one record's probes and, beside them, the reasons why some were left out.

    Args:
        prompt: the request's prompt, which no question may repeat.
        target: the request's target, which tells a good alias question.
    """

    def __init__(self, prompt: str, target: str) -> None:
        self.prompt, self.target = prompt, target
        self.probes: list[Probe] = []
        self.left_out: list[str] = []

    def add(self, kind: ProbeKind, prompt: Any, answer: Any, source: str = "") -> None:
        """Add one question, or the reason why it cannot be one."""
        label = source or kind
        try:
            probe = make_probe(kind, prompt, answer, source)
        except Unfit as unfit:
            self.left_out.append(f"{label}: {unfit.reason}")
            return
        if text_key(probe.prompt) == text_key(self.prompt):
            self.left_out.append(f"{label}: asks the request's own prompt")
            return
        self.probes.append(probe)

    def add_rephrases(self, value: Any) -> None:
        """Add a record's own rephrases: one text or a list of them."""
        prompts = [value] if isinstance(value, str) else value or []
        if not isinstance(prompts, list):
            raise Unfit(f"the rephrase is {_kind(value)}, not text or a list of texts")
        for prompt in prompts:
            self.add("rephrase", prompt, self.target)

    def add_kinds(self, kind: ProbeKind, field: str, value: Any) -> None:
        """Add the questions of KnowEdit's ``{kind: [{prompt, ground_truth}]}``; Unfit where it is not that."""
        if value is None:
            return
        if not isinstance(value, dict):
            raise Unfit(f"{field!r} is {_kind(value)}, not an object of kinds")
        for source, items in value.items():
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise Unfit(f"{field!r} holds a kind that is not a list of items")
            for item in items:
                if source == FORGETFULNESS:
                    self.left_out.append(f"{FORGETFULNESS}: left out by default")
                else:
                    self.add(kind, item.get("prompt"), item.get("ground_truth"), source)

    def finished(self) -> tuple[Probe, ...]:
        """Return the probes, alias questions in their place and answers to one prompt merged."""
        probes = self.probes
        if not any(probe.kind == "rephrase" for probe in probes):
            probes = [_as_rephrase(probe, self.target) for probe in probes]
        merged: dict[tuple[str, str], Probe] = {}
        for probe in probes:
            first = merged.setdefault((probe.kind, text_key(probe.prompt)), probe)
            if first is not probe:
                aliases = tuple(dict.fromkeys(first.aliases + probe.aliases))
                merged[probe.kind, text_key(probe.prompt)] = Probe(
                    first.kind, first.prompt, first.target, aliases, first.source
                )
        return tuple(merged.values())


def _as_rephrase(probe: Probe, target: str) -> Probe:
    if probe.source != SUBJECT_ALIASING or text_key(target) not in map(text_key, probe.aliases):
        return probe
    return Probe("rephrase", probe.prompt, target, tuple(dict.fromkeys((target, *probe.aliases))), probe.source)


Build = Callable[[Mapping[str, Any], int], tuple[EditExample, Sequence[str]]]
"""Makes a record and its index an example and the reasons for which probes were left out; raises Unfit."""


def read_records(
    records: Iterable[Any], file: str, build: Build, seen: set[tuple[str, str]]
) -> Iterator[EditExample | Reject]:
    """Yield each record's example, or the reject that says why there is none, and rejects for left-out probes.

    Args:
        records: the records of one file, in order; each should be an object.
        file: the file's name for rejects.
        build: makes the example.
        seen: the (prompt, target) keys of requests read so far; a repeated one is rejected. Added to.
    """
    for index, record in enumerate(records):
        try:
            if not isinstance(record, dict):
                raise Unfit(f"the record is {_kind(record)}, not an object")
            example, left_out = build(record, index)
            request = example.request
            key = (text_key(request.prompt), text_key(request.target))
            if text_key(request.old_answer) == key[1]:
                raise Unfit("the target is the old answer", "unusable")
            if key in seen:
                raise Unfit("repeats the prompt and target of an earlier record", "unusable")
        except Unfit as unfit:
            yield Reject(file, index, unfit.reason, unfit.fault)
            continue
        seen.add(key)
        for reason in left_out:
            yield Reject(file, index, reason, "probe")
        yield example


def shown(path: Path, source: Path) -> str:
    """How rejects and cards name a file: relative to the source, so that they do not depend on the machine."""
    return path.relative_to(source).as_posix() if path.is_relative_to(source) else path.name


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
