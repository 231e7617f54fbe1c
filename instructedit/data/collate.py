"""From drawn examples to a batch of rows: which texts one step trains on, and as what.

Every choice (instruction, rephrase, locality input) derives from a draw's seed, so that a step's
batch is the same on any number of ranks and after any restart. Knows examples, pools and a
tokenizer; it never sees a model. Batches may mix tasks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from transformers import PreTrainedTokenizerBase

from instructedit.data.paraphrase import question_of, rewordings
from instructedit.data.rows import Rows
from instructedit.data.samplers import Draw
from instructedit.data.tokenise import TokenisedText, tokenise_all
from instructedit.errors import InputError
from instructedit.instructions.pools import InstructionPool, pool_for
from instructedit.instructions.rendering import training_instruction
from instructedit.records import EditExample, EditRequest
from instructedit.tasks.choice import stable_fraction, stable_hash

T = TypeVar("T")

ROLES = ("inner", "rephrase", "avoid", "locality")
"""The rows of a `Batch`, under their names there."""


@dataclass(frozen=True)
class Batch:
    """The rows of b requests in their roles; ``Rows.request`` counts from 0 to b - 1.

    Args:
        inner: the edit inputs the inner gradient is taken on, with each wanted target.
        rephrase: the same requests in other words; the edit loss is taken on these and ``inner``.
        avoid: texts to make less likely.
        locality: inputs whose answers must stay.
        tasks: each request's task.
        record_ids: each request's id.
        requests: the requests as they were asked, with the prompt and the instruction of this draw.
    """

    inner: Rows
    rephrase: Rows
    avoid: Rows
    locality: Rows
    tasks: tuple[str, ...]
    record_ids: tuple[str, ...]
    requests: tuple[EditRequest, ...] = ()

    def __len__(self) -> int:
        return len(self.tasks)


@dataclass(frozen=True)
class TrainingMix:
    """How many rows of each kind one request brings into a step.

    Args:
        rephrases: rephrases in the edit loss, the record's own where it has some.
        locality: locality inputs; the first is the record's own where it has one, the others are
            other records' prompts.
        avoid: texts in the unlikelihood term, where the request has any.
        reworded: share of draws, between 0 and 1, whose edit input is itself a rewording, so that
            an editor sees questions although the training prompts are mostly unfinished sentences.
    """

    rephrases: int = 1
    locality: int = 2
    avoid: int = 1
    reworded: float = 0.0

    def __post_init__(self) -> None:
        if self.locality < 1:
            raise InputError(f"Training needs at least 1 locality input per request; found {self.locality}.")
        if self.rephrases < 0 or self.avoid < 0:
            raise InputError(f"mix.rephrases and mix.avoid are 0 or more; found {self.rephrases} and {self.avoid}.")
        if not 0 <= self.reworded <= 1:
            raise InputError(f"reworded is a share between 0 and 1; found {self.reworded}.")


class Collator:
    """Turns draws into a ``Batch``.

    Args:
        tokenizer: the base's tokenizer.
        max_tokens: the base's context length.
        examples: the training examples of every task.
        pools: the instruction pools; None trains without instructions (MEND).
        mix: how many rows of each kind.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_tokens: int,
        examples: Mapping[str, Sequence[EditExample]],
        pools: Mapping[str, InstructionPool] | None,
        mix: TrainingMix = TrainingMix(),  # noqa: B008 - frozen
    ) -> None:
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens
        self.examples = examples
        self.pools = pools
        self.mix = mix
        self._tasks = sorted(task for task in examples if examples[task])

    def __call__(self, draws: Sequence[Draw]) -> Batch:
        """Build the batch of a list of draws.

        Raises:
            InputError: a text is longer than the context, an instruction's slot is missing.
        """
        places: list[tuple[str, int]] = []
        pairs: list[tuple[str, str]] = []
        requests: list[EditRequest] = []

        def add(role: str, index: int, found: Iterable[tuple[str, str]]) -> None:
            before = len(pairs)
            pairs.extend(found)
            places.extend([(role, index)] * (len(pairs) - before))

        for index, draw in enumerate(draws):
            example = self._example(draw)
            request = example.request
            prompt = self._prompt(example, draw.seed)
            requests.append(replace(request, prompt=prompt))
            text = request.instruction + prompt
            add("inner", index, ((text, target) for target in request.targets))
            add("rephrase", index, self._rephrases(example, prompt, draw.seed))
            add("avoid", index, ((text, other) for other in self._avoided(example, draw.seed)))
            add("locality", index, self._kept(example, draw))
        rows: dict[str, list[tuple[int, TokenisedText]]] = {role: [] for role in ROLES}
        texts = tokenise_all(self.tokenizer, pairs, self.max_tokens)
        for (role, index), found in zip(places, texts, strict=True):
            rows[role].append((index, found))
        return Batch(
            **{role: Rows.of(rows[role]) for role in ROLES},
            tasks=tuple(request.task for request in requests),
            record_ids=tuple(request.id for request in requests),
            requests=tuple(requests),
        )

    def _example(self, draw: Draw) -> EditExample:
        example = self.examples[draw.task][draw.index]
        if self.pools is None:
            return example
        pool = pool_for(self.pools, draw.task)
        # Not example.instructed(): of the probes, training reads prompts and targets alone.
        instruction = training_instruction(pool, example.request, draw.seed)
        return replace(example, request=replace(example.request, instruction=instruction))

    def _prompt(self, example: EditExample, seed: int) -> str:
        request = example.request
        made = () if request.avoid else rewordings(request.prompt, request.subject)
        if not made or _fraction(seed, "reworded") >= self.mix.reworded:
            return request.prompt
        return made[_pick(seed, "prompt", len(made))]

    def _rephrases(self, example: EditExample, prompt: str, seed: int) -> Iterator[tuple[str, str]]:
        """Yield (text, target): the record's own rephrases and rewordings of its prompt, either kind first."""
        request = example.request
        own = [(probe.prompt, probe.target) for probe in example.of_kind("rephrase")]
        made = [] if request.avoid else [(text, request.target) for text in rewordings(request.prompt, request.subject)]
        if prompt != request.prompt:
            made = [pair for pair in made if pair[0] != prompt] + [(request.prompt, request.target)]
        # A coin decides which kind comes first: one alias would otherwise hide every rewording.
        kinds = [_shuffled(own, seed, "own"), _shuffled(made, seed, "made")]
        for text, target in sum(_shuffled(kinds, seed, "kind"), [])[: self.mix.rephrases]:
            yield request.instruction + text, target

    def _avoided(self, example: EditExample, seed: int) -> list[str]:
        return _shuffled(list(example.request.avoid), seed, "avoid")[: self.mix.avoid]

    def _kept(self, example: EditExample, draw: Draw) -> Iterator[tuple[str, str]]:
        """Yield locality inputs, never with an instruction: one of the record's own, then other records'."""
        own = _shuffled([(p.prompt, p.target) for p in example.of_kind("locality")], draw.seed, "locality")
        yield from own[:1]
        for place in range(len(own[:1]), self.mix.locality):
            yield self._other(example, draw.seed, place)

    def _other(self, example: EditExample, seed: int, place: int) -> tuple[str, str]:
        """Choose another record's prompt, of any task, with the answer it had before where that is known."""
        for attempt in range(20):
            salt = f"other {place} {attempt}"
            task = self._tasks[_pick(seed, salt + " task", len(self._tasks))]
            other = self.examples[task][_pick(seed, salt, len(self.examples[task]))].request
            same_subject = other.subject and other.subject == example.request.subject
            if not same_subject and other.prompt != example.request.prompt:
                question = question_of(other.prompt) if _fraction(seed, salt + " form") < 0.5 else None
                return question or other.prompt, other.old_answer or other.target
        raise InputError("No other record was found for locality: training needs records of more than one subject.")


def _pick(seed: int, what: str, n: int) -> int:
    return stable_hash(str(seed), what) % n


def _fraction(seed: int, what: str) -> float:
    return stable_fraction(str(seed), what)


def _shuffled(items: Sequence[T], seed: int, what: str) -> list[T]:
    if len(items) < 2:
        return list(items)
    order = sorted(range(len(items)), key=lambda index: stable_hash(str(seed), what, str(index)))
    return [items[index] for index in order]
