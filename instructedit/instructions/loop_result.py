"""Where a loop is, and at its end what came of it: plain values, for the loop to change and for others to tell."""

from dataclasses import dataclass, field
from typing import Literal

from instructedit.instructions.scores import Gain, Scores

Ended = Literal["stopped", "rounds", "tokens", "minutes", "server"]
"""Why a loop ended: no gain for long enough, a budget, or a server that gives no answers."""

START = "start"
"""Where descriptions come from that a loop began with."""


@dataclass
class Result:
    """Where a loop is, and at its end what came of it.

    Attributes:
        best: the ten kept, best first, or none yet. They change in a round whose gain exceeds its noise, and only then.
        shown: the ten of the highest scores in the last trial, which the model is shown.
        trials: the scores of the last round that tried any, one table a seed; empty where none did.
        origin: where each description comes from: ``start``, or the round and ask that brought it.
        gains: by round.
        asks: answers read.
        usable: descriptions that could be used, over all answers.
        tokens: spent on messages and answers.
        seconds: spent on answers and trials.
        ended: why; empty while it goes on.
        why: the same in words.
    """

    best: list[str]
    shown: list[str] = field(default_factory=list)
    trials: list[Scores] = field(default_factory=list)
    origin: dict[str, str] = field(default_factory=dict)
    gains: dict[int, Gain] = field(default_factory=dict)
    asks: int = 0
    usable: int = 0
    tokens: int = 0
    seconds: float = 0.0
    ended: Ended | Literal[""] = ""
    why: str = ""
