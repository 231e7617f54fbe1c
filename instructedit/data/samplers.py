"""Which records the batch of step k holds: a pure function of the step, for any number of ranks.

Knows tasks' names and sizes, ranks and a seed; never sees a text, and holds no position: who trains counts the steps.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import floor, gcd, isfinite
from typing import Literal

from instructedit.errors import InputError, unknown
from instructedit.tasks.choice import stable_hash

Balance = Literal["equal", "proportional", "temperature"]

MAX_PERIOD = 1 << 14
"""Slots after which the pattern of tasks repeats at the latest; weights that need more are rounded to this grid."""


@dataclass(frozen=True)
class Draw:
    """One slot of a global batch.

    Args:
        task: the task's name.
        index: the record's position in the task, from 0.
        seed: a 63-bit integer from which every further choice for this draw derives (instruction, rephrases, locality).
    """

    task: str
    index: int
    seed: int


class MultiTaskSampler:
    """An endless stream of draws, cut into global batches of a fixed size.

    The stream's tasks follow a fixed pattern in which a task of share w has, after n slots, more than n * w - 1 and
    fewer than n * w + 1 slots. Each task goes through its records epoch by epoch, each epoch in an order of its own.
    Nothing depends on what was drawn before, so a resumed run, also on another number of ranks, sees the same batches.

    Args:
        sizes: records per task; the order of the mapping does not matter.
        batch: requests in a global batch, over all ranks.
        seed: decides the orders and the draws' seeds.
        balance: the tasks' shares. ``"equal"``; ``"proportional"`` to the number of records; ``"temperature"``:
            proportional to records ** (1 / temperature); or a mapping of every task to a weight above 0.
        temperature: 1 is proportional, larger is closer to equal; used by ``"temperature"`` only.
        caps: at most so many records of a task are used: a subset that does not depend on the seed, so that runs that
            differ in the seed train on the same records. A cap also counts as the size for the shares.

    Raises:
        InputError: no tasks, an empty one, an unknown name in weights or caps, or a number out of range.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        batch: int,
        seed: int,
        balance: Balance | Mapping[str, float] = "equal",
        temperature: float = 2.0,
        caps: Mapping[str, int] | None = None,
    ) -> None:
        if not sizes:
            raise InputError("The sampler has no task to draw from. Name at least one prepared task.")
        if batch < 1:
            raise InputError(f"The global batch is {batch}. Set it to 1 or more.")
        for task, size in sizes.items():
            if size < 1:
                raise InputError(f"Task {task!r} has {size} records to draw from. Prepare it again or leave it out.")
        for task, cap in (caps or {}).items():
            if task not in sizes:
                raise unknown("task in caps", task, sizes)
            if cap < 1:
                raise InputError(f"The cap of task {task!r} is {cap}. Set it to 1 or more, or leave the task out.")
        self.batch = batch
        self.seed = seed
        self._full_sizes = {task: sizes[task] for task in sorted(sizes)}
        self.sizes = {task: min(size, (caps or {}).get(task, size)) for task, size in self._full_sizes.items()}
        self._units = _units(_weights(self.sizes, balance, temperature))
        self._period = sum(self._units.values())
        self._pattern = _pattern(tuple(self._units.items()))

    @property
    def shares(self) -> dict[str, float]:
        """Each task's share of the stream; the shares sum to 1."""
        return {task: units / self._period for task, units in self._units.items()}

    @property
    def fingerprint(self) -> str:
        """A hash of all that decides the stream and its cut into batches; equal fingerprints draw equal batches."""
        facts = [2, self.batch, self.seed, self._full_sizes, self.sizes, self._units]
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

    def global_batch(self, step: int) -> list[Draw]:
        """Return the draws of one step, counted from 0; the same for every rank and for ever."""
        if step < 0:
            raise InputError(f"Step {step} does not exist. Steps count from 0.")
        return [self._draw(slot) for slot in range(step * self.batch, (step + 1) * self.batch)]

    def local_batch(self, step: int, rank: int, world_size: int) -> list[Draw]:
        """Return one rank's contiguous slice of the step's global batch.

        Raises:
            InputError: the batch cannot be cut into equal slices, or there is no such rank.
        """
        if world_size < 1 or self.batch % world_size:
            raise InputError(
                f"A global batch of {self.batch} cannot be shared equally by {world_size} ranks. "
                "Make it a multiple of the number of ranks."
            )
        if not 0 <= rank < world_size:
            raise InputError(f"Rank {rank} does not exist among {world_size}. Ranks count from 0.")
        share = self.batch // world_size
        return self.global_batch(step)[rank * share : (rank + 1) * share]

    def _draw(self, slot: int) -> Draw:
        periods, place = divmod(slot, self._period)
        task, before = self._pattern[place]
        # How often the stream has come to this task before this slot: computed, not counted.
        occurrence = periods * self._units[task] + before
        epoch, position = divmod(occurrence, self.sizes[task])
        chosen = _order(self.sizes[task], "epoch", str(self.seed), task, str(epoch))[position]
        if self.sizes[task] < self._full_sizes[task]:
            chosen = _order(self._full_sizes[task], "cap", task)[chosen]
        return Draw(task, chosen, stable_hash("draw", str(self.seed), task, str(occurrence)) >> 1)


