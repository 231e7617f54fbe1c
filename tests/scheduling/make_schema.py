"""Writes instructedit/scheduling/schema.json from the real parsers: ``python -m tests.scheduling.make_schema``."""

import json
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from jsonargparse import ArgumentParser, auto_cli, capture_parser

from instructedit.cli import COMMANDS, Command, resolve
from instructedit.errors import InputError
from instructedit.scheduling.schema import FILE

NOT_LISTED = ("submit", "status", "compare", "push", "export", "analyse")
"""Commands that nobody would hand to a scheduler, or whose arguments are no settings: analyse's begin with a word."""


def make_schema() -> dict[str, dict[str, Any]]:
    """The settings of each command by their names, as schema.json holds them."""
    found = {}
    for name, command in COMMANDS.items():
        if name in NOT_LISTED:
            continue
        for flag, other in command.instead.items():
            if other.takes == "argv":
                found[f"{name} {flag}"] = settings(parser_of(f"{name} {flag}", other))
        if command.bare is None:
            found[name] = settings(parser_of(name, command))
    return found


def parser_of(name: str, command: Command) -> ArgumentParser:
    """The parser that a command builds for itself."""
    function = resolve(command.target)
    if command.takes == "flags":
        return capture_parser(lambda: auto_cli(function, as_positional=False, args=[]))
    if command.target.startswith("lightning_modules.cli:"):
        from lightning_modules.parser import EditorCLI

        return capture_parser(lambda: EditorCLI(name, []))
    return capture_parser(lambda: function([]))


def settings(parser: ArgumentParser) -> dict[str, Any]:
    found = {}
    for action in parser._actions:
        if type(action).__name__ == "ActionTypeHint":
            found[action.dest] = kind_of(action._typehint)  # type: ignore[attr-defined]
        elif type(action).__name__ == "ActionLink":
            found[action.dest] = "any?"  # in resolved configurations; what it is linked with wins
    return found


def kind_of(hint: Any) -> str | list[Any]:
    """A type as schema.json has it.

    >>> kind_of(int | None), kind_of(dict[str, int])
    ('int?', 'dict')
    """
    if get_origin(hint) is Literal:
        return list(get_args(hint))
    if get_origin(hint) in (Union, UnionType):
        kinds = [kind_of(one) for one in get_args(hint) if one is not NoneType]
        null = NoneType in get_args(hint)
        if len(kinds) == 1 and isinstance(kinds[0], list):
            return [*kinds[0], None] if null else kinds[0]
        if any(kind in ("object", "dict") for kind in kinds):
            kind = "object" if "object" in kinds or "list" in kinds else "dict"
        else:
            kind = str(kinds[0]) if len(kinds) == 1 else "float" if set(map(str, kinds)) == {"int", "float"} else "any"
        return kind + "?" * null
    plain = {int: "int", float: "float", bool: "bool", str: "str"}
    if hint in plain:
        return plain[hint]
    origin = get_origin(hint)
    if isinstance(origin, type) and issubclass(origin, dict):
        return "dict"
    if origin is not None:
        inner = [kind_of(one) for one in get_args(hint) if one is not Ellipsis]
        return "object" if inner and inner[0] == "object" and origin is not tuple else "list"
    return "object" if isinstance(hint, type) else "any"


def text(schema: dict[str, dict[str, Any]]) -> str:
    """One line a setting, so that changes can be read."""
    parts = []
    for command, found in schema.items():
        lines = ",\n".join(f"    {json.dumps(name)}: {json.dumps(kind)}" for name, kind in found.items())
        parts.append(f"  {json.dumps(command)}: {{\n{lines}\n  }}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    FILE.write_text(text(make_schema()), encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from error
