"""Editing methods behind one verb, the table of their names, and how one is built; each is loaded when asked for."""

import inspect
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instructedit.errors import InputError, unknown

if TYPE_CHECKING:
    from instructedit.base.model import Base
    from instructedit.methods.base import EditMethod

METHODS: dict[str, str] = {
    "none": "instructedit.methods.none:NoEdit",
    "ft-l": "instructedit.methods.ft_l:FTL",
    "calinet": "instructedit.methods.calinet:CaliNet",
    "grace": "instructedit.methods.grace:GRACE",
    "ke": "instructedit.methods.hyper:HyperMethod",
    "mend": "instructedit.methods.hyper:HyperMethod",
    "instructedit": "instructedit.methods.hyper:HyperMethod",
}
"""Name -> "module:class". KE, MEND and InstructEdit are one class: a trained editor and, for InstructEdit, pools."""

TRAINED = {"ke": "KE", "mend": "MEND", "instructedit": "InstructEdit"}
"""The methods that need an editor, and what its card calls them."""

VERBS = ("first_block", "stage_for", "edit")


def method_class(name: str) -> type:
    """Return the class of a method by its name, or by its place: ``"package.module:Class"`` for one of your own.

    A module of your own is also looked for in the working directory.

    Raises:
        InputError: no method has this name, or there is no such class; the message says what there is.
    """
    target = METHODS.get(name, name if ":" in name else "")
    if not target:
        raise unknown("method", name, METHODS, "One of your own is written package.module:Class.")
    module, _, attribute = target.partition(":")
    try:
        with _working_directory():
            found = getattr(import_module(module), attribute)
    except (ModuleNotFoundError, ValueError, AttributeError) as error:
        # A missing package that the module itself needs is told by its own name.
        raise InputError(f"Method {name!r} cannot be loaded: {error}. Write package.module:Class.") from error
    missing = [verb for verb in VERBS if not hasattr(found, verb)]
    if missing or not isinstance(found, type):
        raise InputError(
            f"Method {name!r} is no editing method: it lacks {', '.join(missing) or 'a class'}. "
            "See EditMethod in instructedit.methods.base."
        )
    return found


def check_options(kind: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options a method will be built with: those given, converted to their types, and the defaults.

    Needs no base. Defaults are part of it for methods that are dataclasses.

    Raises:
        InputError: the method has no such option, or the value is of another type.
    """
    found = method_class(kind)
    if kind in TRAINED:
        if options:
            raise InputError(
                f"Method {kind!r} takes no options; found {', '.join(sorted(options))}. Its editor has all."
            )
        return {}
    parameters = inspect.signature(found).parameters
    names = [name for name in parameters if name != "name" and not name.startswith("_")]
    anything = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    for name in options:
        if name not in names and not anything:
            raise unknown(f"option of method {kind!r}", name, names)
    known = {name: value for name, value in options.items() if name in names}
    defaults = {
        name: parameters[name].default
        for name in names
        if parameters[name].default is not inspect.Parameter.empty
        and name in getattr(found, "__dataclass_fields__", {})
    }
    return {**defaults, **options, **_typed(kind, found, known)}


def build_method(
    kind: str,
    base: "Base",
    name: str | None = None,
    options: Mapping[str, Any] | None = None,
    editor: Path | str | None = None,
) -> "EditMethod":
    """Build a method for a base.

    Args:
        kind: a name of ``METHODS``, or ``"package.module:Class"`` of your own.
        base: the base it will edit.
        name: the row of the table; None for the method's own name.
        options: the constructor's arguments by name.
        editor: the folder of a trained editor, for ke, mend and instructedit alone.

    Raises:
        InputError: an option is unknown or of the wrong type, an editor is missing, not wanted or of another method.
        MismatchError: the editor was trained on another base.
    """
    found = method_class(kind)
    checked = check_options(kind, options or {})
    check_editor(kind, editor)
    method: EditMethod
    if kind in TRAINED:
        method = found.load(editor, base)  # type: ignore[attr-defined]
        if name is not None:
            method.name = name
        return method
    label = {} if name is None else {"name": name}
    try:
        method = found(**label, **{key: checked[key] for key in (options or {})})
    except TypeError as error:
        raise InputError(f"Method {kind!r} cannot be built: {error}. Correct its options.") from error
    method.first_block(base)  # refuses a block the base does not have
    return method


def check_editor(kind: str, editor: Path | str | None) -> None:
    """Refuse an editor folder that is missing, not wanted, or of another method; weights are not read.

    Raises:
        InputError: says which.
    """
    if kind not in TRAINED:
        if editor is not None:
            raise InputError(f"Method {kind!r} takes no editor; found {str(editor)!r}. Leave it out.")
        return
    if editor is None:
        raise InputError(
            f"Method {kind!r} needs a trained editor: set editor to the folder that `instructedit fit` made."
        )
    from instructedit.checkpoints import read_card

    method = read_card(Path(editor)).method
    if method != TRAINED[kind]:
        raise InputError(f"The editor in {editor} is a {method}, not a {TRAINED[kind]}. Name another editor or method.")


def _typed(kind: str, found: type, options: dict[str, Any]) -> dict[str, Any]:
    """Convert options to the types of the constructor's parameters."""
    from argparse import ArgumentError

    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    others = {name for name in inspect.signature(found).parameters if name not in options}
    parser.add_class_arguments(found, "options", fail_untyped=False, skip=others, instantiate=False)
    try:
        parsed = parser.parse_object({"options": options}) if options else None
    except ArgumentError as error:
        raise InputError(f"An option of method {kind!r} is of the wrong type: {error}") from error
    return {} if parsed is None else {name: parsed["options"][name] for name in options}


@contextmanager
def _working_directory() -> Iterator[None]:
    """Look for modules in the working directory too, after everywhere else."""
    folder = os.getcwd()
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
