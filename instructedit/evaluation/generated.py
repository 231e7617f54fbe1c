"""What is asked by generation, of which records, and how: greedy questions, and sampled text for fluency.

Knows an edit by its ``applied`` alone; nothing about methods, files or tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from instructedit.base.generation import continuations, decoded, like_lengths
from instructedit.base.model import Base
from instructedit.data.tokenise import tokenise
from instructedit.errors import InputError
from instructedit.evaluation.fluency import ngram_entropy
from instructedit.evaluation.greedy import BeforeCache, Said, greedy_values, most_tokens, row_index
from instructedit.evaluation.metrics import Value
from instructedit.evaluation.questions import Question
from instructedit.methods.base import Edit
from instructedit.records import EditRequest
from instructedit.tasks.choice import stable_hash


@dataclass(frozen=True)
class Generated:
    """Which records are asked by generation, and how.

    Args:
        greedy: ids of the records whose questions are also answered by a greedy continuation.
        fluency: ids of the records whose request is continued for fluency.
        fluency_tokens: length of that continuation, in tokens; it never ends early.
        top_k: a token of it is drawn from so many likeliest ones.
        seed: with the record's id the seed of its drawing, the same for every method.
        rows_per_pass: sequences generated at once.
    """

    greedy: frozenset[str] = frozenset()
    fluency: frozenset[str] = frozenset()
    fluency_tokens: int = 100
    top_k: int = 5
    seed: int = 0
    rows_per_pass: int = 64

    def __post_init__(self) -> None:
        for name in ("fluency_tokens", "top_k", "rows_per_pass"):
            if getattr(self, name) < 1:
                raise InputError(f"generated.{name} must be at least 1; found {getattr(self, name)}.")


@dataclass(frozen=True)
class GeneratedText:
    """One continuation, to be kept beside the numbers.

    Args:
        id: the record's id.
        task: the record's task.
        method: the row of the table.
        kind: what was asked: ``request``, a kind of probe, or ``fluency``.
        prompt: the input, instruction included.
        text: the continuation.
        wanted: the answers that count as right; for locality what the base says without the edit.
    """

    id: str
    task: str
    method: str
    kind: str
    prompt: str
    text: str
    wanted: tuple[str, ...] = ()


def generated_values(
    edit: Edit,
    base: Base,
    requests: Sequence[EditRequest],
    questions: Sequence[Sequence[Question]],
    settings: Generated,
    before: BeforeCache,
) -> list[tuple[list[Value], list[Said]]]:
    """Ask b requests what is to be asked of them by generation, each under its own edit.

    Returns:
        Per request its values and every continuation; nothing for a record that the settings do not name.
    """
    chosen = {n: questions[n] for n, request in enumerate(requests) if request.id in settings.greedy}
    greedy = greedy_values(edit, base, chosen, settings.rows_per_pass, before)
    fluent = {n: request for n, request in enumerate(requests) if request.id in settings.fluency}
    found: list[tuple[list[Value], list[Said]]] = [greedy.get(n, ([], [])) for n in range(len(requests))]
    for n, tokens in _sampled(edit, base, fluent, settings).items():
        text = decoded(base, tokens)
        found[n][0].append(Value("fluency", ngram_entropy(text), len(tokens), 1))
        found[n][1].append(Said("fluency", requests[n].text, text))
    return found


def _sampled(
    edit: Edit, base: Base, requests: dict[int, EditRequest], settings: Generated
) -> dict[int, tuple[int, ...]]:
    """Continue requests' inputs, by their indices among the edit's: the tokens drawn."""
    numbers = list(requests)
    inputs = [_input(base, request) for request in requests.values()]
    found: dict[int, tuple[int, ...]] = {}
    for group in like_lengths([len(ids) for ids in inputs], settings.rows_per_pass):
        own = [numbers[index] for index in group]
        seeds = [stable_hash(str(settings.seed), "fluency", requests[n].id) for n in own]
        with edit.applied(row_index(own, base.device)):
            drawn = continuations(
                base,
                [inputs[index] for index in group],
                settings.fluency_tokens,
                top_k=settings.top_k,
                seeds=seeds,
                full_length=True,
            )
        found |= zip(own, drawn, strict=True)
    return found


def check_room(base: Base, request: EditRequest, questions: Sequence[Question], settings: Generated) -> None:
    """Refuse a record whose continuations would leave the base's context.

    Raises:
        InputError: they would.
    """
    longest = most_tokens(base, questions) if request.id in settings.greedy else 0
    if request.id in settings.fluency:
        longest = max(longest, len(_input(base, request)) + settings.fluency_tokens)
    if longest > base.max_tokens:
        raise InputError(
            f"Generating for record {request.id!r} takes up to {longest} tokens, but the base's context has "
            f"{base.max_tokens}. Leave the record out of those asked by generation, or generate fewer tokens."
        )


def _input(base: Base, request: EditRequest) -> tuple[int, ...]:
    """Return the request's tokens before its target."""
    text = tokenise(base.tokenizer, request.text, request.target, base.max_tokens)
    return text.ids[: -text.n_target]
