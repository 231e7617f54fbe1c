"""Training paraphrases by rule, for records whose source has none.

MEND's edit loss is defined on the equivalence neighbourhood of a request; most of KnowEdit's
training records have no rephrase. These rules make some from the prompt and the subject alone;
they are our own and see no test record. Knows text; it knows nothing about tokens or tasks.
"""

import re
from dataclasses import replace

from instructedit.records import EditExample, Probe
from instructedit.tasks.choice import stable_sample

FRAMES = (
    "Complete the sentence: {prompt}",
    "Q: {prompt}\nA:",
    "It is well known that {lower}",
    "Here is a fact you should know. {prompt}",
    "As far as anyone can tell, {lower}",
    "Fill in what is missing. {prompt}",
)
"""Frames around an unchanged prompt; ``{lower}`` is the prompt as it reads in the middle of a sentence."""

QUESTION_FRAMES = (
    "Q: {prompt}\nA:",
    "{prompt} The answer is",
    "Please answer this question. {prompt}",
    "Somebody asked: {prompt} The reply was:",
)

_ARTICLES = {"The", "A", "An"}
_NAMED = re.compile(r"^The (?:name of the )?(?P<relation>.+?) (?P<link>of|for) (?P<subject>.+) is$")
_THE_IS = re.compile(r"^The (?P<rest>.+) is$")


def question_of(prompt: str) -> str | None:
    """Turn "The capital of Spain is" into "What is the capital of Spain?"; None where the form is another."""
    match = _THE_IS.match(prompt.strip())
    return f"What is the {match['rest']}?" if match else None


def rewordings(prompt: str, subject: str = "") -> tuple[str, ...]:
    """List every paraphrase the rules give for a prompt, without the prompt itself.

    Example:
        ``rewordings("The capital of Spain is", "Spain")`` holds ``"What is the capital of Spain?"``,
        ``"Spain's capital is"``, ``"Regarding Spain, the capital is"`` and the frames of both.

    Args:
        prompt: a cloze ("... is") or a question ("...?").
        subject: what the prompt is about; without it the possessive forms are left out.
    """
    prompt = prompt.strip()
    if prompt.endswith("?"):
        return tuple(frame.format(prompt=prompt) for frame in QUESTION_FRAMES)
    first = prompt.split(" ", 1)[0]
    lower = prompt[:1].lower() + prompt[1:] if first in _ARTICLES else prompt  # a name keeps its capital
    made = [frame.format(prompt=prompt, lower=lower) for frame in FRAMES]
    question = question_of(prompt)
    if question:
        made += [question, f"Q: {question}\nA:", f"{question} It is"]
    match = _NAMED.match(prompt)
    if match and subject and match["subject"] == subject:
        relation = match["relation"]
        made += [f"{subject}'s {relation} is", f"Regarding {subject}, the {relation} is", f"{subject}. Its {relation}:"]
    return tuple(made)


def with_rewordings(example: EditExample, count: int = 1) -> EditExample:
    """Give an example without rephrases ``count`` of the rules' rewordings as rephrase probes.

    For validation records, which come from training files without rephrases; a test record is
    never touched by this. An example that has rephrases, or wants several texts, is returned as it is.
    """
    request = example.request
    if example.of_kind("rephrase") or request.avoid:
        return example
    chosen = stable_sample(rewordings(request.prompt, request.subject), count, "rewording", request.id)
    made = tuple(
        Probe("rephrase", text, request.target, (request.target,), "rewording", request.instruction) for text in chosen
    )
    return replace(example, probes=example.probes + made)
