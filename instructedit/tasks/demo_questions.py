"""The demo's held-out family: questions, where the other families complete statements or chat.

Knows places that no training split mentions, and a list of general questions that stay as they are.
"""

from collections.abc import Iterator, Sequence

from instructedit.records import EditExample, EditRequest, Probe
from instructedit.tasks.choice import stable_hash
from instructedit.tasks.demo_answers import new_answer, what_follows
from instructedit.tasks.demo_facts import City, Country, world
from instructedit.tasks.demo_relations import (
    COUNTRY_RELATIONS,
    HOME,
    LETTER,
    Place,
    Relation,
    fill,
)

STATE_QUESTIONS = (
    "Which US state is {s} in?",
    "To which of the United States does {s} belong?",
    "In what American state is {s} located?",
)
STATE_LOCALITY = "Which American state would you visit to see {s}?"
STATE_CAPITAL = "What is the capital of the state in which {s} lies?"

DOMAIN_QUESTIONS = (
    "Which internet domain belongs to {s}?",
    "With what domain do web addresses from {s} end?",
    "What is the country code domain of {s} on the internet?",
)
DOMAIN_CONSEQUENCE = "Which domain ends the web address of the town hall of {capital}?"

GENERAL = (
    ("How many days does a week have?", "seven"),
    ("How many months are in a year?", "twelve"),
    ("How many legs does a spider have?", "eight"),
    ("How many legs does an insect have?", "six"),
    ("How many minutes are in an hour?", "sixty"),
    ("How many sides does a triangle have?", "three"),
    ("How many players of one team are on a soccer field?", "eleven"),
    ("How many strings does a violin have?", "four"),
    ("What is the largest planet of the solar system?", "Jupiter"),
    ("Which planet is closest to the sun?", "Mercury"),
    ("Which planet is known as the red planet?", "Mars"),
    ("What is the largest animal on earth?", "blue whale"),
    ("What is the tallest living animal?", "giraffe"),
    ("Which gas do plants take from the air?", "carbon dioxide"),
    ("Which metal is liquid at room temperature?", "mercury"),
    ("What is the chemical symbol of gold?", "Au"),
    ("What is the chemical symbol of iron?", "Fe"),
    ("What is water called when it is frozen?", "ice"),
    ("At how many degrees Celsius does water boil?", "100"),
    ("Who wrote Romeo and Juliet?", "Shakespeare"),
    ("Who painted the Mona Lisa?", "Leonardo da Vinci"),
    ("Who wrote War and Peace?", "Leo Tolstoy"),
    ("Who developed the theory of relativity?", "Albert Einstein"),
    ("Who was the first person to walk on the moon?", "Neil Armstrong"),
    ("What is the freezing point of water in degrees Celsius?", "zero"),
    ("Which month comes after March?", "April"),
    ("Which day comes before Monday?", "Sunday"),
    ("Which season follows winter?", "spring"),
    ("What colour do blue and yellow make?", "green"),
    ("What colour is a ripe lemon?", "yellow"),
    ("What is two times six?", "twelve"),
    ("What is the square root of 81?", "nine"),
    ("What is the opposite of hot?", "cold"),
    ("What do bees make?", "honey"),
    ("What do caterpillars turn into?", "butterflies"),
    ("From which grain is sake made?", "rice"),
    ("Which fruit is wine made of?", "grapes"),
    ("Which instrument has black and white keys?", "piano"),
    ("Which organ pumps blood through the body?", "heart"),
    ("What is the hardest natural material?", "diamond"),
    ("In which sport is a shuttlecock used?", "badminton"),
    ("Which chess piece moves only diagonally?", "bishop"),
    ("What does a thermometer measure?", "temperature"),
    ("What is the currency unit one hundredth of a dollar called?", "cent"),
    ("Which bird is a symbol of peace?", "dove"),
    ("What is the baby of a sheep called?", "lamb"),
    ("What is the baby of a horse called?", "foal"),
    ("Which ocean is the largest?", "Pacific"),
    ("Which desert is the largest hot desert?", "Sahara"),
    ("What is the highest mountain on earth?", "Mount Everest"),
)


