"""KnowEdit's wiki_counterfact: facts changed to what they are not.

Knows its files. Their layout is read by `instructedit.tasks.triples`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from instructedit.records import EditExample
from instructedit.tasks import triples
from instructedit.tasks.base import Reject, SourceFile, SourceSplit
from instructedit.tasks.knowedit import ALIASING_NOTE, ANSWERS_NOTE, FORGETFULNESS_NOTE, LICENCE

SOURCES: Mapping[SourceSplit, tuple[SourceFile, ...]] = {
    "train": (SourceFile(("wiki_counterfact/train_cf.json",)),),
    "test": (SourceFile(("wiki_counterfact/test_cf.json",)),),
}


@dataclass(frozen=True)
class CounterFact:
    """Change a fact to a false one; the old answer is the true one."""

    name: str = "counterfact"
    family: str = "counterfact"
    licence: str = LICENCE
    notes: tuple[str, ...] = (FORGETFULNESS_NOTE, ALIASING_NOTE, ANSWERS_NOTE)

    @property
    def sources(self) -> Mapping[SourceSplit, tuple[SourceFile, ...]]:
        """The files behind each split."""
        return SOURCES

    def read(self, source: Path, split: SourceSplit) -> Iterator[EditExample | Reject]:
        """Yield the split's examples and rejects."""
        return triples.read_triples(self.name, source, split, SOURCES[split])
