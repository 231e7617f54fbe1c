"""Fingerprints: which base this is, as one hash over its config and its weights.

A card that names a base carries this hash, so that an editor meets the very weights it was trained
on. Knows nothing about loading: it reads a model in memory, or safetensors files as bytes.
"""

import hashlib
import json
import mmap
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from instructedit.base.cache import cache_folder
from instructedit.errors import InputError

_ESSENTIALS = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "n_inner",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "activation_function",
    "rms_norm_eps",
    "layer_norm_epsilon",
    "max_position_embeddings",
    "rope_parameters",
    "sliding_window",
    "layer_types",
    "attention_bias",
    "mlp_bias",
    "scale_attn_weights",
    "scale_attn_by_inverse_layer_idx",
    "tie_word_embeddings",
)
"""What of a config decides the computation. A list of what counts, not of what does not, so that a
setting a newer transformers adds to every config leaves old fingerprints as they are."""

_DTYPES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
"""Names as safetensors headers write them, so that a model in memory and its saved copy agree."""


def fingerprint_of_model(model: PreTrainedModel) -> str:
    """Hash a model in memory, 64 hex digits; equals the fingerprint of its saved copy."""
    hashes = {name: _hash_tensor(tensor) for name, tensor in model.state_dict().items()}
    return _combine(model.config, hashes)


def fingerprint_of_files(config: PretrainedConfig, files: Sequence[Path]) -> str:
    """Hash a checkpoint's safetensors files, 64 hex digits; how it is cut into files does not count.

    The weights' hash is kept in the cache folder under the files' paths, sizes and times of change,
    so that only the first call for a checkpoint reads it whole.

    Raises:
        InputError: when a file is not in the safetensors format.
    """
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(files)]
    kept = cache_folder() / "hashes" / (hashlib.sha256(json.dumps(stats).encode()).hexdigest() + ".json")
    try:
        hashes = json.loads(kept.read_text())
    except (OSError, ValueError):
        hashes = {}
        for file in files:
            hashes.update(_hash_file(file))
        _keep(kept, json.dumps(hashes))
    return _combine(config, hashes)


def _combine(config: PretrainedConfig, hashes: dict[str, str]) -> str:
    if config.tie_word_embeddings:
        # Some checkpoints store the tied head a second time, most do not.
        hashes = {name: value for name, value in hashes.items() if name != "lm_head.weight"}
    essentials = {name: getattr(config, name, None) for name in _ESSENTIALS}
    content = json.dumps([essentials, sorted(hashes.items())], sort_keys=True, default=str)
    return hashlib.sha256(content.encode()).hexdigest()


def _hash_tensor(tensor: Tensor) -> str:
    values = tensor.detach().cpu().contiguous()
    dtype = _DTYPES.get(values.dtype, str(values.dtype))
    content = values.reshape(-1).view(torch.uint8).numpy()
    return _hash(dtype, values.shape, content.data)


def _hash_file(file: Path) -> dict[str, str]:
    """Hash every tensor of one file: an 8-byte header length, a JSON header, then the tensors' bytes."""
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            start = 8 + int.from_bytes(mapped[:8], "little")
            header = json.loads(mapped[8:start])
            header.pop("__metadata__", None)
            hashes = {}
            with memoryview(mapped) as content:
                for name, entry in header.items():
                    begin, end = (start + offset for offset in entry["data_offsets"])
                    with content[begin:end] as part:
                        hashes[name] = _hash(entry["dtype"], entry["shape"], part)
            return hashes
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"Cannot read {file} as safetensors: {error}. Download or convert the base again.") from error


def _hash(dtype: str, shape: Iterable[int], content: memoryview) -> str:
    digest = hashlib.sha256(f"{dtype} {list(shape)}\n".encode())
    digest.update(content)
    return digest.hexdigest()


def _keep(path: Path, text: str) -> None:
    """Write a cache entry whole or not at all; a cache that cannot be written costs time, not the run."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
        with os.fdopen(handle, "w") as opened:
            opened.write(text)
        os.replace(temporary, path)
    except OSError:
        return
