"""What has to be known about a model family: where its parts are. Pure data and look-ups.

Knows nothing about tokens, edits or how a model is loaded.
"""

from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


@dataclass(frozen=True)
class Adaptor:
    """Names of the parts of one family of decoder-only models.

    Args:
        family: the family's name, for messages and cards.
        described: which models these are, for messages.
        model_types: values of ``config.model_type`` whose trunk / tail split our tests compare bit
            for bit; a model of another type with the same structure is checked when it is split.
        decoder: path of the decoder in the model.
        embeddings: name of the token embedding in the decoder.
        blocks: name of the list of blocks in the decoder.
        norm: name of the last norm in the decoder.
        positions: name of the absolute position embedding that the decoder's forward adds, if any.
        matrices: path in a block of the matrices edited by default, in forward order; the last is the MLP's output.
        mlp: path in a block of the MLP, which maps states (..., d) to (..., d).
        activation: the config's field that names the MLP's activation function.
    """

    family: str
    described: str
    model_types: frozenset[str]
    decoder: str
    embeddings: str
    blocks: str
    norm: str
    positions: str | None
    matrices: tuple[str, ...]
    mlp: str
    activation: str

    def fits(self, model: PreTrainedModel) -> bool:
        """Say whether the model has all the modules this adaptor names, and an output head."""
        decoder = getattr(model, self.decoder, None)
        named = [self.embeddings, self.norm, *([self.positions] if self.positions else [])]
        if not isinstance(decoder, nn.Module) or not all(
            isinstance(getattr(decoder, name, None), nn.Module) for name in named
        ):
            return False
        blocks = getattr(decoder, self.blocks, None)
        if not isinstance(blocks, nn.ModuleList) or len(blocks) == 0 or model.get_output_embeddings() is None:
            return False
        return all(isinstance(_descend(block, path), nn.Linear | Conv1D) for block in blocks for path in self.matrices)

    def decoder_of(self, model: PreTrainedModel) -> nn.Module:
        """Return the decoder: embeddings, blocks and last norm, without the output head."""
        return model.get_submodule(self.decoder)

    def blocks_of(self, model: PreTrainedModel) -> nn.ModuleList:
        """Return the list of blocks."""
        blocks = self.decoder_of(model).get_submodule(self.blocks)
        assert isinstance(blocks, nn.ModuleList)
        return blocks

    def block_path(self, block: int) -> str:
        """Return the dotted path of a block in the model, for instance ``"model.layers.29"``."""
        return f"{self.decoder}.{self.blocks}.{block}"


def _descend(module: nn.Module, path: str) -> object:
    """Follow a dotted path; None where it ends early."""
    found: object = module
    for name in path.split("."):
        found = getattr(found, name, None)
    return found
