"""Tasks by name: a table of ``"module:Class"`` strings, each imported when it is asked for.

Knows no task's files. The records a task becomes are read back by `instructedit.tasks.prepared`.
"""

import re
from importlib import import_module

from instructedit.errors import InputError, unknown
from instructedit.tasks.base import Task

TASKS: dict[str, str] = {
    "recent": "instructedit.tasks.recent:Recent",
    "counterfact": "instructedit.tasks.counterfact:CounterFact",
    "convsent": "instructedit.tasks.convsent:ConvSent",
    "zsre": "instructedit.tasks.zsre:ZsRE",
    "demo-recent": "instructedit.tasks.demo:DemoRecent",
    "demo-counterfact": "instructedit.tasks.demo:DemoCounterfact",
    "demo-convsent": "instructedit.tasks.demo:DemoConvsent",
    "demo-zsre": "instructedit.tasks.demo:DemoZsre",
}

JSONL_ADVICE = "A file of your own is written jsonl:NAME=FILE.jsonl."


def load_task(name: str) -> Task:
    """Return a task by its name, or the task of a user's own file: ``"jsonl:NAME=FILE.jsonl"``.

    Raises:
        InputError: no task has that name.
    """
    if name.startswith("jsonl:"):
        own_name, equals, file = name.removeprefix("jsonl:").partition("=")
        if not (own_name and equals and file):
            raise InputError(f"Task {name!r} lacks its name or its file. {JSONL_ADVICE}")
        # The name becomes a folder's.
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", own_name):
            raise InputError(f"Task {name!r}: NAME may hold letters, digits, '_', '-' and '.' only. {JSONL_ADVICE}")
        if own_name in TASKS:
            raise InputError(f"Task {name!r} takes the name of a built-in task. Choose another NAME. {JSONL_ADVICE}")
        from instructedit.tasks.jsonl import Jsonl

        return Jsonl(own_name, file)
    if name not in TASKS:
        raise unknown("task", name, TASKS, JSONL_ADVICE)
    module, _, attribute = TASKS[name].partition(":")
    task: Task = getattr(import_module(module), attribute)()
    return task
