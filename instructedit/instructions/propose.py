"""The prompts: ten descriptions of a task asked for from its card alone, then better ones, shown what was measured.

No record's text is ever in a prompt. Knows cards, texts and numbers; nothing of servers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from instructedit.instructions.cards import TaskCard
from instructedit.instructions.screen import MAX_WORDS, MIN_WORDS, NAMES_EXAMPLE

Message = dict[str, str]
"""``{"role": ..., "content": ...}``, as chat servers take it."""

SYSTEM = (
    "You write short descriptions of knowledge editing tasks. A description is put in front of every input of its "
    "task, so that a trained editor of a language model recognises which kind of edit it is to make."
)

COLUMNS = ("score", "reliability", "generalization", "locality", "portability", "success")


@dataclass(frozen=True)
class Measured:
    """A description and what was measured with it in front.

    Args:
        text: the description.
        metrics: shares between 0 and 1 by metric, ``score`` among them.
    """

    text: str
    metrics: Mapping[str, float] = field(default_factory=dict)


def request(
    card: TaskCard,
    wanted: int,
    measured: Sequence[Measured] = (),
    found: Sequence[str] = (),
    rejected: Sequence[tuple[str, str]] = (),
) -> list[Message]:
    """Write the messages of one ask.

    Args:
        card: the task's.
        wanted: how many descriptions.
        measured: the descriptions tried so far, the best first; none at the first request.
        found: those of this round that are usable already, not measured yet.
        rejected: some that were not usable, each with the reason.
    """
    parts = [_task(card), _rules(card, wanted)]
    if measured:
        parts.append(_results(measured))
    if found:
        parts.append("These you have written already; do not repeat them:\n" + _listed(found))
    if rejected:
        # What names an example is not said again: a prompt holds no record's text, not even one that was guessed.
        told = "\n".join(
            f"- {'one of them' if reason == NAMES_EXAMPLE else text[:120]}  (not usable: {reason})"
            for text, reason in rejected
        )
        parts.append(f"Some of your last answer could not be used:\n{told}")
    again = "better " if measured else ""
    parts.append(f"Write {wanted} {again}descriptions now, numbered, one a line, and nothing else.")
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "\n\n".join(parts)}]


def _task(card: TaskCard) -> str:
    lines = [
        f"Task: {card.label}",
        f"Family: {card.family}",
        f"Definition: {card.definition}",
        f"Input: {card.input_template}",
        f"Target: {card.target_template}",
    ]
    lines += [f"Placeholder [{name}]: {meaning}" for name, meaning in card.placeholders.items()]
    return "\n".join(lines)


def _rules(card: TaskCard, wanted: int) -> str:
    names = " and ".join(f"[{name}]" for name in card.placeholders)
    held = (
        f"Each holds {names}, spelled exactly so, and no other word in brackets."
        if names
        else "No placeholders and nothing in brackets."
    )
    return (
        f"Write {wanted} descriptions of this task. Each is one sentence or two of {MIN_WORDS} to {MAX_WORDS} words in "
        "one line, an instruction to whoever edits the model. Each is generic: it fits every record of the task, and "
        f"names no person, place, date or example. {held} They differ from each other in wording and in what they "
        "stress."
    )


def _results(measured: Sequence[Measured]) -> str:
    names = [name for name in COLUMNS if any(name in each.metrics for each in measured)]
    lines = [
        f"{place}. {each.text}  ("
        + ", ".join(f"{name} {100 * each.metrics[name]:.1f}" for name in names if name in each.metrics)
        + ")"
        for place, each in enumerate(measured, 1)
    ]
    return (
        "An editor was trained with the descriptions below, and edits were measured with each of them in front, in "
        "percent. Reliability: the edited fact is answered. Generalization: also in other words. Locality: other "
        "answers stay. Portability: what follows from the fact is answered. Success: replies turn to the wanted mood. "
        "The score is their mean. Best first:\n" + "\n".join(lines) + "\n\n"
        "Find out what the better ones have in common, and improve on them: write new ones that you expect to score "
        "higher. Do not repeat any of these."
    )


def _listed(texts: Sequence[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)
