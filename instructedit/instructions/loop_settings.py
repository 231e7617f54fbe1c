"""When the loop of `instructedit.instructions.loop` asks again and when it ends."""

from dataclasses import dataclass

from instructedit.errors import InputError


@dataclass(frozen=True)
class LoopSettings:
    """When a loop asks again and when it ends.

    Args:
        rounds: the most rounds.
        asks: the most asks a round, where too few of an answer's descriptions can be used.
        patience: the loop stops after so many rounds in a row without a gain.
        threshold: a gain of the mean score below this is none, nor is one that does not exceed its noise.
        max_tokens: of all messages and answers; None for no such budget.
        max_minutes: of waiting for answers and of trials, over all starts; None for no such budget.
        answer_tokens: the most tokens of one answer.
        seeds: trial editors a round.
        seed: of everything.
    """

    rounds: int = 4
    asks: int = 3
    patience: int = 2
    threshold: float = 0.005
    max_tokens: int | None = None
    max_minutes: float | None = None
    answer_tokens: int = 1200
    seeds: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "asks", "patience", "answer_tokens", "seeds"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name} is {getattr(self, name)}. Set it to 1 or more.")
        if self.threshold < 0:
            raise InputError(f"--threshold is {self.threshold}. Set it to 0 or more.")
        for name in ("max_tokens", "max_minutes"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"--{name} is {value}. Set it above 0, or leave it out.")
