"""Preflight: the free space where runs are to lie, shared by all runs that are looked at together."""

import os
import subprocess
import tempfile
from pathlib import Path

GIB = 2**30
SECONDS = 10.0
"""How long the site's own command may take."""


class Room:
    """What is free, and what of it the runs looked at before will need.

    Args:
        command: a shell command of the site that prints the free space in GiB, where there are quotas; None for the
            file system's own word.
        dry: whether nothing may be written or started: no try at writing, and the command is not asked.
    """

    def __init__(self, command: str | None = None, dry: bool = False) -> None:
        self.command = command
        self.dry = dry
        self._taken: dict[int | None, int] = {}
        self._asked: dict[Path, tuple[int, str, str]] = {}

    def free(self, run: Path) -> tuple[int, str, str]:
        """Free bytes for a run, where that is, and what went wrong in asking."""
        there = existing(run)
        if there not in self._asked:
            self._asked[there] = self._ask(there)
        return self._asked[there]

    def taken(self, folder: Path) -> int:
        """Bytes that the runs looked at before will need in the same place."""
        return self._taken.get(self._place(folder), 0)

    def take(self, folder: Path, n_bytes: int) -> None:
        """Count what a run will need."""
        self._taken[self._place(folder)] = self.taken(folder) + n_bytes

    def same(self, folder: Path, other: Path) -> bool:
        """Whether two folders share their free space."""
        return self._place(folder) == self._place(other)

    def unwritable(self, folder: Path) -> str:
        """Try to write in a folder, or to make it; tell what the system says, empty where it works. Nothing stays."""
        there = existing(folder)
        try:
            if not there.is_dir():
                return f"{there} is a file"
            if self.dry:
                return "" if os.access(there, os.W_OK | os.X_OK) else f"{there}: Permission denied"
            with tempfile.NamedTemporaryFile(dir=there, prefix=".preflight-") as file:
                file.write(b"x")
                file.flush()
        except OSError as error:
            return f"{there}: {error.strerror}"
        return ""

    def _place(self, folder: Path) -> int | None:
        """One quota for all, or a file system's number."""
        return None if self.command is not None else existing(folder).stat().st_dev

    def _ask(self, there: Path) -> tuple[int, str, str]:
        if self.command is None:
            return statvfs(there), f"in {there}", ""
        if self.dry:
            told = "The profile's free_space_command was not asked: a dry run starts nothing."
            return statvfs(there), f"in {there}", told
        try:
            # The site's own line, out of its profile.
            done = subprocess.run(self.command, shell=True, cwd=there, capture_output=True, text=True, timeout=SECONDS)
            free = float(done.stdout.split()[0])
            if done.returncode or not free >= 0:
                raise ValueError
            return int(free * GIB), "by the profile's free_space_command", ""
        except (OSError, ValueError, IndexError, subprocess.TimeoutExpired) as error:
            late = isinstance(error, subprocess.TimeoutExpired)
            what = f"did not answer in {SECONDS:.0f} s" if late else "printed no number of GiB"
            fault = f"free_space_command of the profile {what}, so that a quota is not known. Correct it."
            return statvfs(there), f"in {there}", fault


def statvfs(folder: Path) -> int:
    """Free bytes of a folder's file system, for those who are not its administrator."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def existing(path: Path) -> Path:
    """The nearest of a path and its parents that exists."""
    path = path.absolute()
    return next(parent for parent in (path, *path.parents) if parent.exists())
