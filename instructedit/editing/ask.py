"""What a base says before and after an edit: likelihoods of targets, greedy answers, and how far answers moved.

Knows an edit by its ``applied`` alone, and questions; nothing of methods, files or tables.
"""

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from instructedit.base.generation import continuations, decoded, like_lengths, prompt_ids
from instructedit.base.model import Base
from instructedit.data.rows import Rows, mean_by
from instructedit.data.tokenise import TokenisedText, tokenise
from instructedit.evaluation.forced import passes
from instructedit.evaluation.metrics import LOOK_AHEAD
from instructedit.head_losses import kl_at, nll_at
from instructedit.metatrain import Stage
from instructedit.methods.base import Edit

TOKENS_PER_PASS = 1024
ROWS_AT_ONCE = 32
"""Sequences that are continued at once."""


@dataclass(frozen=True)
class Asked:
    """One question.

    Args:
        prompt: as the model sees it.
        target: the text whose probability is wanted; empty for a question whose answer must only stay.
        answer_tokens: how long the greedy answer may be; 0 generates none.
    """

    prompt: str
    target: str = ""
    answer_tokens: int = 0


@dataclass(frozen=True)
class Found:
    """What a question came to.

    Args:
        probability: of the whole target, before and after; NaN without a target.
        answer: the greedy answer, before and after; empty where none was generated.
        kl: mean KL(base || edited) in nats at the tokens of the target, or of the base's own answer.
        same: whether the likeliest token is the same at each of them and the greedy answers are equal.
    """

    probability: tuple[float, float]
    answer: tuple[str, str]
    kl: float
    same: bool


@dataclass(frozen=True)
class AtTarget:
    """What an edit has done at the tokens of one text's target, the target standing in the input.

    Args:
        probability: of the whole target, before and after.
        kl: mean KL(base || edited) in nats over the tokens; infinite where it is no number.
        kept: the share of the tokens at which the likeliest token is still the base's.
    """

    probability: tuple[float, float]
    kl: float
    kept: float


def answer_length(base: Base, target: str) -> int:
    """Return how many tokens show whether an answer begins with a target, and how it goes on."""
    encoded = base.tokenizer(" " + target, add_special_tokens=False)["input_ids"]
    return len(encoded) + LOOK_AHEAD


def ask(base: Base, edit: Edit, first_block: int, questions: Sequence[Asked]) -> list[Found]:
    """Ask the base every question with and without an edit, all of the edit applied.

    Args:
        base: the base.
        edit: the edit.
        first_block: the first block it touches.
        questions: what to ask.

    Raises:
        InputError: a prompt is empty, or a text leaves no room in the context.
    """
    texts = _tokenised(base, questions)
    before: list[tuple[str, tuple[int, ...]]] = [("", ())] * len(questions)
    after = list(before)
    for group in _groups(questions, texts):
        inputs = [texts[n].ids[: len(texts[n].ids) - texts[n].n_target] for n in group]
        most = max(questions[n].answer_tokens for n in group)
        for found, context in ((before, nullcontext()), (after, edit.applied())):
            with context:
                said = continuations(base, inputs, most)
            for n, tokens in zip(group, said, strict=True):
                # A group goes on for its longest answer; what is shown must not depend on the neighbours.
                own = tokens[: questions[n].answer_tokens]
                found[n] = (decoded(base, own), own)
    for n, question in enumerate(questions):
        if not question.target:
            # A row needs a token at each place that is looked at: the last place of the prompt where nothing was said.
            own = before[n][1] or texts[n].ids[:1]
            texts[n] = TokenisedText(texts[n].ids + own, len(own))
    forced = at_targets(edit, Stage.for_evaluation(base, first_block), texts)
    return [
        Found(
            one.probability if question.target else (math.nan, math.nan),
            (before[n][0], after[n][0]),
            one.kl,
            one.kept == 1.0 and before[n][1] == after[n][1],
        )
        for n, (question, one) in enumerate(zip(questions, forced, strict=True))
    ]


def _tokenised(base: Base, questions: Sequence[Asked]) -> list[TokenisedText]:
    """Tokenise each prompt with its target, where it has one; all errors come before the first answer."""
    found = []
    for question in questions:
        (bare,) = prompt_ids(base, [question.prompt], question.answer_tokens)
        text = TokenisedText(bare, 0)
        if question.target:
            text = tokenise(base.tokenizer, question.prompt, question.target, base.max_tokens)
        found.append(text)
    return found


def _groups(questions: Sequence[Asked], texts: Sequence[TokenisedText]) -> list[list[int]]:
    asked = [n for n, question in enumerate(questions) if question.answer_tokens]
    lengths = [len(texts[n].ids) - texts[n].n_target for n in asked]
    return [[asked[place] for place in group] for group in like_lengths(lengths, ROWS_AT_ONCE)]


@torch.no_grad()
def at_targets(edit: Edit, stage: Stage, texts: Sequence[TokenisedText]) -> list[AtTarget]:
    """Hold an edit, all of it applied, against the base at each text's target.

    Args:
        edit: the edit.
        stage: the base, split at or below the first block the edit touches.
        texts: inputs with their targets.
    """
    found: dict[int, AtTarget] = {}
    for chosen in passes([len(text.ids) for text in texts], TOKENS_PER_PASS):
        rows = Rows.of((0, texts[n]) for n in chosen)
        hidden = stage.hidden(rows)
        targets = rows.targets(hidden.device)

        def states(applied: AbstractContextManager[None], hidden: Tensor = hidden, rows: Rows = rows) -> Tensor:
            with applied:
                return rows.targets(hidden.device).select(stage.split.tail(hidden, rows.windows(hidden.device)))

        base, edited = states(nullcontext()), states(edit.applied())
        n = len(rows)
        values = [mean_by(nll_at(stage.split, each, targets.label)[0], targets.row, n) for each in (base, edited)]
        divergence, same = kl_at(stage.split, base, edited)
        values += [mean_by(divergence, targets.row, n), mean_by(same.float(), targets.row, n)]
        table = torch.stack(values, 1).tolist()
        for place, (before, after, kl, kept) in zip(chosen, table, strict=True):
            length = texts[place].n_target
            probability = math.exp(-before * length), math.exp(-after * length)
            found[place] = AtTarget(probability, kl if math.isfinite(kl) else math.inf, kept)
    return [found[place] for place in range(len(texts))]
