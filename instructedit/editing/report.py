"""The report on an edit: what the base said before and says after, on the request, its rephrases, and what must stay.

Knows edits and probes. How a question is answered, `ask` knows; how a report is shown, `shown` does.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from instructedit.editing.ask import Asked, answer_length, ask
from instructedit.editing.edit import Edit
from instructedit.editing.limits import Limits
from instructedit.errors import InputError
from instructedit.evaluation.metrics import begins_with
from instructedit.records import EditRequest, Probe

Kind = Literal["request", "instructed", "rephrase", "portability", "kept", "built-in"]
"""``request`` is asked bare, ``instructed`` with the instruction it was edited in with. ``kept`` and ``built-in`` ask
what must stay."""

BUILT_IN = (
    ("Water is made of hydrogen and", "oxygen"),
    ("The sun rises in the", "east"),
    ("The opposite of hot is", "cold"),
    ("Romeo and Juliet was written by William", "Shakespeare"),
    ("A week has seven", "days"),
    ("The color of fresh grass is", "green"),
    ("To be, or not to be, that is the", "question"),
    ("A triangle has three", "sides"),
)
"""Asked where nothing else was named that must stay; any base of some size knows most of them."""


@dataclass(frozen=True)
class Line:
    """One question of a report.

    Args:
        kind: what it is asked for.
        request: the number of the request it belongs to, from 0; -1 for what must stay whatever the request.
        prompt: as the model saw it.
        target: the wanted text; empty where the answer must only stay and none was named.
        probability_before: of the whole target; NaN without one.
        probability_after: the same with the edit.
        before: the greedy answer of the base; empty where none was generated.
        after: the same with the edit.
        right: whether the answer after the edit begins with the target; for what must stay: whether it is the same as
            before.
        kl: mean KL(base || edited) in nats, at the tokens of the target or else of the base's answer.
    """

    kind: Kind
    request: int
    prompt: str
    target: str
    probability_before: float
    probability_after: float
    before: str
    after: str
    right: bool
    kl: float

    @property
    def stays(self) -> bool:
        """Whether it asks what must stay."""
        return self.kind in ("kept", "built-in")


@dataclass(frozen=True)
class Report:
    """What an edit has done.

    Args:
        lines: one per question: the requests with their rephrases and consequences, then what must stay.
        update_norm: the norm of the whole change.
        warnings: in what the edit is far outside of what its editor's validation saw.
        limits: what it saw; None where that is not known.
    """

    lines: tuple[Line, ...]
    update_norm: float
    warnings: tuple[str, ...]
    limits: Limits | None

    @property
    def edited(self) -> tuple[Line, ...]:
        """The questions whose answers were to change."""
        return tuple(line for line in self.lines if not line.stays)

    @property
    def kept(self) -> tuple[Line, ...]:
        """The questions whose answers were to stay."""
        return tuple(line for line in self.lines if line.stays)

    @property
    def drift(self) -> float:
        """The mean KL(base || edited), in nats, over what must stay."""
        return sum(line.kl for line in self.kept) / len(self.kept) if self.kept else math.nan

    @property
    def changed(self) -> int:
        """How many of the answers that must stay are other ones now."""
        return sum(not line.right for line in self.kept)

    def check(self, max_drift: float) -> None:
        """Refuse an edit that moves what must stay too far.

        Raises:
            InputError: the drift is above ``max_drift``, in nats, or is no number.
        """
        if not self.drift <= max_drift:
            raise InputError(
                f"The edit is refused: answers that should stay moved by KL {self.drift:.3g}, more than the "
                f"{max_drift:g} allowed; {self.changed} of {len(self.kept)} changed. Word the request otherwise, use "
                "another editor, or allow more."
            )

    def as_object(self) -> dict[str, Any]:
        """The report as JSON values; what is no number is null."""
        lines = [asdict(line) for line in self.lines]
        told = {"update_norm": self.update_norm, "drift": self.drift}
        found = {"changed": self.changed, "kept": len(self.kept), "warnings": list(self.warnings), "lines": lines}
        validation = None if self.limits is None else asdict(self.limits)
        whole: dict[str, Any] = _plain({**told, **found, "validation": validation})
        return whole


def make_report(
    edit: Edit, rephrases: Sequence[str], keep: Sequence[str], probes: Sequence[Sequence[Probe]], answer_tokens: int
) -> Report:
    """Ask everything and hold the edit against its editor's validation; see ``Edit.report``."""
    if rephrases and len(edit.requests) != 1:
        raise InputError(
            f"Rephrases were given for an edit of {len(edit.requests)} requests. Give each request its own probes."
        )
    if probes and len(probes) != len(edit.requests):
        raise InputError(f"There are probes for {len(probes)} requests, but the edit has {len(edit.requests)}.")
    if answer_tokens < 1:
        raise InputError(f"answer_tokens must be at least 1; found {answer_tokens}.")
    asked = [
        *(question for n, request in enumerate(edit.requests) for question in _of_request(edit, n, request)),
        *(("rephrase", 0, Probe("rephrase", text, edit.requests[0].target)) for text in rephrases),
        *((_KINDS[probe.kind], n, probe) for n, own in enumerate(probes) for probe in own if probe.kind in _KINDS),
        *(("kept", -1, Probe("locality", text, "")) for text in keep),
    ]
    if not any(kind == "kept" for kind, _, _ in asked):
        asked += [("built-in", -1, Probe("locality", *question)) for question in BUILT_IN if not _about(edit, question)]
    asked.sort(key=lambda one: (one[0] in ("kept", "built-in"), one[1]))  # stable: within a request as they came
    questions = [
        Asked(
            probe.prompt,
            probe.target,
            # The built-in ones are many: their argmax at the target says whether they stay.
            0 if kind == "built-in" else answer_tokens if kind == "kept" else answer_length(edit.base, probe.target),
        )
        for kind, _, probe in asked
    ]
    path = edit.base.adaptor.block_path
    first = min(n for n in range(edit.base.n_blocks) if any(name.startswith(f"{path(n)}.") for name in edit.updates))
    lines = []
    for (kind, number, probe), found in zip(asked, ask(edit.base, edit, first, questions), strict=True):
        stays = kind in ("kept", "built-in")
        answers = (probe.target, *probe.aliases)
        right = found.same if stays else any(begins_with(found.answer[1], answer) for answer in answers if answer)
        lines.append(Line(kind, number, probe.prompt, probe.target, *found.probability, *found.answer, right, found.kl))
    report = Report(tuple(lines), edit.norm, (), Limits.of(edit.editor))
    if report.limits is None:
        return report
    warnings = report.limits.warnings(edit.norms, report.update_norm, report.drift)
    return Report(report.lines, report.update_norm, tuple(warnings), report.limits)


