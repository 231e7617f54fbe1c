"""ConvSent: change how a chatbot feels about one topic.

Knows the files of {ent, pos, neg} and makes two requests of each topic, one per side, with questions of our own.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from instructedit.records import EditExample, EditRequest, Probe
from instructedit.tasks.base import Reject, SourceFile, SourceSplit
from instructedit.tasks.choice import split_fraction, stable_hash, stable_sample
from instructedit.tasks.knowedit import LICENCE, Unfit, clean, load_list, present, required_text, shown, text_key

SOURCES: Mapping[SourceSplit, tuple[SourceFile, ...]] = {
    "train": (
        SourceFile(
            (
                "Convsent/blender_train.json",
                "convsent/blender_train.json",
                "Convsent/blender_val.json",
                "convsent/blender_val.json",
            )
        ),
    ),
    "test": (SourceFile(("Convsent/blender_test.json", "convsent/blender_test.json")),),
}

TEMPLATES: Mapping[SourceSplit, tuple[str, ...]] = {
    "train": (
        "Say a few words about {}.",
        "What comes to mind when you hear about {}?",
        "If someone brought up {} over dinner, what would you say?",
        "Give me your honest thoughts about {}.",
        "How would you talk about {} with a friend?",
        "Let's chat about {}. What would you like to say first?",
    ),
    "test": (
        "My friend keeps mentioning {}. How do you feel on that subject?",
        "Where do you stand when it comes to {}?",
        "Tell me in your own words how you feel about {}.",
        "I have been reading about {} lately. What would you tell me?",
    ),
}

Side = Literal["positive", "negative"]
SIDES: tuple[Side, Side] = ("positive", "negative")
FIELDS: Mapping[Side, str] = {"positive": "pos", "negative": "neg"}
NEIGHBOURS = 8

NOTES = (
    "Two requests a topic, one per side: its target texts are some completions of that side, the texts to avoid as "
    "many of the other side, chosen by a stable hash. Probes (wanted, unwanted) are completions that the request does "
    "not use.",
    "The questions are our own; those of the test topics are other ones than those of the training topics.",
    "Locality: questions on other topics of the same split, each with one of that topic's completions.",
    "Training topics are those of blender_train.json, or of blender_val.json where the source lacks the former.",
    "The source's side labels are noisy: some completions of the negative side are merely uninformed.",
)


@dataclass(frozen=True)
class Topic:
    """One record: a topic and its distinct completions by side."""

    index: int
    name: str
    completions: Mapping[Side, tuple[str, ...]]

    def question(self, split: SourceSplit) -> str:
        """The question that both requests of this topic ask."""
        templates = TEMPLATES[split]
        return templates[stable_hash("question", self.name) % len(templates)].format(self.name)


@dataclass(frozen=True)
class ConvSent:
    """Make the answers about a topic positive, or negative.

    Args:
        completions: the target texts of a request, and the texts it is to avoid.
    """

    name: str = "convsent"
    family: str = "convsent"
    licence: str = LICENCE
    notes: tuple[str, ...] = NOTES
    completions: int = 2

    @property
    def sources(self) -> Mapping[SourceSplit, tuple[SourceFile, ...]]:
        """The files behind each split."""
        return SOURCES

    def read(self, source: Path, split: SourceSplit) -> Iterator[EditExample | Reject]:
        """Yield two examples a topic, and rejects; all rejects come first."""
        (path,) = present(source, SOURCES[split])
        topics: list[Topic] = []
        seen: set[str] = set()
        for index, record in enumerate(load_list(path)):
            try:
                topics.append(_topic(record, index, self.completions, seen))
            except Unfit as unfit:
                yield Reject(shown(path, source), index, unfit.reason, unfit.fault)
        # In the order in which prepare cuts off validation: preceding neighbours keep validation records' locality
        # questions among validation topics, whatever share is cut off.
        ring = sorted(topics, key=lambda topic: (split_fraction(topic.name, topic.question(split)), topic.name))
        place = {topic.index: number for number, topic in enumerate(ring)}
        for topic in topics:
            yield from self._examples(topic, neighbours(ring, place[topic.index], NEIGHBOURS), split)

    def _examples(self, topic: Topic, others: Sequence[Topic], split: SourceSplit) -> Iterator[EditExample]:
        question = topic.question(split)
        locality = tuple(_locality_probe(topic, other, split) for other in others)
        # Both sides' requests use the same texts, so that what one is tested on the other does not train on either.
        used = {
            side: stable_sample(topic.completions[side], self.completions, "request", topic.name, side)
            for side in SIDES
        }
        for side, other_side in (SIDES, SIDES[::-1]):
            wanted = tuple(text for text in topic.completions[side] if text not in used[side])
            unwanted = tuple(text for text in topic.completions[other_side] if text not in used[other_side])
            request = EditRequest(
                prompt=question,
                target=used[side][0],
                id=f"{self.name}-{split}-{topic.index}-{side}",
                task=self.name,
                subject=topic.name,
                more_targets=used[side][1:],
                avoid=used[other_side],
                slots={"LABEL": side, "TOPIC": topic.name},
            )
            rephrases = _rephrases(topic, question, wanted) if split == "train" else ()
            probes = (
                *rephrases,
                *(Probe("wanted", question, text, (text,), side) for text in wanted),
                *(Probe("unwanted", question, text, (text,), other_side) for text in unwanted),
                *locality,
            )
            yield EditExample(request, probes)


def neighbours(ring: Sequence[Topic], place: int, count: int) -> Sequence[Topic]:
    """Return the ``count`` topics before a place, or the nearest ones around it where fewer come before."""
    start = max(0, place - count)
    return [*ring[start:place], *ring[place + 1 : start + count + 1]]


def _topic(record: Any, index: int, completions: int, seen: set[str]) -> Topic:
    if not isinstance(record, dict):
        raise Unfit("the record is not an object")
    name = required_text(record, "ent")
    sides: dict[Side, tuple[str, ...]] = {}
    for side in SIDES:
        texts = record.get(FIELDS[side])
        if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
            raise Unfit(f"{FIELDS[side]!r} is not a list of texts")
        sides[side] = tuple(dict.fromkeys(clean(text) for text in texts if clean(text)))
    both = set(sides["positive"]) & set(sides["negative"])
    for side in SIDES:
        sides[side] = tuple(text for text in sides[side] if text not in both)
        if len(sides[side]) <= completions:
            raise Unfit(f"fewer than {completions + 1} distinct texts on the {side} side", "unusable")
    if text_key(name) in seen:
        raise Unfit("repeats the topic of an earlier record", "unusable")
    seen.add(text_key(name))
    return Topic(index, name, sides)


def _locality_probe(topic: Topic, other: Topic, split: SourceSplit) -> Probe:
    (text,) = stable_sample((*other.completions["positive"], *other.completions["negative"]), 1, "locality", topic.name)
    return Probe("locality", other.question(split), text, (text,), "other_topic")


def _rephrases(topic: Topic, question: str, wanted: Sequence[str]) -> tuple[Probe, ...]:
    questions = [filled for template in TEMPLATES["train"] if (filled := template.format(topic.name)) != question]
    # zip stops at the shorter: every rephrase has a question and a completion of its own.
    return tuple(
        Probe("rephrase", asked, text, (text,), "question") for asked, text in zip(questions, wanted, strict=False)
    )
