"""Which records and probes of a task are asked, and which of them are also generated: choices by hash.

The records are those a run's test asks when it is given the same number. Knows examples; nothing about methods.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from instructedit.errors import InputError
from instructedit.evaluation.plan import Row, Settings
from instructedit.records import EditExample
from instructedit.tasks.card import content_hash
from instructedit.tasks.choice import stable_sample
from instructedit.tasks.prepared import read_prepared
from instructedit.tasks.separation import limit_probes


@dataclass(frozen=True)
class Selection:
    """What is asked of one task.

    Args:
        task: the task.
        examples: the records in a fixed order, without instructions.
        greedy: ids of those that are also answered by greedy generation.
        fluency: ids of those that are continued for fluency.
        sha256: hash of the examples' content and order.
    """

    task: str
    examples: tuple[EditExample, ...]
    greedy: frozenset[str]
    fluency: frozenset[str]
    sha256: str

    def chunks(self, row: Row) -> list[Sequence[EditExample]]:
        """Cut the examples into a row's portions."""
        return [self.examples[start : start + row.chunk] for start in range(0, len(self.examples), row.chunk)]


def select(settings: Settings, task: str) -> Selection:
    """Read a task's test records and choose among them.

    Raises:
        InputError: the task is not prepared, its test split is empty, or an id is there twice.
    """
    examples = read_prepared(settings.data, task, "test")
    if not examples:
        raise InputError(f"The test split of task {task!r} in {settings.data} is empty. Leave the task out of tasks.")
    ids = [example.request.id for example in examples]
    if len(set(ids)) != len(ids):
        raise InputError(f"The test split of task {task!r} in {settings.data} has one id twice. Prepare it again.")
    kept = set(ids) if settings.records is None else set(stable_sample(ids, settings.records, "limit"))
    chosen = [example for example in examples if example.request.id in kept]
    if settings.max_probes is not None:
        chosen = [limit_probes(example, settings.max_probes) for example in chosen]
    ids = [example.request.id for example in chosen]
    return Selection(
        task,
        tuple(chosen),
        greedy=frozenset(stable_sample(ids, settings.greedy, "greedy")),
        fluency=frozenset(stable_sample(ids, settings.fluency_of(task), "fluency")),
        sha256=content_hash(chosen),
    )


def check_sizes(rows: Sequence[Row], selection: Selection) -> None:
    """Refuse a number of edits in one base that does not divide a task's records: a smaller rest is another thing.

    Raises:
        InputError: it does not.
    """
    n = len(selection.examples)
    for row in rows:
        if row.editing != "alone" and n % row.chunk:
            raise InputError(
                f"{row.name}: task {selection.task!r} has {n} records, which {row.chunk} does not divide. "
                "Change sizes or records."
            )
