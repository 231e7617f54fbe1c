"""Where a result comes from: the commit of this code, whether it was changed since, and the packages' versions.

Knows nothing about results. Outside a repository, or without git, it says so and does not fail.
"""

import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("instructedit", "torch", "transformers", "datasets", "safetensors", "lightning")
"""The packages whose versions can change a number."""

WRITTEN = ":(top,exclude)results/study"
"""What `instructedit reproduce` itself writes: a report that is made again is no change of the code."""


@dataclass(frozen=True)
class Revision:
    """A state of the code.

    Args:
        commit: 40 hex digits; empty where the code is in no repository.
        dirty: whether a tracked file differs from the commit, results of studies apart.
    """

    commit: str = ""
    dirty: bool = False


def revision(module_file: str | Path = __file__) -> Revision:
    """Return the commit a file of the code is tracked in.

    A package that is installed inside somebody else's repository is not part of it: the file itself
    must be tracked.
    """
    file = Path(module_file).resolve()
    if _git(file.parent, "ls-files", "--error-unmatch", file.name) is None:
        return Revision()
    commit = _git(file.parent, "rev-parse", "HEAD")
    if commit is None:  # a repository without a commit
        return Revision()
    changed = _git(file.parent, "status", "--porcelain", "--untracked-files=no", "--", ":/", WRITTEN)
    return Revision(commit, bool(changed))


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that can change a number, where they are installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git(folder: Path, *arguments: str) -> str | None:
    """Run git in a folder and return what it prints; None where it fails or is not installed."""
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