def _weights(
    sizes: Mapping[str, int], balance: Balance | Mapping[str, float], temperature: float
) -> dict[str, Fraction]:
    if isinstance(balance, Mapping):
        for task in balance:
            if task not in sizes:
                raise unknown("task in balance", task, sizes)
        for task in sizes:
            weight = balance.get(task, 0.0)
            if not isfinite(weight) or weight <= 0:
                raise InputError(
                    f"Task {task!r} has weight {weight} in balance. Give every task a weight above 0, or leave it out."
                )
        # By their decimal digits: 0.1 and 0.2 are to stand as one to two, which their binary values do not quite.
        return {task: Fraction(repr(balance[task])) for task in sizes}
    if balance == "equal":
        return {task: Fraction(1) for task in sizes}
    if balance == "proportional":
        return {task: Fraction(size) for task, size in sizes.items()}
    if balance == "temperature":
        if not isfinite(temperature) or temperature <= 0:
            raise InputError(f"The sampler's temperature is {temperature}. Set it above 0.")
        return {task: Fraction(size ** (1 / temperature)) for task, size in sizes.items()}
    raise unknown("balance", str(balance), ("equal", "proportional", "temperature"), "Or map every task to a weight.")


def _units(weights: Mapping[str, Fraction]) -> dict[str, int]:
    """Turn weights into slots per period: exact where the period stays short, else rounded, and at least 1."""
    scale = 1
    for weight in weights.values():
        scale = scale * weight.denominator // gcd(scale, weight.denominator)
    exact = {task: int(weight * scale) for task, weight in weights.items()}
    common = gcd(*exact.values())
    total = sum(exact.values()) // common
    if total <= MAX_PERIOD:
        return {task: units // common for task, units in exact.items()}
    whole = sum(weights.values())
    return {task: max(1, floor(weight / whole * MAX_PERIOD + Fraction(1, 2))) for task, weight in weights.items()}


@lru_cache(maxsize=8)
def _pattern(units: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    """Lay out one period: per slot the task, and how many slots of this period it had before.

    The i-th slot of a task of share w may lie in [floor(i / w), ceil((i + 1) / w)); taking the earliest deadline among
    the released ones always meets all of them ("Pfair" scheduling on one processor; Baruah et al. 1996).
    """
    period = sum(count for _, count in units)
    had = dict.fromkeys((task for task, _ in units), 0)
    pattern = []
    for slot in range(period):
        _, task = min(
            (-(-(had[task] + 1) * period // count), task)
            for task, count in units
            if had[task] * period // count <= slot
        )
        pattern.append((task, had[task]))
        had[task] += 1
    return tuple(pattern)


@lru_cache(maxsize=64)
def _order(size: int, *key: str) -> tuple[int, ...]:
    """Return a permutation of range(size) decided by the key alone, the same on every Python version."""
    prefix = hashlib.blake2b(json.dumps(key).encode(), digest_size=16)

    def place(index: int) -> bytes:
        state = prefix.copy()
        state.update(index.to_bytes(8, "big"))
        return state.digest()

    return tuple(sorted(range(size), key=place))
