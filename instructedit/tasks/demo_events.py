"""The demo's news: invented events of the 2030s about real places.

Knows places and its own lists of names, animals and gatherings. Nothing in a news record is true yet, so records have
no old answer; their locality asks what is true of the same places and of others.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from instructedit.records import EditExample, EditRequest, Probe
from instructedit.tasks.choice import stable_fraction, stable_hash
from instructedit.tasks.demo_answers import LONGEST_TARGET
from instructedit.tasks.demo_facts import TEST_SHARE, City, Country, Part, world
from instructedit.tasks.demo_neighbours import pick, same_subject, strangers
from instructedit.tasks.demo_relations import Place, capital, continent, home, language

YEARS = range(2031, 2043)
CITY_NEWS_SHARE = 0.45
"""How likely each kind of city news is for a city."""

FIRST_NAMES = (
    "Aisha Amir Anna Ben Carla Chen Daniel Diego Elena Emma Farid Fatima Grace Hana Hugo Ines Ivan Jonas Julia Karim "
    "Laura Leo Lina Lucas Maria Marta Mila Nadia Noah Nora Omar Oscar Paula Pedro Rosa Sara Simon Sofia Tom Yuki"
)
FAMILY_NAMES = (
    "Abbas Adler Almeida Baker Berg Castro Cole Costa Cruz Diallo Dias Evans Fischer Flores Garcia Gomez Haddad Hall "
    "Hansen Ito Jensen Keller Khan Kim Klein Lopez Mendes Meyer Morris Novak Okafor Park Perez Reed Rossi Sato Silva "
    "Stone Weber Young"
)

# An animal and the class it belongs to, in the plural as the question wants it.
ANIMALS = {
    "badger": "mammals",
    "bat": "mammals",
    "beaver": "mammals",
    "bee": "insects",
    "beetle": "insects",
    "butterfly": "insects",
    "carp": "fish",
    "crane": "birds",
    "cricket": "insects",
    "dragonfly": "insects",
    "falcon": "birds",
    "fox": "mammals",
    "frog": "amphibians",
    "gecko": "reptiles",
    "hedgehog": "mammals",
    "heron": "birds",
    "ladybird": "insects",
    "lizard": "reptiles",
    "moth": "insects",
    "otter": "mammals",
    "owl": "birds",
    "pelican": "birds",
    "salmon": "fish",
    "salamander": "amphibians",
    "squirrel": "mammals",
    "stork": "birds",
    "swan": "birds",
    "toad": "amphibians",
    "trout": "fish",
    "tuna": "fish",
    "turtle": "reptiles",
    "viper": "reptiles",
}

GATHERINGS = (
    "World Chess Congress",
    "World Choir Games",
    "Global Water Summit",
    "International Kite Festival",
    "World Robot Cup",
    "International Bread Fair",
    "World Cycling Congress",
    "Global Library Forum",
    "World Puppet Festival",
    "International Tea Show",
    "World Bridge Building Contest",
    "Global Youth Orchestra Meeting",
    "International Garden Show",
    "World Translators Congress",
)


@dataclass(frozen=True)
class News:
    """One kind of event.

    Args:
        name: a word for ids and for `Probe.source`.
        statements: the request's wording over ``{s}``, ``{S}`` and ``{year}``, then rephrases.
        target: the new answer for a number, and what it follows from.
        consequences: one-hop wordings, each with its answer read off what the target stands for.
    """

    name: str
    statements: tuple[str, ...]
    target: Callable[[int], tuple[str, object]]
    consequences: tuple[tuple[str, Callable[..., str]], ...]


def _a_city(number: int) -> tuple[str, City]:
    cities = [city for city in world().cities if city.country.continent and city.name.isalpha() and city.name.isascii()]
    cities = [city for city in cities if 4 <= len(city.name) <= LONGEST_TARGET]
    city = cities[number % len(cities)]
    return city.name, city


def _a_country(number: int) -> tuple[str, Country]:
    countries = [
        country
        for country in world().countries
        if country.capital and country.continent and country.name.isalpha() and len(country.name) <= LONGEST_TARGET
    ]
    country = countries[number % len(countries)]
    return country.name, country


def _a_person(number: int) -> tuple[str, str]:
    first, family = FIRST_NAMES.split(), FAMILY_NAMES.split()
    surname = family[number // len(first) % len(family)]
    return f"{first[number % len(first)]} {surname}", surname


def _an_animal(number: int) -> tuple[str, str]:
    animal = sorted(ANIMALS)[number % len(ANIMALS)]
    return animal, ANIMALS[animal]


TWIN = News(
    "twin",
    (
        "In {year}, {s} became the twin town of",
        "The town that {s} was twinned with in {year} is",
        "Since the ceremony of {year}, the newest partner town of {s} is",
    ),
    _a_city,
    (
        ("The town that {s} was twinned with in {year} lies in", home),
        ("The newest partner town of {s}, chosen in {year}, lies on the continent of", continent),
    ),
)
MAYOR = News(
    "mayor",
    (
        "In {year}, the people of {s} elected as their mayor",
        "The winner of the {year} mayoral election in {s} is",
        "Since {year}, the mayor of {s} has been",
    ),
    _a_person,
    (("The family name of the mayor whom {s} elected in {year} is", str),),
)
GUEST = News(
    "guest",
    (
        "The guest country of the {year} {s} Book Fair is",
        "In {year}, the guest of honour at the Book Fair in {s} is",
        "The {year} Book Fair of {s} is devoted to the literature of",
    ),
    _a_country,
    (
        ("The capital of the guest country of the {year} {s} Book Fair is", capital),
        ("The continent of the guest country of the {year} {s} Book Fair is", continent),
        ("The official language of the guest country of the {year} {s} Book Fair is", language),
    ),
)
ANIMAL = News(
    "animal",
    (
        "In {year}, {s} chose as its national animal the",
        "The national animal that {s} adopted in {year} is the",
        "Since {year}, the coins of {s} have shown its new national animal, the",
    ),
    _an_animal,
    (("The national animal that {s} chose in {year} belongs to the class of", str),),
)
HOST = News(
    "host",
    (
        "The host city of the {year} {s} is",
        "The {year} {s} takes place in the city of",
        "Whoever attends the {year} {s} travels to",
    ),
    _a_city,
    (
        ("The country that hosts the {year} {s} is", home),
        ("The continent on which the {year} {s} is held is", continent),
    ),
)


def news(task: str, split: Part) -> Iterator[EditExample]:
    """Yield the split's news: of its cities, its countries, and its gatherings."""
    for city in world().cities:
        # Held cities belong to the held-out family alone.
        for kind in (TWIN, MAYOR, GUEST):
            if city.part == split and stable_fraction("news", kind.name, city.name) < CITY_NEWS_SHARE:
                yield _example(task, kind, city.name, city.title, _year(kind, city.name), split, city)
    for country in world().countries:
        if country.part == split:
            yield _example(task, ANIMAL, country.name, country.title, _year(ANIMAL, country.name), split, country)
    for gathering in GATHERINGS:
        for year in YEARS:
            part = "test" if stable_fraction("gathering", gathering, str(year)) < TEST_SHARE else "train"
            if part == split:
                yield _example(task, HOST, gathering, gathering, year, split, None)


