"""The base: a frozen language model, its sites, its trunk and tail, its fingerprint.

Knows nothing about edits, tasks or training. Names are loaded when first used, so that importing
the package stays quick.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from instructedit.base.loading import load_base, load_tokenizer
    from instructedit.base.model import Base
    from instructedit.base.sites import Site, SiteSpec, find_sites
    from instructedit.base.split import Split
    from instructedit.base.store import TrunkStore

_WHERE = {
    "Base": "model",
    "Site": "sites",
    "SiteSpec": "sites",
    "Split": "split",
    "TrunkStore": "store",
    "find_sites": "sites",
    "load_base": "loading",
    "load_tokenizer": "loading",
}

__all__ = ["Base", "Site", "SiteSpec", "Split", "TrunkStore", "find_sites", "load_base", "load_tokenizer"]


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
