"""Knowledge editing for frozen language models with one meta-trained editor.

The library: torch and transformers, and nothing of Lightning or W&B. Importing this package loads none of them;
take what you need from its modules (the file map is in README.md). The names below are loaded when first used::

    from instructedit import Editor, EditRequest
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instructedit.editing.edit import Edit
    from instructedit.editing.editor import Editor
    from instructedit.records import EditRequest, Probe

__version__ = "0.1.0"

__all__ = ["Edit", "EditRequest", "Editor", "Probe"]

_WHERE = {"Edit": "editing.edit", "EditRequest": "records", "Editor": "editing.editor", "Probe": "records"}


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
