"""Keeping apart what is trained on and what scores: the cut of validation, and who gives way where texts meet.

Knows examples and splits, nothing about files. Texts meet when they are equal up to case and white space.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import get_args

from instructedit.records import EditExample, Probe, ProbeKind
from instructedit.tasks.choice import split_fraction, stable_hash
from instructedit.tasks.knowedit import text_key
from instructedit.tasks.prepared import PreparedSplit

COMPLETION_KINDS: frozenset[ProbeKind] = frozenset({"wanted", "unwanted"})
"""These share the request's own prompt by design; their text is what must not be trained on."""


@dataclass
class Separated:
    """A task's three splits, and what had to give way.

    Attributes:
        splits: the examples of each split.
        records: id and reason of each training record that was left out.
        probes: id and reason of each probe that was left out.
    """

    splits: dict[PreparedSplit, list[EditExample]]
    records: list[tuple[str, str]] = field(default_factory=list)
    probes: list[tuple[str, str]] = field(default_factory=list)


def limit_probes(example: EditExample, most: int) -> EditExample:
    """Keep at most ``most`` probes of each kind, chosen by a stable hash, in their order."""
    kept: set[Probe] = set()
    for kind in get_args(ProbeKind):
        probes = example.of_kind(kind)
        order = [stable_hash(example.request.id, kind, probe.prompt, probe.target) for probe in probes]
        kept.update(probes[place] for place in sorted(range(len(probes)), key=order.__getitem__)[:most])
    return EditExample(example.request, tuple(probe for probe in example.probes if probe in kept))


def cut_validation(train: Iterable[EditExample], test: Sequence[EditExample], share: float) -> Separated:
    """Cut validation from training records; records whose (subject, prompt) pair is also tested are left out.

    Args:
        train: the records of the source's training split.
        test: the records of the source's test split.
        share: the share of (subject, prompt) pairs that goes to validation, by a stable hash: all records of one pair
            go the same way, whatever other records there are.
    """
    tested = {_pair(example) for example in test}
    separated = Separated({"train": [], "validation": [], "test": list(test)})
    for example in train:
        request = example.request
        if _pair(example) in tested:
            separated.records.append((request.id, "its subject and prompt are a test record's"))
        elif split_fraction(request.subject, request.prompt) < share:
            separated.splits["validation"].append(example)
        else:
            separated.splits["train"].append(example)
    return separated


def keep_apart(tasks: Mapping[str, Separated]) -> None:
    """See to it that no text a method trains on also scores it, over all tasks, in place.

    Scored texts win, with one exception. A training record asking a test record's prompt or test probe's prompt is left
    out, as is one asking a validation record's prompt. A training or validation probe asking a prompt that a split
    further from training asks is left out. The exception: a validation probe that asks a training record's prompt
    is left out itself, as the record is worth more.
    """
    everything = tasks.values()
    tested = _scored(example for task in everything for example in task.splits["test"])
    for task in everything:
        _give_way(task, "validation", tested, "a test text")
        _drop_records(task, "validation", tested, "its prompt is a test text")
        _drop_records(task, "train", tested, "its prompt is a test text")
    validated = {text_key(example.request.prompt) for task in everything for example in task.splits["validation"]}
    for task in everything:
        _drop_records(task, "train", validated, "its prompt is a validation record's")
    trained = {text_key(example.request.prompt) for task in everything for example in task.splits["train"]}
    for task in everything:
        _give_way(task, "validation", trained, "a training record's prompt")
    scored = tested | _scored(example for task in everything for example in task.splits["validation"])
    for task in everything:
        _give_way(task, "train", scored, "a text that scores")


def _pair(example: EditExample) -> tuple[str, str]:
    return text_key(example.request.subject), text_key(example.request.prompt)


def _scored(examples: Iterable[EditExample]) -> set[str]:
    texts: set[str] = set()
    for example in examples:
        texts.add(text_key(example.request.prompt))
        texts.update(_key(probe) for probe in example.probes)
    return texts


def _key(probe: Probe) -> str:
    if probe.kind in COMPLETION_KINDS:
        return text_key(f"{probe.prompt} {probe.target}")
    return text_key(probe.prompt)


def _drop_records(task: Separated, split: PreparedSplit, texts: Collection[str], reason: str) -> None:
    kept = []
    for example in task.splits[split]:
        if text_key(example.request.prompt) in texts:
            task.records.append((example.request.id, reason))
        else:
            kept.append(example)
    task.splits[split] = kept


def _give_way(task: Separated, split: PreparedSplit, texts: Collection[str], where: str) -> None:
    for place, example in enumerate(task.splits[split]):
        kept = tuple(probe for probe in example.probes if _key(probe) not in texts)
        if len(kept) < len(example.probes):
            for probe in example.probes:
                if _key(probe) in texts:
                    task.probes.append((example.request.id, f"{probe.kind}: asks {where}"))
            task.splits[split][place] = replace(example, probes=kept)
