"""What an edited base says by itself: greedy continuations beside the targets, sampled text for fluency.

Knows an edit by its ``applied`` alone; nothing about methods, files or tables.
"""

from dataclasses import dataclass, field

from instructedit.errors import InputError


@dataclass(frozen=True)
class Generated:
    """Which records are asked by generation, and how.

    Args:
        greedy: ids of the records whose questions are also answered by a greedy continuation.
        fluency: ids of the records whose request is continued for fluency.
        fluency_tokens: length of that continuation, in tokens; it never ends early.
        top_k: a token of it is drawn from so many likeliest ones.
        seed: with the record's id the seed of its drawing, the same for every method.
        rows_per_pass: sequences generated at once.
    """

    greedy: frozenset[str] = frozenset()
    fluency: frozenset[str] = frozenset()
    fluency_tokens: int = 100
    top_k: int = 5
    seed: int = 0
    rows_per_pass: int = 64

    def __post_init__(self) -> None:
        for name in ("fluency_tokens", "top_k", "rows_per_pass"):
            if getattr(self, name) < 1:
                raise InputError(f"generated.{name} must be at least 1; found {getattr(self, name)}.")


@dataclass(frozen=True)
class GeneratedText:
    """One continuation, to be kept beside the numbers.

    Args:
        id: the record's id.
        task: the record's task.
        method: the row of the table.
        kind: what was asked: ``request``, a kind of probe, or ``fluency``.
        prompt: the input, instruction included.
        text: the continuation.
        wanted: the answers that count as right; for locality what the base says without the edit.
    """

    id: str
    task: str
    method: str
    kind: str
    prompt: str
    text: str
    wanted: tuple[str, ...] = ()


@dataclass(frozen=True)
class BeforeCache:
    """Greedy continuations of the unedited base; hand one object to several evaluations on the same base.

    Found again where an evaluation forms the same passes: the same examples in the same batches.
    """

    found: dict[tuple[object, ...], list[tuple[int, ...]]] = field(default_factory=dict)
