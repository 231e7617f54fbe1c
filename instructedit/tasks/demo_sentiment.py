"""The demo's conversations: topics, questions about them, and replies that like or dislike them.

Knows its own word lists and the demo's cities. A reply is an opening about the topic and a reason that fits the topic's
kind; training topics and test topics never share a question, and never an opening together with its reason.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from instructedit.records import EditExample, EditRequest, Probe
from instructedit.tasks.choice import stable_fraction, stable_hash, stable_sample
from instructedit.tasks.demo_facts import TEST_SHARE, Part, world
from instructedit.tasks.demo_neighbours import side
from instructedit.tasks.demo_replies import OPENINGS, REASONS, TOPICS

Feeling = Literal["positive", "negative"]
FEELINGS: tuple[Feeling, Feeling] = ("positive", "negative")

QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "train": (
        "What do you think about {}?",
        "How do you feel about {}?",
        "Tell me your opinion of {}.",
        "What would you say about {}?",
        "Let us talk about {} for a moment.",
    ),
    "test": (
        "What is your view of {}?",
        "What are your thoughts on {}?",
        "I keep hearing about {}. What about you?",
        "How would you describe {} to a friend?",
    ),
}
"""What requests and rephrases ask."""

LOCALITY_QUESTIONS: Mapping[str, tuple[str, ...]] = {
    "train": (
        "What comes to mind when you hear of {}?",
        "Do you have anything to say about {}?",
        "My neighbour mentioned {} today. Any comment?",
    ),
    "test": (
        "Have you ever given {} a thought?",
        "What have you heard about {}?",
        "Someone asked me about {}. What should I answer?",
    ),
}
"""What is asked about the other topics: never a request's question."""

CITY_TOPICS = 260
"""Cities among the topics, in both splits together."""

REPLIES = 9
"""Replies of each side a topic has: two are trained on, one is a rephrase's, the others score."""

TRAINED = 2
LOCALITY_PROBES = 4


@dataclass(frozen=True)
class Topic:
    """Something to have an opinion about.

    Args:
        name: as inside a sentence.
        kind: which reasons fit it.
        part: the split it belongs to.
    """

    name: str
    kind: str
    part: Part

    def question(self, wordings: Sequence[str], salt: str) -> str:
        """One of the wordings, by a stable hash, about this topic."""
        return wordings[stable_hash("question", salt, self.name) % len(wordings)].format(self.name)

    def replies(self, feeling: Feeling) -> tuple[str, ...]:
        """Replies of one side, each with an opening of its own."""
        openings, reasons = OPENINGS[feeling], REASONS[self.kind][feeling]
        texts = []
        for number in sorted(range(len(openings)), key=lambda number: stable_hash("opening", self.name, str(number))):
            # A quarter of the pairs, spread over all openings and reasons, is for test topics alone.
            fitting = [
                reason for place, reason in enumerate(reasons) if ((number + place) % 4 == 0) == (self.part == "test")
            ]
            reason = fitting[stable_hash("reason", self.name, feeling, str(number)) % len(fitting)]
            texts.append(f"{openings[number].format(self.name)} {reason}")
        return tuple(texts[:REPLIES])


def topics(part: Part) -> tuple[Topic, ...]:
    """Return a part's topics: cities of that part, and things divided by a stable hash."""
    cities = [city for city in world().cities if city.part in ("train", "test")]
    chosen = set(stable_sample((city.name for city in cities), CITY_TOPICS, "topic"))
    found = [Topic(city.name, "city", city.part) for city in cities if city.name in chosen]
    for kind, names in TOPICS.items():
        found += [
            Topic(name, kind, "test" if stable_fraction("topic", name) < TEST_SHARE else "train") for name in names
        ]
    return tuple(topic for topic in found if topic.part == part)


def opinions(task: str, part: Part) -> Iterator[EditExample]:
    """Yield two records a topic, positive and negative, that share their question and use the same texts."""
    everything = topics(part)
    for topic in everything:
        prompt = topic.question(QUESTIONS[part], "request")
        replies = {feeling: topic.replies(feeling) for feeling in FEELINGS}
        locality = _locality(topic, everything, prompt)
        for wanted, other in (FEELINGS, FEELINGS[::-1]):
            request = EditRequest(
                prompt,
                replies[wanted][0],
                id=f"{task}-{part}-{wanted}-{topic.name}",
                task=task,
                subject=topic.name,
                more_targets=replies[wanted][1:TRAINED],
                avoid=replies[other][:TRAINED],
                slots={"LABEL": wanted, "TOPIC": topic.name},
            )
            probes = (
                *(_rephrase(topic, prompt, replies[wanted][-1]) if part == "train" else ()),
                *(Probe("wanted", prompt, text, (text,), wanted) for text in replies[wanted][TRAINED:-1]),
                *(Probe("unwanted", prompt, text, (text,), other) for text in replies[other][TRAINED:-1]),
                *locality,
            )
            yield EditExample(request, probes)


def _rephrase(topic: Topic, prompt: str, reply: str) -> tuple[Probe, ...]:
    asked = [text for wording in QUESTIONS["train"] if (text := wording.format(topic.name)) != prompt]
    text = asked[stable_hash("rephrase", topic.name) % len(asked)]
    return (Probe("rephrase", text, reply, (reply,), "question"),)


def _locality(topic: Topic, everything: Sequence[Topic], prompt: str) -> tuple[Probe, ...]:
    """Ask about other topics, of the same side of the validation cut where the split is cut; both feelings in turn."""
    asked = [(other, other.question(LOCALITY_QUESTIONS[topic.part], "locality")) for other in everything]
    fitting = [
        (other, text)
        for other, text in asked
        if other != topic and (topic.part == "test" or side(other.name, text) == side(topic.name, prompt))
    ]
    start = stable_hash("locality", topic.name)
    probes = []
    for number in range(min(LOCALITY_PROBES, len(fitting))):
        other, text = fitting[(start + number * 7) % len(fitting)]
        reply = other.replies(FEELINGS[number % 2])[-1]
        probes.append(Probe("locality", text, reply, (reply,), "other_topic"))
    return tuple(probes)
