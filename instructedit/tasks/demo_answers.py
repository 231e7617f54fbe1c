"""New answers for the demo's edits, and what follows from them.

Knows places and relations; does not know splits, tasks or records. A new answer is always that of another country, the
donor: the capital of Kenya may become Lima, and then it lies in South America, as Peru does.
"""

from collections.abc import Sequence
from functools import lru_cache

from instructedit.tasks.choice import stable_hash
from instructedit.tasks.demo_facts import Country, world
from instructedit.tasks.demo_relations import CONTINENT, COUNTRY_RELATIONS, HOME, Consequence, Place, Relation, fill

LONGEST_TARGET = 10
"""Letters of a new answer; with the rule of one word it keeps targets to about four tokens."""


def new_answer(relation: Relation, place: Place) -> tuple[Country, str]:
    """Choose the donor and the new answer for a place: another than the true one, short, by a stable hash.

    Answers are chosen evenly, so that the many countries with a dollar do not make the dollar the usual answer.
    """
    options = _options(relation.name)
    true = relation.answer(place)
    answers = [answer for answer in options if answer != true]
    chosen = answers[stable_hash("answer", relation.name, place.name) % len(answers)]
    donors = options[chosen]
    return donors[stable_hash("donor", relation.name, place.name) % len(donors)], chosen


def what_follows(consequences: Sequence[Consequence], place: Place, donor: Country) -> list[tuple[str, str]]:
    """Return question and answer of each consequence that applies and that the edit really changes."""
    pairs = []
    for consequence in consequences:
        question, before, after = fill(consequence.wording, place), consequence.answer(place), consequence.answer(donor)
        if question and before and after and before != after:
            pairs.append((question, after))
    return pairs


@lru_cache(maxsize=16)
def _options(name: str) -> dict[str, tuple[Country, ...]]:
    """The possible new answers of a relation, and the countries that have each."""
    (relation,) = [relation for relation in (*COUNTRY_RELATIONS, HOME) if relation.name == name]
    options: dict[str, tuple[Country, ...]] = {}
    for country in world().countries:
        answer = relation.answer(country)
        complete = country.capital and country.currency and country.continent
        short = len(answer) <= LONGEST_TARGET and (relation is CONTINENT or answer.isalpha())
        if answer and complete and (short or relation is CONTINENT):
            options[answer] = (*options.get(answer, ()), country)
    return dict(sorted(options.items()))
