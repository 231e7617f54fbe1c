"""What a claim is, the numbers it rests on, and the rule by which they decide it. Knows nothing about any one claim."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from instructedit.analysis.seeds import Pooled

Verdict = Literal["holds", "holds in part", "does not hold", "not tested yet"]

RULE = (
    "Every number that a claim rests on is a difference with a 95 % interval. It is met where the whole interval lies "
    "on the claimed side of its bound (0 where no other is named). A claim **holds** where all its numbers are met, "
    "**holds in part** where some are and fewer lie wholly on the other side, else it **does not hold**; it is **not "
    "tested yet** where one of them, or one of the planned seeds behind it, is missing. Numbers marked 'beside' are "
    "shown and do not decide. An interval of one seed is of records alone: another seed may give another verdict. "
    "Intervals are not corrected for how many there are."
)


@dataclass(frozen=True)
class Part:
    """One number of a claim.

    Args:
        about: what it is the difference of, for a reader.
        ours: our number, in the metric's own unit; None where a run is missing.
        paper: the paper's, in points; None where it has none.
        side: on which side of the bound the claim has it.
        bound: in the metric's own unit.
        counts: whether it decides, or is only shown.
        metric: the metric, which says the unit it is printed in; empty for a plain number.
    """

    about: str
    ours: Pooled | None
    paper: float | None = None
    side: Literal["above", "below"] = "above"
    bound: float = 0.0
    counts: bool = True
    metric: str = "reliability"

    @property
    def met(self) -> bool:
        """Whether the whole interval lies on the claimed side."""
        if self.ours is None:
            return False
        return self.ours.low > self.bound if self.side == "above" else self.ours.high < self.bound

    @property
    def opposed(self) -> bool:
        """Whether the whole interval lies on the other side."""
        if self.ours is None:
            return False
        return self.ours.high < self.bound if self.side == "above" else self.ours.low > self.bound


@dataclass(frozen=True)
class Claim:
    """One claim and what it rests on.

    Args:
        key: short and stable.
        title: the claim in one sentence.
        paper: what the paper says, with its numbers, in words.
        parts: the numbers.
        differs: one sentence of what differs from the paper where this is measured.
        of_paper: whether the paper claims it; a control of ours otherwise.
        lacking: runs of the plan that are not there and that it needs.
    """

    key: str
    title: str
    paper: str
    parts: tuple[Part, ...]
    differs: str
    of_paper: bool = True
    lacking: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The rule's verdict."""
        return "not tested yet" if self.lacking else decide(self.parts)

    @property
    def counted(self) -> tuple[Part, ...]:
        """The parts that decide."""
        return tuple(part for part in self.parts if part.counts)


def decide(parts: Sequence[Part]) -> Verdict:
    """Apply ``RULE`` to numbers whose seeds are all there.

    Args:
        parts: of one claim.
    """
    counted = [part for part in parts if part.counts]
    if not counted or any(part.ours is None for part in counted):
        return "not tested yet"
    met, opposed = sum(part.met for part in counted), sum(part.opposed for part in counted)
    return "holds" if met == len(counted) else "holds in part" if met > opposed else "does not hold"
