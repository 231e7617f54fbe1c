"""What a Trial Editor is trained with and measured on. Imports nothing heavy: it is part of a command's flags."""

from dataclasses import dataclass
from typing import Literal

from instructedit.errors import InputError


@dataclass(frozen=True)
class TrialSettings:
    """A Trial Editor: a short meta-training, and the records its descriptions are scored on.

    Args:
        base: the base: a Hub id, a folder, an alias such as smollm2-135m.
        dtype: the base's dtype in memory.
        last_blocks: edit the MLP matrices of so many of the last blocks.
        rank: inner width of the hypernetwork's residual blocks.
        alpha_init: every site's step size at the start.
        alpha_scale: whether the step size or its logarithm is learned.
        edit_weight: weight of the edit loss.
        locality_weight: weight of the locality loss.
        lr: Adam's rate for the networks.
        alpha_lr: Adam's rate for the step sizes.
        warmup_steps: both rates rise over so many steps, then fall linearly to 0.
        clip: the most norm of a step's gradient.
        data: the folder of prepared tasks.
        beside: further tasks that are trained on, each with its own pool of instructions.
        steps: optimiser steps.
        batch: requests in a step.
        rephrases: rephrases a request brings into a step.
        locality: locality inputs a request brings into a step.
        avoid: unwanted texts a request brings into a step, where it has some.
        reworded: share of draws whose input is itself a rewording.
        records: validation records every description is scored on, chosen by hash.
        max_probes: the most probes of each kind a record is asked.
        edits_at_once: edits made at once in scoring.
        seeds: editors trained a round, each with another seed; one says nothing about the noise.
        each: train an editor for each description alone, in place of one on all of them.
    """

    base: str = "smollm2-135m"
    dtype: Literal["float32", "bfloat16"] = "float32"
    last_blocks: int = 3
    rank: int = 256
    alpha_init: float = 3e-4
    alpha_scale: Literal["linear", "log"] = "log"
    edit_weight: float = 0.1
    locality_weight: float = 1.0
    lr: float = 7e-4
    alpha_lr: float = 1e-2
    warmup_steps: int = 10
    clip: float = 1.0
    data: str = "data/prepared"
    beside: tuple[str, ...] = ()
    steps: int = 60
    batch: int = 8
    rephrases: int = 1
    locality: int = 2
    avoid: int = 1
    reworded: float = 0.25
    records: int = 16
    max_probes: int = 1
    edits_at_once: int = 8
    seeds: int = 2
    each: bool = False

    def __post_init__(self) -> None:
        for name in ("last_blocks", "rank", "steps", "batch", "max_probes", "edits_at_once", "seeds"):
            if getattr(self, name) < 1:
                raise InputError(f"trial.{name} is {getattr(self, name)}. Set it to 1 or more.")
        if self.records < 2:
            raise InputError(f"trial.records is {self.records}. Set it to 2 or more: one record has no noise to see.")
        for name in ("lr", "alpha_lr", "clip", "alpha_init"):
            if not 0 < getattr(self, name) < float("inf"):
                raise InputError(f"trial.{name} is {getattr(self, name)}. Set it to a number above 0.")
        if not 0 <= self.warmup_steps <= self.steps:
            raise InputError(f"trial.warmup_steps is {self.warmup_steps}: set it between 0 and steps ({self.steps}).")
