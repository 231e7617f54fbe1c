"""Pools of instruction descriptions, ten a task, read from YAML.

Knows nothing about requests, tokens or models: `instructedit.instructions.rendering` turns a description into text.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from instructedit.errors import InputError, unknown
from instructedit.instructions.documents import documents

DEFAULT_POOLS = "configs/instructions"
"""Where the pools of the built-in tasks lie, from the top of the repository."""

POOL_SIZE = 10
"""Nine descriptions are trained on, the tenth only tested: seen and unseen stay comparable between tasks."""


@dataclass(frozen=True)
class InstructionPool:
    """The descriptions of one task.

    Args:
        task: the task's name, as in `EditRequest.task`.
        label: the short name shown after ``Task:``.
        descriptions: ten sentences; they may hold placeholders such as ``[TOPIC]``.

    Raises:
        InputError: there are not ten, or one is empty, has several lines or repeats another.
    """

    task: str
    label: str
    descriptions: tuple[str, ...]

    def __post_init__(self) -> None:
        where = f"Instruction pool {self.task!r}"
        if len(self.descriptions) != POOL_SIZE:
            raise InputError(
                f"{where} has {len(self.descriptions)} descriptions. Write {POOL_SIZE}: "
                f"{POOL_SIZE - 1} to train on and a last one that is only tested."
            )
        self._check_texts(where)

    def _check_texts(self, where: str) -> None:
        for text in (self.task, self.label, *self.descriptions):
            if not text.strip() or text != text.strip() or "\n" in text:
                raise InputError(f"{where} holds {text!r}. Write one line of text without spaces around it.")
        if len(set(self.descriptions)) < len(self.descriptions):
            raise InputError(f"{where} repeats a description. Write {POOL_SIZE} different ones.")

    @property
    def seen(self) -> tuple[str, ...]:
        """The nine descriptions that training draws from."""
        return self.descriptions[:-1]

    @property
    def unseen(self) -> str:
        """The last description, never trained on."""
        return self.descriptions[-1]


def load_pools(source: str | Path = DEFAULT_POOLS) -> dict[str, InstructionPool]:
    """Read all pools of a YAML file, or of every ``*.yaml`` in a folder, by task name.

    A document of such a file holds ``task``, ``label`` and ``descriptions``; ``---`` separates several documents in
    one file. A relative path that does not exist is also looked for below the repository this package runs from, so
    that the default works from any directory.

    Raises:
        InputError: nothing is there, a document is malformed, or two describe the same task.
    """
    pools: dict[str, InstructionPool] = {}
    for file, document in documents(source, "instruction pool", DEFAULT_POOLS):
        pool = _pool(file, document)
        if pool.task in pools:
            raise InputError(f"{file} describes task {pool.task!r} a second time. Keep one pool a task.")
        pools[pool.task] = pool
    return pools


def pool_for(pools: Mapping[str, InstructionPool], task: str) -> InstructionPool:
    """Return a task's pool; ``demo-recent`` falls back to the pool of ``recent``.

    Raises:
        InputError: neither exists; the message names the pools that do.
    """
    for name in (task, task.removeprefix("demo-")):
        if name in pools:
            return pools[name]
    raise unknown(
        "instruction pool",
        task,
        pools,
        f"Write one for this task: a YAML file as in {DEFAULT_POOLS}, ten descriptions.",
    )


def _pool(file: Path, document: object) -> InstructionPool:
    wanted = {"task", "label", "descriptions"}
    if not isinstance(document, dict) or set(document) != wanted:
        found = ", ".join(sorted(map(str, document))) if isinstance(document, dict) else type(document).__name__
        raise InputError(f"{file} holds a document with {found or 'nothing'}. Write {', '.join(sorted(wanted))}.")
    texts = document["descriptions"]
    if not isinstance(texts, list) or not all(
        isinstance(text, str) for text in (document["task"], document["label"], *texts)
    ):
        raise InputError(f"{file}: task and label are texts and descriptions a list of texts. Put quotes around them.")
    return InstructionPool(document["task"], document["label"], tuple(texts))