def joined(reports: Sequence[Report]) -> Report:
    """Put reports of edits made apart into one: all questions, the largest norm, every warning.

    Args:
        reports: at least one; of edits of one editor.
    """
    if len(reports) == 1:
        return reports[0]
    lines = [replace(line, request=n) for n, report in enumerate(reports) for line in report.lines]
    warnings = [f"request {n}: {text}" for n, report in enumerate(reports, 1) for text in report.warnings]
    return Report(tuple(lines), max(report.update_norm for report in reports), tuple(warnings), reports[0].limits)


_Question = tuple[Kind, int, Probe]

_KINDS: dict[str, Kind] = {"rephrase": "rephrase", "portability": "portability", "locality": "kept"}
"""What a probe's kind is called in a report; of the others, ConvSent's, a greedy answer says nothing."""


def _of_request(edit: Edit, number: int, request: EditRequest) -> list[_Question]:
    aliases = tuple(request.more_targets)
    asked: list[_Question] = [("request", number, Probe("rephrase", request.prompt, request.target, aliases))]
    if request.instruction:
        asked.append(("instructed", number, Probe("rephrase", request.text, request.target, aliases)))
    return asked


def _about(edit: Edit, question: tuple[str, str]) -> bool:
    """Whether a built-in question asks what was edited."""
    return any(request.prompt.strip().casefold() == question[0].casefold() for request in edit.requests)


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple) else value
