"""Flags that may be given more than once, as one flag with a list. Knows arguments; nothing of what they mean."""

from collections.abc import Collection, Sequence
from json import dumps


def gathered(flags: Sequence[str], several: Collection[str], more_values: bool = False) -> list[str]:
    """Make one flag with a JSON list of those that may be repeated; it comes behind the others.

    >>> gathered(["--keep", "a", "--out", "x", "--keep=b"], ["--keep"])
    ['--out', 'x', '--keep=["a", "b"]']
    >>> gathered(["--keep", "a", "b", "--out", "x"], ["--keep"], more_values=True)
    ['--out', 'x', '--keep=["a", "b"]']

    Args:
        flags: the arguments, names as the parser knows them.
        several: the flags that may be repeated.
        more_values: whether one of them may also be followed by several values, up to the next flag.
    """
    found: dict[str, list[str]] = {}
    rest = list(reversed(flags))
    others = []
    while rest:
        name, equals, value = rest.pop().partition("=")
        if name in several and (equals or rest):
            values = found.setdefault(name, [])
            values.append(value if equals else rest.pop())
            while more_values and rest and rest[-1][:2] != "--":
                values.append(rest.pop())
        else:
            others.append(name + equals + value)
    return [*others, *(f"{name}={dumps(values)}" for name, values in found.items())]
