"""The files an offline Weights & Biases run leaves behind, read and mended.

Each start of a run writes a folder of its own, ``wandb/offline-run-<time>-<id>``, and ``wandb sync`` uploads them one
after the other into one run. A start that was killed leaves a file with a torn end, at which that upload would stop:
what is torn is cut off here, by the start that comes next, which logs the steps in it again, or before the upload.
"""

import logging
import os
import shutil
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

FOLDER = "wandb"
FILE_HEADER = b":W&B\xe1\xbe\x00"
BLOCK = 32768
"""A file is a row of blocks; a record that does not fit into what is left of one goes on in the next."""

PART = struct.Struct("<IHB")
"""Before each part of a record: CRC-32 of kind and content, bytes of content, kind."""

WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4

BEGUN, SENT = ".syncstate", ".synced"
"""What ``wandb sync`` puts beside a file when it begins with it, and when all of it was sent."""


class UnknownFormat(Exception):
    """A file is not of the format known here."""


def records(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield the records of a ``.wandb`` file, each with the place where it ends; stops where the file is torn.

    Raises:
        UnknownFormat: it is of another format.
    """
    from wandb.proto.wandb_internal_pb2 import Record

    content = path.read_bytes()
    if content[: len(FILE_HEADER)] != FILE_HEADER[: len(content)]:
        raise UnknownFormat(path)
    place, parts = len(FILE_HEADER), b""
    while True:
        left = BLOCK - place % BLOCK
        if left < PART.size:
            place += left  # too little for a part: filled up with zeros
        if place + PART.size > len(content):
            return
        check, size, kind = PART.unpack_from(content, place)
        part = content[place + PART.size : place + PART.size + size]
        if len(part) < size or check != zlib.crc32(part, zlib.crc32(bytes([kind]))):
            return
        place += PART.size + size
        parts = part if kind in (WHOLE, FIRST) else parts + part
        if kind in (WHOLE, LAST):
            yield place, Record.FromString(parts)


def files_of(folder: Path, run_id: str) -> list[Path]:
    """The ``.wandb`` files of a run in its folder ``wandb``, oldest start first."""
    return sorted(
        folder.glob(f"*run-*-{run_id}/run-{run_id}.wandb"), key=lambda path: path.parent.name.split("run-")[1]
    )


def mend(folder: Path, run_id: str) -> int:
    """Cut torn ends off a run's earlier files, and take away files without anything in them.

    Nobody may write them any more.

    Args:
        folder: the folder ``wandb`` in the run directory.
        run_id: the run's id.

    Returns:
        The last step that is in them; 0 for none.

    Raises:
        UnknownFormat: a file is of a format not known here; nothing of it was changed.
        OSError: a file cannot be read or written.
    """
    return next((step for path in reversed(files_of(folder, run_id)) if (step := mend_file(path))), 0)


def mend_file(path: Path) -> int:
    """Cut a torn end off a file, or take its folder away where nothing is in it; nobody may write it any more.

    Args:
        path: a ``.wandb`` file in a folder of its own.

    Returns:
        The last step that is in it; 0 for none.

    Raises:
        UnknownFormat: it is of a format not known here, and was not changed.
        OSError: it cannot be read or written.
    """
    end, step, started = 0, 0, False
    for place, record in records(path):
        end, kind = place, record.WhichOneof("record_type")
        started = started or kind == "run"
        if kind == "history":
            step = record.history.step.num
    if not started:
        # `wandb sync` would refuse it, and every later folder of the run with it.
        shutil.rmtree(path.parent)
    elif end < path.stat().st_size:
        os.truncate(path, end)
        if begun(path):
            # `wandb sync` has sent it up to there and not counted it as sent: it would send it all once more.
            path.with_name(path.name + SENT).touch()
    return step


def sent(path: Path) -> bool:
    """Whether ``wandb sync`` has sent all of a file."""
    return path.with_name(path.name + SENT).exists()


def begun(path: Path) -> bool:
    """Whether ``wandb sync`` has begun with a file: once more, it would send what it has sent again."""
    return path.with_name(path.name + BEGUN).exists()
