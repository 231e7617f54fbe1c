"""One pack: a safetensors file of many tensors (t, d), each with a checksum, mapped into memory when it is read.

Knows nothing of folders or of what the tensors are.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

ADDRESS = "address"
SUFFIX = ".safetensors"


class BrokenError(ValueError):
    """A pack does not hold what it should."""


class Pack:
    """One file, mapped into memory.

    Raises:
        OSError: it cannot be opened.
        SafetensorError: it is not whole.
    """

    def __init__(self, path: Path) -> None:
        # Opened here as well: its own errors say what is wrong, and its size can be asked for later.
        self._file = path.open("rb")
        try:
            self.size = os.fstat(self._file.fileno()).st_size
            self._mapped = safe_open(path, framework="pt")
            self.checksums: dict[str, str] = self._mapped.metadata() or {}
        except RuntimeError as error:
            # torch opens the file by its name once more, and says so when another rank has removed it by then.
            self._file.close()
            if not path.exists():
                raise FileNotFoundError(path) from error
            raise OSError(str(error)) from error
        except BaseException:
            self._file.close()
            raise

    def read(self, key: bytes, dtype: torch.dtype) -> Tensor:
        """Return a copy of a tensor (t, d).

        Raises:
            BrokenError: it is not what was written.
            SafetensorError: it is not there.
        """
        # Reading a page behind the end of a mapped file would kill the process.
        if os.fstat(self._file.fileno()).st_size != self.size:
            raise BrokenError("it was cut off while in use")
        # Copied before it is checked: the file might change in between.
        state: Tensor = self._mapped.get_tensor(key.hex()).clone()
        if state.dim() != 2 or state.dtype != dtype:
            raise BrokenError(f"an entry has dtype {state.dtype} and {state.dim()} axes, not {dtype} and 2")
        if self.checksums.get(key.hex()) != _checksum(key, state):
            raise BrokenError("a checksum is wrong")
        return state

    def lies_at(self, path: Path) -> bool:
        """Whether the path still leads to this very file."""
        try:
            return os.path.samestat(os.fstat(self._file.fileno()), path.stat())
        except OSError:
            return False

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
        del self._mapped


def laid_out(states: Mapping[bytes, Tensor], address: str) -> tuple[str, bytes]:
    """Lay a pack out: tensors under their keys in hex, their checksums and the address in the metadata.

    Returns:
        Its name, and what the file holds. The same states get the same name: ranks that compute them side by side
        write one pack, not one each.
    """
    ordered = {key: states[key].contiguous() for key in sorted(states)}
    metadata = {ADDRESS: address} | {key.hex(): _checksum(key, state) for key, state in ordered.items()}
    name = hashlib.blake2b(json.dumps(metadata).encode(), digest_size=10).hexdigest() + SUFFIX
    return name, save({key.hex(): state for key, state in ordered.items()}, metadata)


def _checksum(key: bytes, state: Tensor) -> str:
    """Hash a tensor with its key, shape and dtype: an entry is right only in its own place."""
    found = hashlib.blake2b(key, digest_size=8)
    found.update(f"{tuple(state.shape)} {state.dtype}".encode())
    found.update(state.contiguous().view(torch.uint8).numpy().data)
    return found.hexdigest()
