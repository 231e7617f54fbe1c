"""Which descriptions can be used, and why the others cannot: placeholders, length, one line, no examples, no repeats.

Knows a task's card, its records' texts and what was tried before; nothing of models or scores.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from instructedit.instructions.cards import TaskCard
from instructedit.records import EditExample
from instructedit.terminal import shown

MIN_WORDS, MAX_WORDS = 5, 40
MAX_CHARACTERS = 300
LEAST_DIFFERENT = 0.6
"""A text in which a smaller share of the words differ goes in circles."""
SAME_WORDS = 0.75
"""From this share of common words on (Jaccard), two descriptions are one."""
SAME_SIGNS = 0.88
"""From this ratio of matching characters on, too."""
NAMES_EXAMPLE = "names an example"
LONGEST_NAME = 12
"""Words of the longest subject, prompt or target that is looked for."""

_BRACKETS = re.compile(r"\[([^\[\]]*)\]")
_OTHER_SLOTS = re.compile(r"\{[^{}]*\}|<[^<>]*>|\$\w|%\w|\b[A-Z]{2,}_[A-Z]+\b")
_FRAME = re.compile(r"\b(?:Task|Title|Example|Description|Input|Target|Placeholder)\s*:")
_CHATTER = re.compile(
    r"^(?:sure|certainly|of course|here (?:are|is)|okay|ok,|i |i'm|as an ai|sorry|these (?:are|descriptions)|note:)",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")


@dataclass(frozen=True)
class Verdict:
    """What became of one description.

    Args:
        text: the description.
        reason: why it cannot be used; empty for one that can.
    """

    text: str
    reason: str = ""

    @property
    def usable(self) -> bool:
        """Whether it can be used."""
        return not self.reason


@dataclass
class Names:
    """Subjects, prompts and targets of a task's records, to be found in a description.

    Ordinary words are left alone: what is one word without a capital names nothing, and nor does what the task's own
    card says.

    Args:
        names: the texts as they are written.
        allowed: texts whose words name nothing either.
    """

    names: Iterable[str]
    allowed: Iterable[str] = ()
    _phrases: set[tuple[str, ...]] = field(init=False, default_factory=set)
    _single: set[str] = field(init=False, default_factory=set)

    def __post_init__(self) -> None:
        ordinary = {word.casefold() for text in self.allowed for word in _WORD.findall(text)}
        for name in self.names:
            words = _WORD.findall(name)
            if len(words) == 1 and len(words[0]) > 2 and words[0][0].isupper() and words[0].casefold() not in ordinary:
                self._single.add(words[0])
            elif 1 < len(words) <= LONGEST_NAME and not {word.casefold() for word in words} <= ordinary:
                self._phrases.add(tuple(word.casefold() for word in words))

    @classmethod
    def of(cls, examples: Iterable[EditExample], allowed: Iterable[str] = ()) -> "Names":
        """Collect the names of records: of their requests, not of their probes, which ask about much else."""
        names = set()
        for request in (example.request for example in examples):
            names |= {request.subject, request.prompt, request.old_answer, *request.targets, *request.avoid}
        return cls(names, list(allowed))

    def found_in(self, text: str) -> str:
        """Return the first name in a text, as it stands there; empty for none."""
        words = _WORD.findall(text)
        lower = [word.casefold() for word in words]
        for start in range(len(words)):
            # The first word of a sentence has a capital anyway.
            first = start == 0 or re.search(r"[.!?:]\s+" + re.escape(words[start]), text) is not None
            if words[start] in self._single and not first:
                return words[start]
            for end in range(start + 2, min(len(words), start + LONGEST_NAME) + 1):
                if tuple(lower[start:end]) in self._phrases:
                    return " ".join(words[start:end])
        return ""


def screen(texts: Sequence[str], card: TaskCard, names: Names, before: Iterable[str]) -> list[Verdict]:
    """Decide about each description, in order; an earlier one that is usable counts for the later ones.

    Args:
        texts: the descriptions, as ``descriptions_in`` gives them.
        card: the task's.
        names: what an example would betray itself by.
        before: the pool's, and those that were usable before, whether they did well or not.
    """
    known = list(before)
    verdicts = []
    for text in texts:
        verdict = Verdict(text, _fault(text, card, names) or _repeated(text, known))
        verdicts.append(verdict)
        if verdict.usable:
            known.append(text)
    return verdicts


def _fault(text: str, card: TaskCard, names: Names) -> str:
    words = _WORD.findall(text)
    if "\n" in text or shown(text) != text or text != " ".join(text.split()):
        return "not one plain line"
    if _CHATTER.match(text):
        return "speaks to the reader, describes no task"
    if len(words) < MIN_WORDS:
        return f"shorter than {MIN_WORDS} words"
    if len(words) > MAX_WORDS or len(text) > MAX_CHARACTERS:
        return f"longer than {MAX_WORDS} words or {MAX_CHARACTERS} characters"
    fault = _placeholder_fault(text, card)
    if fault:
        return fault
    if "?" in text:
        return "asks a question"
    if _FRAME.search(text) or "://" in text:
        return "holds a label such as Input:, or an address"
    if sum(sign.isalpha() or sign.isspace() for sign in text) < 0.8 * len(text):
        return "mostly not words"
    if len({word.casefold() for word in words}) < LEAST_DIFFERENT * len(words):
        return "repeats its own words"
    # Not which: reasons are told to the server.
    return NAMES_EXAMPLE if names.found_in(_BRACKETS.sub(" ", text)) else ""


def _placeholder_fault(text: str, card: TaskCard) -> str:
    found = _BRACKETS.findall(text)
    unknown = [name for name in found if name not in card.placeholders]
    if unknown:
        return f"placeholder [{unknown[0]}] is not the task's"
    missing = [name for name in card.placeholders if name not in found]
    if missing:
        return f"placeholder [{missing[0]}] is missing"
    rest = _BRACKETS.sub(" ", text)
    if "[" in rest or "]" in rest or _OTHER_SLOTS.search(rest):
        return "holds a placeholder of another kind"
    return ""


def _repeated(text: str, known: Sequence[str]) -> str:
    own = _words(text)
    for other in known:
        theirs = _words(other)
        common = len(own & theirs) / max(1, len(own | theirs))
        if common >= SAME_WORDS or _ratio(text, other) >= SAME_SIGNS:
            return f"much like another one: {other}"
    return ""


def _words(text: str) -> set[str]:
    return {word.casefold() for word in _WORD.findall(text)}


def _ratio(one: str, other: str) -> float:
    matcher = SequenceMatcher(None, one.casefold(), other.casefold(), autojunk=False)
    return matcher.ratio() if matcher.real_quick_ratio() >= SAME_SIGNS and matcher.quick_ratio() >= SAME_SIGNS else 0.0