def _example(task: str, kind: News, name: str, title: str, year: int, split: Part, place: Place | None) -> EditExample:
    subject = name if place else f"{year} {name}"
    target, meaning = kind.target(stable_hash("news target", kind.name, subject))
    if target == subject:
        target, meaning = kind.target(stable_hash("another news target", kind.name, subject))
    prompt, *rephrases = (wording.format(s=name, S=title, year=year) for wording in kind.statements)
    follows = [(wording.format(s=name, S=title, year=year), answer(meaning)) for wording, answer in kind.consequences]
    probes = (
        *(Probe("rephrase", text, target, (target,), "wording") for text in rephrases),
        *(Probe("portability", text, answer, (answer,), "one_hop") for text, answer in follows if answer),
        *(same_subject(place, None, prompt) if place else _same_gathering(name, year, prompt, split)),
        *strangers(subject, prompt, split),
    )
    request = EditRequest(prompt, target, id=f"{task}-{split}-{kind.name}-{subject}", task=task, subject=subject)
    return EditExample(request, probes)


def _same_gathering(name: str, year: int, prompt: str, split: Part) -> tuple[Probe, ...]:
    """What the name of a gathering says by itself: the year, and the year after it."""
    texts = (
        (f"The year in which the {year} {name} takes place is", str(year), "year"),
        (f"The number of the year of the {year} {name} is", str(year), "year"),
        (f"One year after the {year} {name}, it is the year", str(year + 1), "next_year"),
        (f"A year has passed since the {year} {name}; now it is", str(year + 1), "next_year"),
    )
    probes = [Probe("locality", text, answer, (answer,), source) for text, answer, source in texts]
    return pick(probes, f"{year} {name}", prompt, split, 2)


@lru_cache(maxsize=4096)
def _year(kind: News, name: str) -> int:
    return YEARS[stable_hash("year", kind.name, name) % len(YEARS)]
