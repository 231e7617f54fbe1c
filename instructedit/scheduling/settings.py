"""A command's settings out of its --config files and flags, merged as the real parser merges them, without torch.

Knows the order of files and flags; which settings there are, `schema` says. What only
the parser itself can put together, such as flags for one argument of a callback, is kept as flags.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instructedit.cli import underscored
from instructedit.errors import InputError
from instructedit.scheduling.schema import Schema
from instructedit.scheduling.yaml_text import inline_or_file, parsed

BY_TASK = ("--data.balance.", "--data.caps.")
"""Flags of fit, validate and test that end in a task's name, whose dashes are its own."""

FROM_RUN = "--from_run"
TRAINING = ("fit", "validate", "test", "prepare --trunk")
"""Commands whose settings are those of a training."""


@dataclass(frozen=True)
class Settings:
    """What a command was given.

    Args:
        config: nested mappings, as a --config file holds them.
        flags: flags to be given with that file, in this order.
        kept: the settings these flags are of.
    """

    config: dict[str, Any]
    flags: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()

    @property
    def known(self) -> dict[str, Any]:
        """The settings whose values are known before the parser has seen the flags."""
        nested: dict[str, Any] = {}
        for key, value in _leaves(self.config):
            if not any(key == kept or key.startswith(f"{kept}.") for kept in self.kept):
                put(nested, key, value)
        return nested


class Merge:
    """Settings that grow by files and flags; later ones win.

    Args:
        schema: the command's settings.
    """

    def __init__(self, schema: Schema) -> None:
        self.schema = schema
        self.values: dict[str, Any] = {}
        self.flags: list[str] = []
        self._kept: set[str] = set()

    def file(self, content: Any, source: str, prefix: str = "") -> None:
        """Add what a file holds.

        Raises:
            InputError: a setting is unknown, or its value cannot be one.
        """
        if not isinstance(content, Mapping):
            raise InputError(f"{source} holds {content!r} where settings were expected, as in `run: {{name: demo}}`.")
        for key, value in _flat(content, prefix, self.schema, source):
            if key.endswith("+"):
                self._append(key.removesuffix("+"), value, source)
            else:
                self._set(key, value, source)

    def flag(self, key: str, text: str, spelled: str) -> None:
        """Add one flag.

        Args:
            key: its name without dashes.
            text: its value.
            spelled: the name as it was given.

        Raises:
            InputError: there is no such setting, or that is no value of it.
        """
        schema = self.schema
        name = key.removesuffix("+")
        owner = _owner(name, schema)
        if owner is None and name in schema.sections:
            self.file(inline_or_file(text), f"{spelled} {text}", f"{name}.")
        elif owner is None or (key != name and not _appendable(schema.settings[owner].kind)):
            raise schema.unknown(name, "the flags")
        elif owner in self._kept or (schema.settings[owner].kind == "object" and self._in_parts(owner, key, text)):
            # Only the parser knows what becomes of an object's arguments, or of one object after another.
            self._kept.add(owner)
            self.flags.append(f"--{key}={text}")
        elif owner != name:
            self._item(owner, name.removeprefix(f"{owner}."), text, spelled)
        elif key != name:
            self._append(name, parsed(text), "the flags")
        else:
            self._set(name, self._of_text(name, text), "the flags")

    def _in_parts(self, owner: str, key: str, text: str) -> bool:
        """Whether a flag gives a part of an object, or an object where there is one."""
        objects = [isinstance(value, dict | list) for value in (self.values.get(owner), parsed(text))]
        return key != owner or (owner in self.values and any(objects))

    def settings(self) -> Settings:
        """All of it as nested mappings."""
        nested: dict[str, Any] = {}
        for key, value in self.values.items():
            put(nested, key, value)
        return Settings(nested, tuple(self.flags), tuple(sorted(self._kept)))

    def _set(self, key: str, value: Any, source: str) -> None:
        setting = self.schema.settings[key]
        if key in self._kept:
            raise InputError(f"{key} is set in {source} after a flag for a part of it. Put flags behind the files.")
        if isinstance(value, str) and setting.kind in ("int", "float", "bool"):
            value = parsed(value)
        self.schema.check(key, value, source)
        before = self.values.get(key)
        if setting.kind == "object" and before is not None and value is not None:
            value = self._together(key, before, value, source)
        for name in (key, f"{key}+"):
            self.values.pop(name, None)
        self.values[key] = value

    def _together(self, key: str, before: Any, value: Any, source: str) -> Any:
        """An object given twice: the parser merges plain ones; of classes it keeps what the other knows too."""
        objects = [one for one in (before, value) if isinstance(one, dict | list)]
        if len(objects) == 2 and not any(_is_class(one) for one in objects):
            if isinstance(before, dict) and isinstance(value, dict):
                return before | value
            if isinstance(before, list) and isinstance(value, list):
                return value
        if objects:
            raise InputError(f"{key} is set twice, the second time in {source}, to an object. Leave one of them.")
        return value

    def _append(self, key: str, value: Any, source: str) -> None:
        if key not in self.schema.settings or self.schema.settings[key].kind != "list":
            raise self.schema.unknown(f"{key}+", source)
        more = value if isinstance(value, list) else [value]
        # A list that is not given has a default, which the parser adds to.
        place = key if key in self.values else f"{key}+"
        before = self.values.get(place) or []
        self.values[place] = [*(before if isinstance(before, list) else [before]), *more]

    def _item(self, owner: str, name: str, text: str, spelled: str) -> None:
        """One entry of a mapping, such as ``--data.balance.recent 2``."""
        if self.schema.settings[owner].kind != "dict":
            raise self.schema.unknown(f"{owner}.{name}", "the flags")
        before = self.values.get(owner)
        self._set(owner, (before if isinstance(before, dict) else {}) | {name: parsed(text)}, spelled)

    def _of_text(self, key: str, text: str) -> Any:
        """A flag's text as the value that YAML would have: lists and mappings only where they may stand."""
        setting = self.schema.settings[key]
        value = parsed(text)
        if setting.null and value is None and text.strip():
            return None
        if setting.kind in ("int", "float", "bool"):
            return value
        if setting.kind in ("list", "dict", "object", "any") and isinstance(value, list | dict):
            return value
        return text


