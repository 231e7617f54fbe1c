"""Which settings of runs differ. Knows flat names and texts."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from instructedit.comparison.runs import ComparedRun

ABSENT, UNKNOWN = "-", "?"

OWN = ("run.",)
"""Settings that say what a run is called and where its metrics go: they differ by design."""

SEEDS = ("seed_everything", "data.seed")
"""Runs that differ in these alone are one experiment done several times."""


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings under dotted names; lists are leaves.

    >>> dict(flat({"a": {"b": 1}, "c": [2]}))
    {'a.b': 1, 'c': [2]}
    """
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}{key}.")
    elif prefix:
        yield prefix.removesuffix("."), value


def texts(config: Mapping[str, Any]) -> dict[str, str]:
    """A configuration's settings as texts under dotted names; a setting left null is left out."""
    return {name: _text(value) for name, value in flat(config) if value is not None and value != {}}


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False, default=str)


def differing(runs: Sequence[ComparedRun]) -> dict[str, list[str]]:
    """The settings, then the facts, in which runs differ: by name, one text per run.

    What is not known of a run, such as all settings of one that never started, makes no difference.
    """
    settings, facts = [run.settings for run in runs], [run.facts for run in runs]
    found = {}
    for name in dict.fromkeys(name for table in settings for name in table if not name.startswith(OWN)):
        values = [table.get(name, ABSENT if table else UNKNOWN) for table in settings]
        if len(set(values) - {UNKNOWN}) > 1:
            found[name] = values
    for name in dict.fromkeys(name for table in facts for name in table):
        values = [table.get(name, UNKNOWN) for table in facts]
        if len(set(values) - {UNKNOWN}) > 1:
            found[name] = values
    return found


def seed_groups(runs: Sequence[ComparedRun]) -> list[list[ComparedRun]]:
    """Runs that differ in their seeds only, two or more together, in the order of their first."""
    groups: dict[object, list[ComparedRun]] = {}
    for run in runs:
        if any(name in run.settings for name in SEEDS):
            rest = {name: text for name, text in run.settings.items() if not name.startswith((*OWN, *SEEDS))}
            key = (tuple(sorted(rest.items())), run.facts.get("base fingerprint"))
            groups.setdefault(key, []).append(run)
    return [group for group in groups.values() if len({_seed(run) for run in group}) > 1]


def _seed(run: ComparedRun) -> tuple[str | None, ...]:
    return tuple(run.settings.get(name) for name in SEEDS)
