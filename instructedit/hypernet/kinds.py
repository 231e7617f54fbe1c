"""The kinds of editor: which method has which configuration, and how one is made.

Knows nothing about files or training.
"""

from collections.abc import Sequence
from typing import Literal

from instructedit.base.model import Base
from instructedit.base.sites import Site
from instructedit.hypernet.editor import EditorConfig, HyperEditor
from instructedit.hypernet.face import MetaEditor
from instructedit.hypernet.ke import KEConfig, KEEditor

EditorMethod = Literal["InstructEdit", "MEND", "KE"]
"""InstructEdit is MEND's network with instructions; MEND and KE take none."""

AnyConfig = EditorConfig | KEConfig


def config_class(method: str) -> type[AnyConfig]:
    """Return the class of a method's configuration."""
    return KEConfig if method == "KE" else EditorConfig


def make_editor(base: Base, sites: Sequence[Site], config: AnyConfig) -> MetaEditor:
    """Make a new editor, on the CPU: what the configuration is of decides its kind."""
    if isinstance(config, KEConfig):
        return KEEditor(sites, config, base.model.get_input_embeddings().weight.shape[1])
    return HyperEditor(sites, config)
