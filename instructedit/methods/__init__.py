"""Editing methods behind one verb, and the table of their names; a method is loaded when it is asked for."""

from importlib import import_module

from instructedit.errors import unknown

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


def method_class(name: str) -> type:
    """Return the class of a method by its name.

    Raises:
        InputError: no method has this name; the message lists those that exist.
    """
    if name not in METHODS:
        raise unknown("method", name, METHODS)
    module, _, attribute = METHODS[name].partition(":")
    found: type = getattr(import_module(module), attribute)
    return found
