"""The numbers the paper published, as data: its Table 3, and what unseen instructions cost there.

Tian et al. 2024, InstructEdit, IJCAI, arXiv 2402.16123, first version. Percent, fluency in hundredths of a bit.
Knows the names of our table's rows; nothing about our numbers.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from instructedit.errors import unknown

PAPER_BASES: Mapping[str, str] = {"gpt2-xl": "GPT2-XL", "llama-2-7b": "LLaMA-2-7B"}
"""The paper's bases as a configuration names them, and as a reader does."""

_SAME_BASE = {"gpt2-xl": ("gpt2-xl",), "llama-2-7b": ("llama-2-7b", "llama-2-7b-hf")}

PAPER_METHODS = ("Base", "FT-L", "CaliNet", "KE", "MEND", "GRACE", "InstructEdit")

HELD_OUT = "zsre"

# The columns are PAPER_METHODS.
TABLE_3: Mapping[tuple[str, str, str], Sequence[float]] = {
    ("gpt2-xl", "counterfact", "reliability"): (0, 0.40, 0.24, 33.97, 74.26, 96.31, 80.81),
    ("gpt2-xl", "counterfact", "generalization"): (0, 0.32, 0.12, 8.70, 46.48, 0, 53.16),
    ("gpt2-xl", "counterfact", "locality"): (100, 43.73, 82.81, 90.94, 58.68, 99.99, 67.83),
    ("gpt2-xl", "counterfact", "portability"): (11.00, 0.87, 3.64, 27.41, 41.88, 11.00, 50.83),
    ("llama-2-7b", "counterfact", "reliability"): (0, 0, 0, 2.98, 84.15, 54.35, 84.39),
    ("llama-2-7b", "counterfact", "generalization"): (0, 0, 0, 0, 44.10, 0.36, 50.18),
    ("llama-2-7b", "counterfact", "locality"): (100, 70.66, 89.28, 90.86, 91.18, 99.75, 88.04),
    ("llama-2-7b", "counterfact", "portability"): (27.04, 3.19, 26.93, 33.43, 65.84, 27.04, 69.43),
    ("gpt2-xl", "recent", "reliability"): (2.61, 6.48, 11.53, 49.37, 85.62, 99.68, 85.70),
    ("gpt2-xl", "recent", "generalization"): (1.58, 2.21, 5.37, 10.98, 52.76, 1.58, 51.66),
    ("gpt2-xl", "recent", "locality"): (100, 26.58, 83.87, 87.12, 57.94, 100, 64.61),
    ("gpt2-xl", "recent", "portability"): (17.19, 16.78, 10.31, 30.41, 42.26, 17.73, 47.36),
    ("llama-2-7b", "recent", "reliability"): (9.87, 6.16, 9.79, 15.88, 82.31, 83.72, 83.73),
    ("llama-2-7b", "recent", "generalization"): (7.27, 3.87, 6.64, 0.08, 54.66, 7.35, 55.92),
    ("llama-2-7b", "recent", "locality"): (100, 70.66, 89.28, 88.88, 78.57, 99.98, 87.04),
    ("llama-2-7b", "recent", "portability"): (43.52, 3.15, 43.26, 43.52, 60.84, 44.13, 62.39),
    ("gpt2-xl", "convsent", "reliability"): (40.74, 7.48, 37.47, 53.07, 54.67, 40.74, 65.43),
    ("gpt2-xl", "convsent", "locality"): (100, 42.86, 87.47, 94.58, 96.58, 100, 94.27),
    ("gpt2-xl", "convsent", "fluency"): (613.13, 548.55, 396.43, 615.61, 601.93, 414.03, 617.65),
    ("gpt2-xl", "zsre", "reliability"): (0, 0.11, 0, 13.50, 40.79, 0, 82.83),
    ("gpt2-xl", "zsre", "generalization"): (0, 0.08, 0.10, 10.13, 31.15, 0, 78.40),
    ("gpt2-xl", "zsre", "locality"): (100, 74.06, 95.66, 82.59, 94.79, 100, 94.57),
    ("gpt2-xl", "zsre", "portability"): (47.07, 0.96, 0.39, 43.90, 45.08, 47.07, 40.84),
    ("llama-2-7b", "zsre", "reliability"): (0, 2.23, 0, 2.70, 76.95, 0, 76.57),
    ("llama-2-7b", "zsre", "generalization"): (0, 1.93, 0, 0.19, 67.89, 0, 70.11),
    ("llama-2-7b", "zsre", "locality"): (100, 98.89, 99.66, 95.15, 90.14, 100, 94.16),
    ("llama-2-7b", "zsre", "portability"): (56.66, 0.54, 0.87, 48.02, 58.63, 56.66, 58.19),
}

SEEN_TO_UNSEEN: Mapping[tuple[str, str, str], tuple[float, float]] = {
    ("gpt2-xl", "recent", "reliability"): (85.7, 84.7),
    ("gpt2-xl", "recent", "generalization"): (51.6, 47.4),
    ("gpt2-xl", "recent", "locality"): (64.6, 64.9),
    ("gpt2-xl", "recent", "portability"): (47.3, 47.0),
    ("gpt2-xl", "counterfact", "reliability"): (80.8, 80.4),
    ("gpt2-xl", "counterfact", "generalization"): (53.2, 49.9),
    ("gpt2-xl", "counterfact", "locality"): (67.8, 68.2),
    ("gpt2-xl", "counterfact", "portability"): (50.8, 51.0),
}
"""InstructEdit with an instruction it was trained with, and with the tenth one; no other task or base is published."""


