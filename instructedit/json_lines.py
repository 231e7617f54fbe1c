"""Files of JSON objects, one a line, that a process killed at any moment leaves readable.

A line is added in one write and settled on disk; what a killed process left half written is told and can be dropped.
Knows nothing about what the lines say.
"""

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, cast


def read_lines(path: Path) -> tuple[list[dict[str, Any]], bool]:
    """Read the objects of a file; whether anything in it was no whole line of them comes second.

    A file that is not there has none.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], False
    *lines, torn = content.split(b"\n")
    found, damaged = [], bool(torn)
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if isinstance(row, dict):
            found.append(cast(dict[str, Any], row))
        else:
            damaged = True
    return found, damaged


def as_lines(rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Write objects as the bytes of their lines."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def add(path: Path, content: bytes) -> None:
    """Append bytes in one write, on disk when this returns."""
    if content:
        with path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)
