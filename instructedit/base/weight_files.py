"""Weight files: a checkpoint's safetensors files, read one tensor at a time under a model's own names.

Nothing is kept open or in memory between two reads. Knows nothing about blocks or when a weight is needed.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import PreTrainedModel

from instructedit.errors import InputError

_FLOATS = {"F64", "F32", "F16", "BF16"}


def lacking(name: str, model: PreTrainedModel, missing: Collection[str]) -> InputError:
    """Build the error for weights of a model that the checkpoint of a base lacks."""
    return InputError(
        f"Base {name!r} lacks {len(missing)} weights of a {type(model).__name__}, the first is "
        f"{sorted(missing)[0]!r}. Use a complete checkpoint."
    )


@dataclass(frozen=True)
class _Stored:
    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str


class WeightFiles:
    """Finds each weight of a model in a checkpoint, by the rules ``from_pretrained`` finds them by.

    Args:
        files: the checkpoint's files.
        model: the model the weights are for; its own may be on the meta device.
        name: the base's name, for messages.

    Attributes:
        embedding: the token embedding's name in the model.
        head: the output head's name in the model.
        tied: the head is the embedding.

    Raises:
        InputError: a file cannot be read, or a weight is missing, has another shape or is quantised.
    """

    def __init__(self, files: Sequence[Path], model: PreTrainedModel, name: str) -> None:
        self._name = name
        stored = {}
        for file in files:
            stored.update(self._entries(file))
        self._where: dict[str, _Stored] = {}
        missing = []
        for own, shape in {key: tuple(value.shape) for key, value in model.state_dict().items()}.items():
            # Checkpoints of the bare decoder leave the decoder's own name out.
            found = stored.get(own) or stored.get(own.removeprefix(f"{model.base_model_prefix}."))
            if found is None:
                missing.append(own)
                continue
            self._where[own] = found
            if found.shape != shape or found.dtype not in _FLOATS:
                raise InputError(
                    f"Base {name!r}: weight {own!r} is {found.dtype} {list(found.shape)} in {found.file}, and a "
                    f"{type(model).__name__} of this config has {list(shape)} of floating point. Use a matching "
                    "checkpoint that is not quantised."
                )
        names = {id(module): module_name for module_name, module in model.named_modules()}
        self.embedding = f"{names[id(model.get_input_embeddings())]}.weight"
        self.head = f"{names[id(model.get_output_embeddings())]}.weight"
        self.tied = bool(model.config.tie_word_embeddings) and self._tie(missing)
        if missing:
            raise lacking(name, model, missing)

    def mapped(self, name: str) -> Tensor:
        """Return a weight as a view of its file, on the CPU and in the file's dtype: read where it is touched."""
        entry = self._where[name]
        try:
            with safe_open(entry.file, "pt") as opened:
                tensor: Tensor = opened.get_tensor(entry.key)
        except (OSError, SafetensorError) as error:
            raise self._unreadable(entry.file, error) from error
        return tensor

    def read(self, name: str, device: torch.device | str, dtype: torch.dtype) -> Tensor:
        """Return a copy of a weight; the file is let go of."""
        # Always a copy: the last bits of a product may depend on how its operands lie in memory.
        return self.mapped(name).to(device, dtype, copy=True)

    def _entries(self, file: Path) -> dict[str, _Stored]:
        try:
            with safe_open(file, "pt") as opened:
                slices = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 (not a dictionary)
                return {key: _Stored(file, key, tuple(s.get_shape()), s.get_dtype()) for key, s in slices.items()}
        except (OSError, SafetensorError) as error:
            raise self._unreadable(file, error) from error

    def _unreadable(self, file: Path, error: Exception) -> InputError:
        return InputError(f"Cannot load base {self._name!r} from {file}: {error}. Download or convert it again.")

    def _tie(self, missing: list[str]) -> bool:
        """Say whether the head is the embedding; where one of the two is stored, it stands for both."""
        for one, other in ((self.embedding, self.head), (self.head, self.embedding)):
            if one in missing and other in self._where:
                self._where[one] = self._where[other]
                missing.remove(one)
                return True
        # A checkpoint that holds both, with different values, is not tied whatever its config says.
        return self.embedding in missing or torch.equal(self.mapped(self.embedding), self.mapped(self.head))