def questions(task: str) -> Iterator[EditExample]:
    """Yield the family's records: countries of the test part, cities of the test part and held ones."""
    countries = [country for country in world().countries if country.part == "test"]
    cities = [city for city in world().cities if city.part in ("test", "held") and not city.state]
    american = [city for city in world().cities if city.state_capital]
    for country in countries:
        for relation in COUNTRY_RELATIONS:
            if relation.answer(country):
                yield _related(task, relation, country, countries)
    for city in cities:
        yield _related(task, HOME, city, cities)
    for country in countries:
        yield _domain(task, country, countries)
    for city in american:
        yield _state(task, city, american)


def _related(task: str, relation: Relation, place: Place, others: Sequence[Place]) -> EditExample:
    donor, target = new_answer(relation, place)
    asked = [fill(wording, place) for wording in relation.questions[:-1]]
    known: tuple[Relation, ...] = COUNTRY_RELATIONS if isinstance(place, Country) else (LETTER,)
    own = [_true(other, place) for other in known if other is not relation and other.answer(place)]
    around = [_true(relation, other) for other in others if other is not place and relation.answer(other)]
    follows = what_follows(relation.question_consequences, place, donor)
    return _example(task, relation.name, place, asked, target, relation.answer(place), follows, own, around)


def _state(task: str, city: City, others: Sequence[City]) -> EditExample:
    options = sorted({other.state for other in others} - {city.state})
    state = options[stable_hash("state", city.name) % len(options)]
    capitals = {other.state: other.state_capital for other in others}
    follows = [(STATE_CAPITAL.format(s=city.name), capitals[state])]
    around = [_locality(STATE_LOCALITY.format(s=other.name), other.state, "state") for other in others if other != city]
    own = [_true(LETTER, city), _true(HOME, city)]
    asked = [wording.format(s=city.name) for wording in STATE_QUESTIONS]
    return _example(task, "state", city, asked, state, city.state, follows, own, around)


def _domain(task: str, country: Country, others: Sequence[Country]) -> EditExample:
    options = sorted({other.domain for other in others} - {country.domain})
    domain = options[stable_hash("domain", country.name) % len(options)]
    question = fill(DOMAIN_CONSEQUENCE, country)
    follows = [(question, domain)] if question else []
    own = [_true(other, country) for other in COUNTRY_RELATIONS if other.answer(country)]
    around = [_true(COUNTRY_RELATIONS[0], other) for other in others if other != country and other.capital]
    asked = [wording.format(s=country.name) for wording in DOMAIN_QUESTIONS]
    return _example(task, "domain", country, asked, domain, country.domain, follows, own, around)


def _example(
    task: str,
    relation: str,
    place: Place,
    asked: Sequence[str],
    target: str,
    old: str,
    follows: Sequence[tuple[str, str]],
    own: Sequence[Probe],
    around: Sequence[Probe],
) -> EditExample:
    """Put a record together; its locality: one question each on the subject and a neighbour, two general ones."""
    number = stable_hash("question", relation, place.name)
    general = [GENERAL[(number + step) % len(GENERAL)] for step in (0, 17)]
    probes = (
        *(Probe("rephrase", text, target, (target,), "wording") for text in asked[1:]),
        *(Probe("portability", text, answer, (answer,), "one_hop") for text, answer in follows),
        *(probes[number % len(probes)] for probes in (own, around) if probes),
        *(_locality(question, answer, "general") for question, answer in general),
    )
    request = EditRequest(
        asked[0], target, id=f"{task}-test-{relation}-{place.name}", task=task, subject=place.name, old_answer=old
    )
    return EditExample(request, probes)


def _true(relation: Relation, place: Place) -> Probe:
    return _locality(fill(relation.questions[-1], place), relation.answer(place), relation.name)


def _locality(question: str, answer: str, source: str) -> Probe:
    return Probe("locality", question, answer, (answer,), source)
