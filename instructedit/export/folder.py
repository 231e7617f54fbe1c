"""A folder that is made whole or not at all: written under a temporary name beside its place, then renamed.

Knows nothing about what is in it.
"""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from instructedit.errors import InputError


def check_free(out: Path) -> None:
    """Refuse a place that is taken, before any work is done.

    Raises:
        InputError: there is a file, or a folder that is not empty, or it cannot be looked at.
    """
    try:
        if out.is_dir():
            if any(out.iterdir()):
                raise InputError(f"The folder {out} is not empty, and nothing in it is replaced. Give another --out.")
        elif out.exists() or out.is_symlink():
            raise InputError(f"{out} is there and is no folder. Give another --out.")
    except OSError as error:
        raise InputError(f"Cannot look at {out}: {error.strerror}. Give another --out.") from error


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Yield a new folder that takes the place ``out`` when the block ends well, and is gone when it does not.

    Raises:
        InputError: the place is taken or cannot be written to, also where that shows inside the block only.
    """
    check_free(out)
    temporary: Path | None = None
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        yield temporary
        # mkdtemp makes folders that nobody else may read; what is exported is meant to be shared.
        temporary.chmod(0o755)
        for path in temporary.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        os.rename(temporary, out)  # over an empty folder too
    except (OSError, SafetensorError) as error:
        told = getattr(error, "strerror", None) or str(error)
        raise InputError(f"Cannot write to {out}: {told}. Give another --out, or make room.") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)
