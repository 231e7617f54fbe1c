"""Memory: numbers of parameters of a base and of an editor that are there, for the arithmetic in ``sizes``.

Knows nothing about training: a model on the meta device is enough.
"""

from torch import nn
from transformers import PreTrainedModel

from instructedit.base.adaptors import adaptor_for
from instructedit.base.sizes import BaseSize, EditorSize, through_mend
from instructedit.errors import InputError


def count_base(model: PreTrainedModel, last_blocks: int) -> BaseSize:
    """Count a model, whose weights may be on the meta device, with a tail of so many blocks.

    Raises:
        InputError: the family is not supported, or there are not so many blocks.
    """
    adaptor = adaptor_for(model)
    blocks = [_numbers(block) for block in adaptor.blocks_of(model)]
    if not 1 <= last_blocks <= len(blocks):
        raise InputError(f"A tail of {last_blocks} blocks was asked for; the base has 1 to {len(blocks)} to choose.")
    decoder, head = adaptor.decoder_of(model), model.get_output_embeddings()
    first = adaptor.blocks_of(model)[0].get_submodule(adaptor.matrices[0])
    at_the_end = _numbers(decoder.get_submodule(adaptor.norm)) + _numbers(head)
    return BaseSize(
        embeddings=_numbers(model) - sum(blocks) - at_the_end,
        trunk=sum(blocks[:-last_blocks]),
        tail=sum(blocks[-last_blocks:]),
        head=at_the_end,
        block=max(blocks),
        tail_blocks=last_blocks,
        width=int(model.config.hidden_size),
        inner=sum(weight.numel() for weight in first.parameters() if weight.dim() == 2) // model.config.hidden_size,
        vocabulary=head.weight.shape[0],
        gated=len(adaptor.matrices) == 3,
    )


def count_editor(
    editor: nn.Module, sites: list[tuple[int, int]], rank: int, n_blocks: int, in_last: int = 0
) -> EditorSize:
    """Count MEND's editor, whose weights may be on the meta device, on sites of the sizes (d_in, d_out).

    ``in_last`` is how many of them, at the end, lie in the last block's MLP.
    """
    largest = max(_numbers(child) for child in editor.get_submodule("networks").children())
    everywhere, last = (through_mend(some, rank, n_blocks) for some in (sites, sites[len(sites) - in_last :]))
    return EditorSize(_numbers(editor), largest, *everywhere, *last)


def _numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
