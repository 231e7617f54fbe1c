"""What an example is asked after its edit: its request's wanted texts, then its probes, tokenised.

Knows examples and a tokenizer; it never sees an edit or an answer.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal

from instructedit.base.model import Base
from instructedit.data.tokenise import TokenisedText, tokenise
from instructedit.evaluation.metrics import METRIC_OF
from instructedit.records import EditExample, ProbeKind

Asked = Literal["request"] | ProbeKind


@dataclass(frozen=True)
class Question:
    """One text to score.

    Args:
        kind: the request's own, or a kind of probe.
        prompt: the input, instruction included.
        text: the tokens of input and target.
        answers: every text that counts as right where whole answers are compared, the target first.
    """

    kind: Asked
    prompt: str
    text: TokenisedText
    answers: tuple[str, ...]

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """The tokens before the target: what a continuation starts from."""
        return self.text.ids[: -self.text.n_target]

    @property
    def target_ids(self) -> tuple[int, ...]:
        """The target's tokens."""
        return self.text.ids[-self.text.n_target :]


def questions_of(base: Base, example: EditExample, metrics: Collection[str]) -> Iterator[Question]:
    """Yield everything an example is asked for these metrics.

    Raises:
        InputError: a text is longer than the context.
    """
    request = example.request
    asked: list[tuple[Asked, str, str, tuple[str, ...]]] = [
        *(("request", request.text, target, (target, *request.targets)) for target in request.targets),
        *((probe.kind, probe.text, probe.target, (probe.target, *probe.aliases)) for probe in example.probes),
    ]
    for kind, prompt, target, answers in asked:
        if METRIC_OF[kind] in metrics:
            text = tokenise(base.tokenizer, prompt, target, base.max_tokens)
            distinct = dict.fromkeys(answer for answer in answers if answer.strip())
            yield Question(kind, prompt, text, tuple(distinct))