TRANSFER_DROPS: Mapping[tuple[str, str, str], float] = {
    ("recent", "counterfact", "reliability"): 25.50,
    ("recent", "counterfact", "generalization"): 21.34,
    ("recent", "counterfact", "portability"): 7.33,
    ("zsre", "counterfact", "reliability"): 25.26,
    ("zsre", "counterfact", "generalization"): 18.36,
    ("zsre", "counterfact", "portability"): 4.79,
    ("recent", "zsre", "reliability"): 86.40,
    ("recent", "zsre", "generalization"): 91.33,
    ("recent", "zsre", "portability"): 0.60,
    ("counterfact", "zsre", "reliability"): 56.31,
    ("counterfact", "zsre", "generalization"): 64.90,
    ("counterfact", "zsre", "portability"): 1.35,
}
"""How far a MEND trained on the first task alone is below one trained on the second, on the second (GPT2-XL)."""

MORE_TASKS: Mapping[str, tuple[float, float, float]] = {
    "zsre": (6.0, 49.0, 82.0),
    "counterfact": (23.0, 82.0, 81.0),
    "recent": (72.0, 85.0, 85.0),
}
"""Reliability of InstructEdit trained on one, two and three tasks, read off Figure 4(c), within 3 (GPT2-XL)."""


@dataclass(frozen=True)
class PaperCell:
    """One published number.

    Args:
        value: in percent; fluency in hundredths of a bit.
        comparable: False for GRACE on held-out zsre, whose row equals the unedited base to the last digit: the
            requests were probably not edited in, so it says nothing about the method.
        greedy: True for GRACE, which was measured by greedy generation and not teacher-forced.
    """

    value: float
    comparable: bool = True
    greedy: bool = False


def paper_number(base: str, task: str, row: str, metric: str) -> PaperCell | None:
    """Find what the paper published for one cell of our table.

    Args:
        base: one of ``PAPER_BASES``.
        task: the task's name; a demo task has no published number.
        row: our row's name: a method of Table 3, or InstructEdit with ``(seen)`` or ``(unseen)``.
        metric: one of ``METRICS``.

    Returns:
        None where nothing is published for it, such as for edits made together.

    Raises:
        InputError: the paper has no such base.
    """
    if base not in PAPER_BASES:
        raise unknown("base of the paper", base, PAPER_BASES, "Or leave paper out.")
    key = (base, task, metric)
    if row == "InstructEdit (unseen)":
        return PaperCell(SEEN_TO_UNSEEN[key][1]) if key in SEEN_TO_UNSEEN else None
    method = "InstructEdit" if row == "InstructEdit (seen)" else row
    if key not in TABLE_3 or method not in PAPER_METHODS:
        return None
    grace = method == "GRACE"
    value = float(TABLE_3[key][PAPER_METHODS.index(method)])
    return PaperCell(value, comparable=not (grace and task == HELD_OUT), greedy=grace)


def is_paper_base(paper: str, base: str) -> bool:
    """Tell whether a base, named as ``load_base`` was asked for it, is the one behind the paper's numbers."""
    return base.rstrip("/").rsplit("/", 1)[-1].lower() in _SAME_BASE[paper]


def headline_gain(base: str, held_out: bool) -> float:
    """Average InstructEdit's published gain in reliability over MEND, in percentage points.

    The paper's headline of 14.86 is the mean over GPT2-XL's tasks with the held-out zsre among them; among the
    tasks trained on it is 5.80, and 0.83 for LLaMA-2. They answer different questions.

    Args:
        base: one of ``PAPER_BASES``.
        held_out: whether the held-out task is in the mean.
    """
    gains = [
        values[PAPER_METHODS.index("InstructEdit")] - values[PAPER_METHODS.index("MEND")]
        for (of, task, metric), values in TABLE_3.items()
        if of == base and metric == "reliability" and (held_out or task != HELD_OUT)
    ]
    return sum(gains) / len(gains)


TRANSFER_OWN: Mapping[tuple[str, str], float] = {
    ("counterfact", "reliability"): 84.62,
    ("counterfact", "generalization"): 46.01,
    ("counterfact", "portability"): 42.46,
    ("zsre", "reliability"): 96.62,
    ("zsre", "generalization"): 94.60,
    ("zsre", "portability"): 48.85,
}
"""What an editor of one task has on that task in the paper; ``TRANSFER_DROPS`` says how far others are below it."""


def paper_transfer(trained: str, task: str, metric: str) -> float | None:
    """Return the paper's number of an editor of one task on a task, in percent; None where it has none.

    >>> paper_transfer("counterfact", "counterfact", "reliability"), paper_transfer("recent", "zsre", "reliability")
    (84.62, 10.22)
    """
    own = TRANSFER_OWN.get((task, metric))
    drop = 0.0 if trained == task else TRANSFER_DROPS.get((trained, task, metric))
    return None if own is None or drop is None else round(own - drop, 2)