def merge(schema: Schema, argv: Sequence[str]) -> Settings:
    """Merge what a command is given.

    Args:
        schema: the command's settings.
        argv: its arguments: --config FILE (or -c), --from_run DIR, --key value, --key=value.

    Returns:
        Settings that the real parser reads as it would read the arguments.

    Raises:
        InputError: an argument is unknown or wrong, or a file cannot be read.
    """
    merged = Merge(schema)
    pairs = list(_pairs(schema, argv))
    runs = [text for name, text in pairs if name == FROM_RUN]
    if len(runs) > 1:
        raise InputError(f"{FROM_RUN} is given twice. Name one run.")
    for directory in runs:
        _from_run(merged, Path(directory))
    for name, text in pairs:
        if name == FROM_RUN:
            continue
        if name in ("--config", "-c"):
            merged.file(inline_or_file(text), text)
        else:
            merged.flag(name[2:], text, name)
    return merged.settings()


def from_run(argv: Sequence[str]) -> Path | None:
    """The run that --from_run names; None without it."""
    for place, argument in enumerate(argv):
        name, equals, value = underscored([argument])[0].partition("=")
        if name == FROM_RUN and (equals or argv[place + 1 :]):
            return Path(value if equals else argv[place + 1])
    return None


def put(nested: dict[str, Any], key: str, value: Any) -> None:
    """Set one setting by its full name."""
    *sections, last = key.split(".")
    for section in sections:
        nested = nested.setdefault(section, {})
    nested[last] = value


def get(nested: Mapping[str, Any], key: str, default: Any = None) -> Any:
    """One setting by its full name; the default where it is left out."""
    found: Any = nested
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return default
        found = found[part]
    return found


def _from_run(merged: Merge, directory: Path) -> None:
    config = directory / "config.yaml"
    if not config.is_file():
        raise InputError(
            f"No run at {str(directory)!r}: there is no config.yaml. Name a directory that `instructedit fit` made."
        )
    path = directory.resolve()
    merged.file(inline_or_file(str(config)), str(config))
    merged.file({"run": {"folder": str(path.parent), "name": path.name}}, str(directory))


def _pairs(schema: Schema, argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names of flags, spelled with underscores, and their values."""
    rest = list(reversed(argv))
    training = schema.command in TRAINING
    while rest:
        argument = rest.pop()
        if argument[:2] != "--" and not (training and argument == "-c"):
            raise InputError(
                f"`{schema.command}` takes flags, but {argument!r} stands alone. Give --config FILE or --key VALUE."
            )
        as_it_is = training and argument.startswith(BY_TASK)
        spelled = argument if as_it_is else underscored([argument])[0]
        name, equals, value = spelled.partition("=")
        if name == "--help" or name == "--print_config":
            raise InputError(f"{name} is of `instructedit {schema.command}` itself. Run it without submitting.")
        switch = not training and name[2:] in schema.settings and schema.settings[name[2:]].kind == "bool"
        if not equals and switch and (not rest or rest[-1].lower() not in ("true", "false")):
            value = "true"
        elif not equals:
            value = rest.pop() if rest else ""
            if not value or (value[0] == "-" and " " not in value and not isinstance(parsed(value), int | float)):
                raise InputError(f"{name} needs a value, but {value!r} follows. Write {name}=VALUE.")
        if name == FROM_RUN and not training:
            raise schema.unknown(name[2:], "the flags")
        yield name, value


def _owner(name: str, schema: Schema) -> str | None:
    """The setting that a flag is of: itself, or one whose parts it names."""
    parts = name.split(".")
    return next((key for n in range(len(parts), 0, -1) if (key := ".".join(parts[:n])) in schema.settings), None)


def _is_class(value: dict[str, Any] | list[Any]) -> bool:
    """Whether an object, or one of a list, names its class."""
    items = value if isinstance(value, list) else [value]
    return any(isinstance(item, str) or (isinstance(item, dict) and "class_path" in item) for item in items)


def _leaves(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in nested.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _appendable(kind: str) -> bool:
    return kind in ("list", "object", "any")


def _flat(content: Mapping[Any, Any], prefix: str, schema: Schema, source: str) -> Iterator[tuple[str, Any]]:
    for key, value in content.items():
        name = f"{prefix}{key}"
        if name.removesuffix("+") in schema.settings:
            yield name, value
        elif name in schema.sections:
            if not isinstance(value, Mapping):
                raise InputError(f"{name} is {value!r} in {source}, but it holds settings. Give them, or leave it out.")
            yield from _flat(value, f"{name}.", schema, source)
        else:
            raise schema.unknown(name, source)
