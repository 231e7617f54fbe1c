"""What travels between the layers: requests, probes, examples, outcomes.

Frozen and free of tensors. This module knows nothing about files, tokens or models.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

ProbeKind = Literal["rephrase", "portability", "locality", "wanted", "unwanted"]
"""A rephrase asks the request again in other words; portability asks a consequence; locality asks
something the edit must not touch; wanted and unwanted are ConvSent completions of the same topic
that the request did not use, of the side asked for and of the other."""

INSTRUCTED_KINDS: frozenset[ProbeKind] = frozenset({"rephrase", "portability", "wanted", "unwanted"})
"""The kinds of probe an instruction is put in front of; locality is asked bare (PAPER.md, The edit input)."""


@dataclass(frozen=True)
class EditRequest:
    """One thing to edit in: after the edit, ``prompt`` is to be answered with ``target``.

    Args:
        prompt: the question or the start of a sentence, without instruction.
        target: the wanted answer, without a leading space.
        id: stable and unique within a task's split; every choice made for a record hashes it.
        task: the task's name, which selects the instruction pool.
        subject: what the prompt is about; with the prompt it keeps the splits apart.
        more_targets: further wanted texts for the same prompt (ConvSent's completions of one side).
        avoid: texts to make less likely (ConvSent's completions of the other side).
        slots: values for the placeholders of an instruction, such as ``{"LABEL": "positive"}``.
        old_answer: what was answered before, where the source says so.
        instruction: the rendered text put in front of the prompt; empty for none.
    """

    prompt: str
    target: str
    id: str = ""
    task: str = ""
    subject: str = ""
    more_targets: tuple[str, ...] = ()
    avoid: tuple[str, ...] = ()
    slots: Mapping[str, str] = field(default_factory=dict)
    old_answer: str = ""
    instruction: str = ""

    @property
    def text(self) -> str:
        """The input as the model sees it: the instruction, then the prompt."""
        return self.instruction + self.prompt

    @property
    def targets(self) -> tuple[str, ...]:
        """All wanted texts, the first one first."""
        return (self.target, *self.more_targets)


@dataclass(frozen=True)
class Probe:
    """One question asked after an edit, and the text its answer is scored against.

    Args:
        kind: what the probe measures.
        prompt: the question, without instruction.
        target: the text whose tokens are scored (for locality: the positions compared).
        aliases: every answer that counts as right for exact match, ``target`` among them.
        source: the kind's name in the source data, for instance ``"Subject_Aliasing"``.
        instruction: the rendered text put in front of the prompt; empty for none.
    """

    kind: ProbeKind
    prompt: str
    target: str
    aliases: tuple[str, ...] = ()
    source: str = ""
    instruction: str = ""

    @property
    def text(self) -> str:
        """The input as the model sees it: the instruction, then the prompt."""
        return self.instruction + self.prompt


@dataclass(frozen=True)
class EditExample:
    """A request and the probes that measure its edit; one record of a task."""

    request: EditRequest
    probes: tuple[Probe, ...] = ()

    def of_kind(self, kind: ProbeKind) -> tuple[Probe, ...]:
        """Return the probes of one kind, in order."""
        return tuple(probe for probe in self.probes if probe.kind == kind)

    def instructed(self, instruction: str) -> "EditExample":
        """Put one rendered instruction in front of the request and of every probe that takes one."""
        probes = tuple(
            replace(probe, instruction=instruction) if probe.kind in INSTRUCTED_KINDS else probe
            for probe in self.probes
        )
        return EditExample(replace(self.request, instruction=instruction), probes)


@dataclass(frozen=True)
class Outcome:
    """One number measured on one example: never averaged before it is stored.

    Args:
        id: the record's id.
        task: the record's task.
        method: the row of the table, for instance ``"InstructEdit (unseen)"``.
        metric: one of ``evaluation.metrics.NAMES``: ``reliability``, ``locality_exact``, ``success``, ...
        value: the mean over the example's probes of that kind, between 0 and 1; fluency has a unit of its own.
        n_tokens: the target tokens behind the value.
        n_probes: the probes behind the value.
    """

    id: str
    task: str
    method: str
    metric: str
    value: float
    n_tokens: int = 0
    n_probes: int = 1
