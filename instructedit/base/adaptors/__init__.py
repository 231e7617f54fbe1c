"""Which family a model belongs to: the table of adaptors, and detection by config and structure.

A family is told by ``config.model_type`` and by the modules that are there, never by a name or a
path. Adding a family is one file beside this one and one entry in ``FAMILIES``.
"""

from transformers import PreTrainedModel

from instructedit.base.adaptors.adaptor import Adaptor
from instructedit.base.adaptors.gpt2 import GPT2
from instructedit.base.adaptors.llama_like import LLAMA_LIKE
from instructedit.errors import InputError

FAMILIES: tuple[Adaptor, ...] = (GPT2, LLAMA_LIKE)

__all__ = ["FAMILIES", "Adaptor", "adaptor_for"]


def adaptor_for(model: PreTrainedModel) -> Adaptor:
    """Return the adaptor whose structure a causal language model has.

    A family that lists the model's type is asked first, then the others by structure alone.

    Raises:
        InputError: when no family fits, saying what is supported.
    """
    model_type = model.config.model_type
    for adaptor in sorted(FAMILIES, key=lambda family: model_type not in family.model_types):
        if adaptor.fits(model):
            return adaptor
    supported = "; ".join(f"{adaptor.family} ({adaptor.described})" for adaptor in FAMILIES)
    raise InputError(
        f"A base of type {model_type!r} ({type(model).__name__}) is not supported: none of its shapes is known here. "
        f"Supported: {supported}. Choose such a base, or add an adaptor under instructedit/base/adaptors."
    )
