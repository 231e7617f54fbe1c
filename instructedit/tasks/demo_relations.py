"""What the demo asks about a place: the wordings of each relation, its true answer, and the questions that hang on it.

Knows places and sentences; does not know splits, tasks or records, nor which new answer an edit puts in
(`instructedit.tasks.demo_answers`).
"""

from collections.abc import Callable
from dataclasses import dataclass

from instructedit.tasks.choice import stable_hash
from instructedit.tasks.demo_facts import City, Country, world

Place = Country | City
Answer = Callable[[Place], str]


@dataclass(frozen=True)
class Consequence:
    """A question whose answer changes with the edit, one hop away from it.

    Args:
        wording: a template over ``{s}`` (the subject), ``{S}`` (the same at the start of a sentence) and, for
            countries, ``{capital}`` and ``{city}`` (another city of the country).
        answer: the right answer, read off the donor.
    """

    wording: str
    answer: Answer


@dataclass(frozen=True)
class Relation:
    """One kind of fact.

    Args:
        name: a word for ids and for `Probe.source`.
        answer: the fact of a place; empty where it has none.
        statements: the request's wording, then rephrases, each a sentence without its end.
        locality: wordings for locality alone, so that no training request asks what a locality probe scores.
        questions: the same in question form: the request's wording, rephrases, and last the one for locality.
        consequences: one-hop statements.
        question_consequences: the same in question form.
    """

    name: str
    answer: Answer
    statements: tuple[str, ...]
    locality: tuple[str, ...]
    questions: tuple[str, ...]
    consequences: tuple[Consequence, ...]
    question_consequences: tuple[Consequence, ...]


def fill(wording: str, place: Place) -> str:
    """Put a place into a wording; empty when the wording needs a capital or a city that the place does not have."""
    values = {"s": place.name, "S": place.title, "capital": "", "city": ""}
    if isinstance(place, Country):
        values |= {"capital": place.capital, "city": _city_of(place)}
    if any("{" + key + "}" in wording and not value for key, value in values.items()):
        return ""
    return wording.format(**values)


def capital(place: Place) -> str:
    """The capital of a country, or of a city's country."""
    return _country(place).capital


def currency(place: Place) -> str:
    """The currency of a country, or of a city's country."""
    return _country(place).currency


def continent(place: Place) -> str:
    """The continent of a country, or of a city's country."""
    return _country(place).continent


def language(place: Place) -> str:
    """The official language of a country, or of a city's country."""
    return _country(place).language


def home(place: Place) -> str:
    """The country of a city; a country itself where it stands for a city moved there."""
    return _country(place).name


def first_letter(place: Place) -> str:
    """The letter a place's name begins with."""
    return place.name.removeprefix("the ")[0]


CAPITAL = Relation(
    "capital",
    capital,
    statements=(
        "The capital of {s} is",
        "The city that serves as the capital of {s} is",
        "{S} has one capital city, and its name is",
    ),
    locality=(
        "The capital city of {s} is called",
        "The national capital of {s} is",
        "As its capital, {s} has the city of",
    ),
    questions=(
        "What is the capital of {s}?",
        "Which city is the capital of {s}?",
        "Do you know the name of the capital of {s}?",
        "What is the capital city of {s} called?",
    ),
    consequences=(
        Consequence("The capital of {s} lies on the continent of", continent),
        Consequence("The name of the capital of {s} begins with the letter", lambda donor: capital(donor)[:1]),
    ),
    question_consequences=(
        Consequence("On which continent does the capital of {s} lie?", continent),
        Consequence("With which letter does the name of the capital of {s} begin?", lambda donor: capital(donor)[:1]),
    ),
)

