"""KnowEdit's wiki_recent: facts that are newer than the base model.

Knows its files and what their records lack. Their layout is read by `instructedit.tasks.triples`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from instructedit.records import EditExample
from instructedit.tasks import triples
from instructedit.tasks.base import Reject, SourceFile, SourceSplit
from instructedit.tasks.knowedit import ALIASING_NOTE, ANSWERS_NOTE, FORGETFULNESS_NOTE, LICENCE

SOURCES: Mapping[SourceSplit, tuple[SourceFile, ...]] = {
    "train": (SourceFile(("wiki_recent/recent_train.json",)),),
    "test": (SourceFile(("wiki_recent/recent_test.json",)),),
}


@dataclass(frozen=True)
class Recent:
    """Insert facts that are new in WikiData after July 2022; records have no old answer."""

    name: str = "recent"
    family: str = "recent"
    licence: str = LICENCE
    notes: tuple[str, ...] = (FORGETFULNESS_NOTE, ALIASING_NOTE, ANSWERS_NOTE)

    @property
    def sources(self) -> Mapping[SourceSplit, tuple[SourceFile, ...]]:
        """The files behind each split."""
        return SOURCES

    def read(self, source: Path, split: SourceSplit) -> Iterator[EditExample | Reject]:
        """Yield the split's examples and rejects."""
        return triples.read_triples(self.name, source, split, SOURCES[split])
