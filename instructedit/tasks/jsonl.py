"""A user's own records: one JSON object a line.

Knows the fields of such a line, documented at `Jsonl`; the split is the line's own or made by a stable hash.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from instructedit.errors import InputError
from instructedit.records import EditExample, EditRequest
from instructedit.tasks.base import Reject, SourceFile, SourceSplit
from instructedit.tasks.choice import stable_fraction
from instructedit.tasks.knowedit import ProbeReader, Unfit, optional_text, read_records, required_text

FIELDS = ("prompt", "target", "rephrases", "locality", "portability", "subject", "id", "slots", "old_answer", "split")


@dataclass(frozen=True)
class Jsonl:
    """A file of records, given to ``prepare --tasks`` as ``jsonl:NAME=FILE.jsonl``.

    A line holds ``prompt`` and ``target``, and where wanted: ``rephrases`` (list of texts), ``locality`` and
    ``portability`` (lists of ``{"prompt", "target"}``, a target being one text or a list of accepted ones, the scored
    one first), ``subject``, ``id``, ``slots`` (placeholder values of the instruction), ``old_answer`` and ``split``
    (train or test; without it a stable hash of subject and prompt puts ``test_share`` of the lines into test).
    """

    name: str
    file: str
    test_share: float = 0.2
    family: str = "jsonl"
    licence: str = "not stated: the owner's own file"

    @property
    def sources(self) -> Mapping[SourceSplit, tuple[SourceFile, ...]]:
        """The one file behind both splits; as its path is absolute, it lies below any source folder."""
        file = SourceFile((str(self.path.absolute()),))
        return {"train": (file,), "test": (file,)}

    @property
    def notes(self) -> tuple[str, ...]:
        """How the split was made, for the card."""
        return (f"Lines without a split of their own: a stable hash puts {self.test_share:.0%} of them into test.",)

    @property
    def path(self) -> Path:
        """The file, relative to where the command runs, not to ``--source``."""
        return Path(self.file)

    def read(self, source: Path, split: SourceSplit) -> Iterator[EditExample | Reject]:
        """Yield the split's examples and rejects; a line that belongs to no split is a reject of train."""
        ids: set[str] = set()
        seen: set[tuple[str, str]] = set()

        # All lines are read for both splits, so that one line's fate never depends on the split asked for.
        for index, line in self.lines():
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                if split == "train":
                    yield Reject(self.path.name, index, "the line is not JSON")
                continue

            def build(record: Mapping[str, Any], _: int, index: int = index) -> tuple[EditExample, list[str]]:
                example, left_out = self.example(record, index)
                if example.request.id in ids:
                    raise Unfit("repeats the id of an earlier line", "unusable")
                ids.add(example.request.id)
                return example, left_out

            for item in read_records([record], self.path.name, build, seen):
                if self._split(record) == split:
                    yield replace(item, index=index) if isinstance(item, Reject) else item

    def lines(self) -> list[tuple[int, str]]:
        """Return the lines that are not blank, with their indices from 0.

        Raises:
            InputError: there is no such file, it is no UTF-8 text, or has no line.
        """
        try:
            text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise InputError(f"No file {self.path} for the task {self.name!r}.") from error
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"{self.path} cannot be read as UTF-8 text ({error}).") from error
        lines = [(index, line) for index, line in enumerate(text.split("\n")) if line.strip()]
        if not lines:
            raise InputError(
                f'{self.path} holds no lines. A line is an object like {{"prompt": "...", "target": "..."}}.'
            )
        return lines

    def _split(self, record: Any) -> SourceSplit:
        if not isinstance(record, dict) or "prompt" not in record:
            return "train"
        if record.get("split") in ("train", "test"):
            split: SourceSplit = record["split"]
            return split
        if "split" in record:
            return "train"
        share = stable_fraction("test", str(record.get("subject") or ""), str(record["prompt"]))
        return "test" if share < self.test_share else "train"

    def example(self, record: Mapping[str, Any], index: int) -> tuple[EditExample, list[str]]:
        """Return the example of one line, and why some of its probes were left out.

        Raises:
            Unfit: a field is missing, unknown or of another type.
        """
        unknown = sorted(set(record) - set(FIELDS))
        if unknown:
            raise Unfit(f"unknown fields {', '.join(map(repr, unknown))}")
        if record.get("split", "train") not in ("train", "test"):
            raise Unfit("'split' is neither train nor test")
        prompt, target = required_text(record, "prompt"), required_text(record, "target")
        request = EditRequest(
            prompt=prompt,
            target=target,
            id=optional_text(record, "id") or f"{self.name}-{index}",
            task=self.name,
            subject=optional_text(record, "subject"),
            slots=_slots(record.get("slots")),
            old_answer=optional_text(record, "old_answer"),
        )
        reader = ProbeReader(prompt, target)
        reader.add_rephrases(_list(record, "rephrases"))
        for item in _list(record, "portability"):
            reader.add("portability", *_question(item, "portability"))
        for item in _list(record, "locality"):
            reader.add("locality", *_question(item, "locality"))
        return EditExample(request, reader.finished()), reader.left_out


def _list(record: Mapping[str, Any], field: str) -> list[Any]:
    value = record.get(field)
    if value is None:
        return []
    if not isinstance(value, list):
        raise Unfit(f"{field!r} is not a list")
    return value


def _question(item: Any, field: str) -> tuple[Any, Any]:
    if not isinstance(item, dict):
        raise Unfit(f"{field!r} holds something that is not an object with prompt and target")
    target = item.get("target")
    # A list of texts is one answer's accepted names.
    return item.get("prompt"), [target] if isinstance(target, list) else target


def _slots(value: Any) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise Unfit("'slots' is not an object of texts")
    return dict(value)