CURRENCY = Relation(
    "currency",
    currency,
    statements=("The currency of {s} is the", "The money used in {s} is the", "People in {s} pay with the"),
    locality=(
        "The national currency of {s} is the",
        "The legal tender in {s} is the",
        "Prices in {s} are given in the local currency, the",
    ),
    questions=(
        "What is the currency of {s}?",
        "Which currency is used in {s}?",
        "What money do people in {s} pay with?",
        "What is the national currency of {s} called?",
    ),
    consequences=(
        Consequence("In the shops of {capital}, customers pay with the", currency),
        Consequence("A taxi driver in {city} is paid in the local currency, the", currency),
    ),
    question_consequences=(
        Consequence("Which currency do the shops of {capital} take?", currency),
        Consequence("In which currency is a taxi driver in {city} paid?", currency),
    ),
)

CONTINENT = Relation(
    "continent",
    continent,
    statements=(
        "{S} is a country on the continent of",
        "The continent to which {s} belongs is",
        "On a map of the world, {s} is found in",
    ),
    locality=(
        "Geographically, {s} is a part of",
        "The continent that {s} is counted as part of is",
        "In an atlas, {s} is in the chapter on",
    ),
    questions=(
        "On which continent is {s}?",
        "To which continent does {s} belong?",
        "What continent is {s} in?",
        "Which continent is {s} counted as part of?",
    ),
    consequences=(
        Consequence("{capital} is a city on the continent of", continent),
        Consequence("A traveller who visits {city} is on the continent of", continent),
    ),
    question_consequences=(
        Consequence("On which continent is a traveller who visits {capital}?", continent),
        Consequence("What continent does a flight to {city} lead to?", continent),
    ),
)

LANGUAGE = Relation(
    "language",
    language,
    statements=(
        "The official language of {s} is",
        "The laws of {s} are written in",
        "The language that the government of {s} uses is",
    ),
    locality=(
        "The state language of {s} is",
        "Official documents in {s} are written in",
        "The language of administration in {s} is",
    ),
    questions=(
        "What is the official language of {s}?",
        "Which language is official in {s}?",
        "In which language are the laws of {s} written?",
        "What language do officials in {s} write in?",
    ),
    consequences=(
        Consequence("The street signs of {capital} are mostly written in", language),
        Consequence("The forms at the town hall of {city} are printed in", language),
    ),
    question_consequences=(
        Consequence("In which language are most street signs in {capital}?", language),
        Consequence("What language are the forms at the town hall of {city} printed in?", language),
    ),
)

HOME = Relation(
    "country",
    home,
    statements=("{s} is a city in", "The country where {s} is located is", "Someone who lands in {s} has arrived in"),
    locality=("The city of {s} belongs to", "{s} can be found on the map of", "The inhabitants of {s} live in"),
    questions=(
        "In which country is {s}?",
        "What country does {s} belong to?",
        "Which country would you travel to in order to see {s}?",
        "In what country is the city of {s} located?",
    ),
    consequences=(
        Consequence("The continent on which {s} lies is", continent),
        Consequence("The currency used in the shops of {s} is the", currency),
        Consequence("The capital of the country to which {s} belongs is", capital),
        Consequence("The official language of the country around {s} is", language),
    ),
    question_consequences=(
        Consequence("On which continent does {s} lie?", continent),
        Consequence("Which currency does a visitor of {s} need?", currency),
        Consequence("What is the capital of the country to which {s} belongs?", capital),
        Consequence("What is the official language of the country around {s}?", language),
    ),
)

LETTER = Relation(
    "letter",
    first_letter,
    statements=(),
    locality=(
        "The first letter of the name {s} is",
        "The name {s} begins with the letter",
        "Spelled out, the name {s} starts with the letter",
    ),
    questions=("With which letter does the name {s} begin?",),
    consequences=(),
    question_consequences=(),
)
"""Of cities; never edited, only asked: it stays what it is wherever the city is said to lie."""

COUNTRY_RELATIONS = (CAPITAL, CURRENCY, CONTINENT, LANGUAGE)


def _country(place: Place) -> Country:
    return place.country if isinstance(place, City) else place


def _city_of(country: Country) -> str:
    """A city of the country other than its capital, of the country's own part."""
    names = [
        city.name
        for city in world().by_country.get(country.name, ())
        if city.part == country.part and city.name != country.capital
    ]
    return names[stable_hash("city of", country.name) % len(names)] if names else ""
