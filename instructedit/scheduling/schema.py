"""The settings of each command and their plain types, without torch: a list made from the real parsers.

`schema.json` is written by ``python -m tests.scheduling.make_schema``; a test fails when the parsers have others.
A type is int, float, bool or str, a list of choices, or list, dict, object or any, which are left to the parser; with
``?`` behind it null is allowed.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from instructedit.errors import InputError

FILE = Path(__file__).with_name("schema.json")


@dataclass(frozen=True)
class Setting:
    """One setting.

    Args:
        kind: int, float, bool, str, choice, list, dict, object or any.
        null: whether null is a value of it.
        choices: its values, of a choice.
    """

    kind: str
    null: bool = False
    choices: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Schema:
    """The settings of one command.

    Args:
        command: as it is called.
        settings: by their full names, such as ``model.lr``.
    """

    command: str
    settings: Mapping[str, Setting]

    @property
    def sections(self) -> set[str]:
        """The names that hold settings and are none: ``model``, ``model.sites``."""
        return {
            ".".join(parts[:n]) for parts in (name.split(".") for name in self.settings) for n in range(1, len(parts))
        }

    def unknown(self, key: str, source: str) -> InputError:
        """Build the error for a setting that is not there, with the nearest one that is."""
        near = get_close_matches(key, [*self.settings, *self.sections], n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        return InputError(
            f"Unknown setting {key!r} in {source}.{hint} `instructedit {self.command} --help` lists the settings."
        )

    def check(self, key: str, value: Any, source: str) -> None:
        """Refuse a value of a plain type that the parser would refuse.

        Args:
            key: the setting.
            value: as `instructedit.scheduling.settings` reads it.
            source: where it stands.

        Raises:
            InputError: names the setting, the value and what is wanted.
        """
        setting = self.settings[key]
        if value is None:
            if not setting.null and setting.kind in ("int", "float", "bool", "str", "choice"):
                raise InputError(f"{key} is null in {source}. Give {self._wanted(setting)}.")
            return
        whole = isinstance(value, int) and not isinstance(value, bool)
        fits = {
            "int": whole,
            "float": whole or isinstance(value, float),
            "bool": isinstance(value, bool),
            "choice": isinstance(value, str) and value in setting.choices,
            "str": isinstance(value, str),
        }
        if not fits.get(setting.kind, True):
            raise InputError(f"{key} is {value!r} in {source}. Give {self._wanted(setting)}.")

    def _wanted(self, setting: Setting) -> str:
        wanted = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "a text"}
        told = wanted.get(setting.kind) or "one of " + ", ".join(map(str, setting.choices))
        return f"{told}, or null" if setting.null else told


def read_schema(command: str) -> Schema | None:
    """The settings of a command; None for one whose arguments are not settings, or that is not known here.

    Args:
        command: ``fit``, ``prepare --trunk``, ...
    """
    found = _read().get(command)
    if found is None:
        return None
    return Schema(command, {name: _setting(told) for name, told in found.items()})


@cache
def _read() -> dict[str, dict[str, Any]]:
    content: dict[str, dict[str, Any]] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def _setting(told: str | list[Any]) -> Setting:
    if isinstance(told, list):
        return Setting("choice", None in told, tuple(value for value in told if value is not None))
    return Setting(told.removesuffix("?"), told.endswith("?"))
