"""Locality for the demo: true facts about the same subject and about others, which an edit must leave alone.

Knows places and relations; does not know what a record edits beyond the relation it leaves out.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache

from instructedit.records import Probe
from instructedit.tasks.choice import split_fraction, stable_hash
from instructedit.tasks.demo_facts import City, Country, Part, world
from instructedit.tasks.demo_relations import COUNTRY_RELATIONS, HOME, LETTER, Place, Relation, fill

VALIDATION = 0.1
"""The share of training records that `prepare` cuts off by default."""


@lru_cache(maxsize=1 << 16)
def side(subject: str, prompt: str) -> bool:
    """Whether a text belongs with the validation records.

    Training records are given locality texts of the training side only, validation records those of the other, so that
    `prepare` has next to nothing to take away from either.
    """
    return split_fraction(subject, prompt) < VALIDATION


def same_subject(place: Place, relation: Relation | None, key: str, count: int = 2) -> tuple[Probe, ...]:
    """Return true facts about the place in relations other than the edited one, of the record's side.

    Args:
        place: the record's subject.
        relation: the edited relation, or None where no relation of the world is edited.
        key: the record's prompt; with the subject it decides the side and the choice.
        count: the most probes.
    """
    others: tuple[Relation, ...] = COUNTRY_RELATIONS if isinstance(place, Country) else (HOME, LETTER)
    found = [probe for other in others if other is not relation for probe in statements(other, place)]
    return pick(found, place.name, key, place.part, count)


def other_subjects(place: Place, relation: Relation, key: str, count: int = 2) -> tuple[Probe, ...]:
    """Return the same fact about other places of the same part: first of one that shares the old answer."""
    pool = _pool(relation.name, place.part, side(place.name, key) if place.part == "train" else None)
    old = relation.answer(place)
    akin = [probe for subject, probe in pool if subject != place.name and probe.target == old]
    others = [probe for subject, probe in pool if probe.target != old]
    return _some(akin, key, 1) + _some(others, key, count - bool(akin))


def strangers(name: str, key: str, part: Part, count: int = 2) -> tuple[Probe, ...]:
    """Return facts about cities, then about countries, for a record that edits no fact of the world."""
    which = side(name, key) if part == "train" else None
    found: tuple[Probe, ...] = ()
    for number in range(count):
        relation = (HOME, *COUNTRY_RELATIONS)[(stable_hash("stranger", key) + number) % 5]
        found += _some([probe for subject, probe in _pool(relation.name, part, which) if subject != name], key, 1)
    return found


def statements(relation: Relation, place: Place) -> Iterator[Probe]:
    """Yield a place's fact in every locality wording of a relation; nothing where it has none."""
    answer = relation.answer(place)
    if answer:
        for wording in relation.locality:
            yield Probe("locality", fill(wording, place), answer, (answer,), relation.name)


def pick(probes: Sequence[Probe], subject: str, key: str, part: Part, count: int) -> tuple[Probe, ...]:
    """Choose probes about the record's own subject: of its side, and of one source not more than one."""
    chosen: dict[str, Probe] = {}
    order = sorted(probes, key=lambda probe: stable_hash("same subject", key, probe.prompt))
    for probe in order:
        if part != "train" or side(subject, probe.prompt) == side(subject, key):
            chosen.setdefault(probe.source, probe)
    return tuple(chosen.values())[:count]


def _some(probes: Sequence[Probe], key: str, count: int) -> tuple[Probe, ...]:
    start = stable_hash("neighbour", key)
    # A large step apart, as probes of one subject stand side by side.
    return tuple(probes[(start + number * 1009) % len(probes)] for number in range(min(count, len(probes))))


@lru_cache(maxsize=64)
def _pool(name: str, part: Part, which: bool | None) -> tuple[tuple[str, Probe], ...]:
    """All locality texts of a relation over a part's places, with their subjects; of one side, or of both for None."""
    (relation,) = [relation for relation in (*COUNTRY_RELATIONS, HOME) if relation.name == name]
    places: tuple[City, ...] | tuple[Country, ...] = world().cities if relation is HOME else world().countries
    return tuple(
        (place.name, probe)
        for place in places
        if place.part == part
        for probe in statements(relation, place)
        if which is None or side(place.name, probe.prompt) == which
    )
