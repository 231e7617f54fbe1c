"""Packs: tensors in a folder on disk, many to a file, by key; any number of processes read and write it at once.

A file appears under its name whole or not at all, and is never written again. What is read is checked against a
checksum; what is broken is thrown away, which costs no more than making it again. Knows nothing about models or tokens.
"""

import hashlib
import json
import logging
import os
import secrets
import time
from collections import OrderedDict
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from instructedit.base.pack_file import ADDRESS, SUFFIX, BrokenError, Pack, laid_out

logger = logging.getLogger(__name__)

OPEN_PACKS = 64
"""Packs kept mapped at once."""

STALE_SECONDS = 3600.0
"""Age at which a temporary file belongs to a writer that was killed."""

SETTLED_SECONDS = 2.0
"""A folder changed later than this ago may change again without its time stamp telling."""

ABOUT = "about.json"


class _MisplacedError(Exception):
    """A pack is whole but belongs elsewhere."""


class Packs:
    """The packs of one address: a subfolder of ``root`` named after it.

    Nothing is read or made before the first call. No method raises on a file or folder that cannot be used: what is
    there and whole is given, the rest is told in a warning.

    Args:
        root: the folder of all addresses.
        address: everything that the tensors' bits depend on; goes into the name and into every pack.
        name: begins the subfolder's name, for people.
        dtype: of the tensors.
        limit_bytes: how large ``root`` may become; several processes that write at once may exceed it by a pack each.

    Attributes:
        folder: the subfolder.
        stopped: why nothing is written any more; empty while writing goes on.
        limit_bytes: as given.
    """

    def __init__(
        self, root: Path, address: Mapping[str, str | int], name: str, dtype: torch.dtype, limit_bytes: int
    ) -> None:
        self._about = json.dumps(dict(address), indent=2, sort_keys=True) + "\n"
        self._address = hashlib.sha256(self._about.encode()).hexdigest()
        self.folder = root / f"{name}-{self._address[:12]}"
        self.stopped = ""
        self._root, self._dtype, self.limit_bytes = root, dtype, limit_bytes
        self._where: dict[bytes, str] = {}
        self._sizes: dict[str, int] = {}
        self._ignored: set[str] = set()
        self._open: OrderedDict[str, Pack] = OrderedDict()
        self._elsewhere: int | None = None
        self._seen: int | None = None

    def __contains__(self, key: bytes) -> bool:
        """Whether the key is in a pack known so far."""
        return key in self._where

    @property
    def used_bytes(self) -> int:
        """Size of everything below the root: other addresses as they were first seen, this one as of the last look."""
        if self._elsewhere is None:
            self.refresh()
            self._elsewhere = sum(_size(path) for path in self._root.glob("*/*") if path.parent != self.folder)
        return self._elsewhere + sum(self._sizes.values())

    def refresh(self) -> None:
        """Look for packs that were written or removed since the last look; quick where the folder has not changed."""
        try:
            changed = self.folder.stat().st_mtime_ns
            if changed == self._seen:
                return
            names = set()
            for path in self.folder.iterdir():
                if path.suffix == SUFFIX:
                    names.add(path.name)
                elif path.suffix == ".tmp" and time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink(missing_ok=True)
        except FileNotFoundError:  # not made yet, or removed by someone, or a writer was quicker
            names, changed = ({path.name for path in self.folder.glob("*" + SUFFIX)}, 0)
        except OSError as error:
            self._stop(f"The trunk store in {self.folder} cannot be looked through ({error.strerror})")
            return
        self._forget(self._sizes.keys() - names)
        for name in sorted(names - self._sizes.keys() - self._ignored):
            self._index(name)
        self._seen = changed if time.time() - changed / 1e9 > SETTLED_SECONDS else None

    def get(self, key: bytes, rows: int) -> Tensor | None:
        """Return a tensor (rows, d), or None where there is none that is whole.

        The tensor is a copy in memory: it does not depend on the file any more.
        """
        name = self._where.get(key)
        if name is None:
            return None
        try:
            state = self._opened(name).read(key, self._dtype)
            if state.shape[0] != rows:
                raise BrokenError(f"{state.shape[0]} rows where {rows} belong")
        except FileNotFoundError:
            self._forget({name})
        except (SafetensorError, BrokenError) as error:
            self._remove(name, error)
        except OSError as error:
            self._ignore(name, error)
        else:
            return state
        return None

    def put(self, states: Mapping[bytes, Tensor]) -> None:
        """Write tensors (t, d) that no pack has yet, as one pack; warns once where that is not possible any more."""
        if self.stopped:
            return
        self.refresh()
        fresh = {key: state for key, state in states.items() if key not in self._where}
        if not fresh:
            return
        name, content = laid_out(fresh, self._address)
        used = self.used_bytes
        if used + len(content) > self.limit_bytes:
            self._stop(
                f"The trunk store in {self._root} is full: {_gib(used)} are used, and model.store.disk_gib is "
                f"{_gib(self.limit_bytes)}. Raise it, or remove a folder in {self._root} that no run needs any more"
            )
            return
        try:
            self._write(name, content)
        except OSError as error:
            self._stop(
                f"The trunk store in {self.folder} cannot be written ({error.strerror or error}). Make room or get "
                "rights there, or set model.store.folder to another folder"
            )
            return
        self._sizes[name] = len(content)
        self._where.update(dict.fromkeys(fresh, name))

    def _write(self, name: str, content: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        files = {name: content}
        if not (self.folder / ABOUT).exists():
            files[ABOUT] = self._about.encode()
        for file, data in files.items():
            temporary = self.folder / f"{secrets.token_hex(8)}.tmp"
            try:
                temporary.write_bytes(data)
                os.replace(temporary, self.folder / file)
            except OSError:
                _unlink(temporary)
                raise

    def _index(self, name: str) -> None:
        """Note what a pack holds."""
        try:
            pack = self._opened(name)
            if pack.checksums.get(ADDRESS) != self._address:
                raise _MisplacedError("it was written for another base, or with other settings")
            keys = [bytes.fromhex(key) for key in pack.checksums if key != ADDRESS]
        except FileNotFoundError:
            return
        except (SafetensorError, ValueError) as error:
            self._remove(name, error)
        except (OSError, _MisplacedError) as error:
            self._ignore(name, error)
        else:
            self._sizes[name] = pack.size
            self._where.update(dict.fromkeys(keys, name))

    def _opened(self, name: str) -> Pack:
        if name not in self._open:
            self._open[name] = Pack(self.folder / name)
            while len(self._open) > OPEN_PACKS:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(name)
        return self._open[name]

    def _forget(self, names: Collection[str]) -> None:
        """Drop packs and all of their keys."""
        for name in names:
            if name in self._open:
                self._open.pop(name).close()
            self._sizes.pop(name, None)
        for key in [key for key, place in self._where.items() if place in names] if names else ():
            del self._where[key]

    def _remove(self, name: str, error: Exception) -> None:
        path = self.folder / name
        logger.warning("Trunk store: %s is broken (%s). It is removed; its states are computed again.", path, error)
        # Another rank may have noticed too, and written a whole one by now.
        replaced = name in self._open and not self._open[name].lies_at(path)
        self._forget({name})
        if not replaced and not _unlink(path):
            self._ignored.add(name)

    def _ignore(self, name: str, error: Exception) -> None:
        path = self.folder / name
        logger.warning(
            "Trunk store: %s cannot be used (%s). It is left alone, and its states are computed again; remove it.",
            path,
            getattr(error, "strerror", None) or error,
        )
        self._forget({name})
        self._ignored.add(name)

    def _stop(self, reason: str) -> None:
        if not self.stopped:
            self.stopped = reason
            logger.warning("%s. Nothing more is written; what is missing is computed whenever it is asked for.", reason)


def _unlink(path: Path) -> bool:
    try:
        path.unlink(missing_ok=True)  # another rank may have been quicker
    except OSError:
        return False
    return True


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _gib(size: int) -> str:
    return f"{size / 2**30:.3g} GiB"
