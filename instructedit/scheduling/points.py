"""Arrays and sweeps: from ``seed=0..4`` and ``model.lr=1e-4,2e-4`` to points, each with its name and settings."""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from instructedit.errors import InputError
from instructedit.scheduling.schema import Schema
from instructedit.scheduling.yaml_text import parsed

MOST = 1000
"""Points of one submission; SLURM's own limit of an array is 1001 where nobody has changed it."""

SHORT = {"seed": "seed_everything"}
FIXED = ("run.name", "run.folder", "run.wandb_group", "trainer.devices", "trainer.num_nodes")
"""Settings that the points have from their group, or from the job."""


@dataclass(frozen=True)
class Point:
    """One point of a group.

    Args:
        name: its run's name, such as ``lr-0.001_seed-0``.
        values: the settings it differs in, by their full names; values as flags have them.
    """

    name: str
    values: Mapping[str, str]


def make_points(asked: Sequence[str], schema: Schema) -> list[Point]:
    """Return every combination of the values that are asked for.

    Args:
        asked: texts such as ``seed=0..4``, ``model.lr=1e-4,2e-4`` or ``data.tasks=[recent],[recent,zsre]``.
        schema: the command's settings.

    Raises:
        InputError: a key is no setting or comes twice, a value is none, or two points would have the same name.
    """
    axes: dict[str, list[str]] = {}
    for text in asked:
        key, equals, listed = text.partition("=")
        key = SHORT.get(key, key) if key not in schema.settings else key
        values = _values(listed)
        if not equals or not all(values):
            raise InputError(f"{text!r} is no list of values. Write KEY=A,B,C or KEY=0..4.")
        if key in FIXED:
            raise InputError(f"{key} is the same for all points of a group: choose another setting than {text!r}.")
        if key in schema.sections:
            inside = next(name for name in schema.settings if name.startswith(f"{key}."))
            raise InputError(
                f"{key} in {text!r} holds settings and is none itself. Name one of them, such as {inside}."
            )
        if key not in schema.settings:
            raise schema.unknown(key, repr(text))
        if key in axes or len(set(values)) < len(values):
            raise InputError(f"{key} has a value twice, or is given twice: {text!r}. Leave one of them.")
        axes[key] = values
    count = 1
    for values in axes.values():
        count *= len(values)
    if count > MOST:
        raise InputError(f"These are {count} points, more than {MOST}. Ask for fewer values at once.")
    shorts = [key.rpartition(".")[2].replace("seed_everything", "seed") for key in axes]
    labels = [short if shorts.count(short) == 1 else key for short, key in zip(shorts, axes, strict=True)]
    points = [
        Point(_name(labels, values), dict(zip(axes, values, strict=True)))
        for values in itertools.product(*axes.values())
    ]
    names = [point.name for point in points]
    same = next((name for name in names if names.count(name) > 1), None)
    if same:
        raise InputError(f"Two points would have the same name, {same!r}. Use values that differ in letters or digits.")
    return points


def _name(labels: Sequence[str], values: Sequence[Any]) -> str:
    parts = [
        f"{label}-{re.sub(r'[^A-Za-z0-9._+-]+', '-', value).strip('-') or 'empty'}"
        for label, value in zip(labels, values, strict=True)
    ]
    return "_".join(parts)[:150]


def _values(listed: str) -> list[str]:
    """Cut a list at its commas, those inside brackets and quotes left alone, and count ranges out.

    >>> _values("0..2,7"), _values("[a,b],[c]")
    (['0', '1', '2', '7'], ['[a,b]', '[c]'])
    """
    parts, depth, quote = [""], 0, ""
    for character in listed:
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in "[{":
            depth += 1
        elif character in "]}":
            depth -= 1
        if character == "," and not depth and not quote:
            parts.append("")
        else:
            parts[-1] += character
    return [value for part in parts for value in _counted(part.strip())]


def _counted(part: str) -> list[str]:
    found = re.fullmatch(r"(-?\d{1,9})\.\.(-?\d{1,9})", part, re.ASCII)
    if not found:
        return [part if part[:1] not in "\"'" or not isinstance(parsed(part), str) else str(parsed(part))]
    first, last = int(found[1]), int(found[2])
    if last < first or last - first >= MOST:
        raise InputError(f"The range {part} has no numbers, or more than {MOST}. Write FIRST..LAST.")
    return [str(number) for number in range(first, last + 1)]
