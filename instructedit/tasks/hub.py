"""Fetching a data set's few needed files from the Hugging Face Hub.

Knows the Hub's data set repositories; the files' meaning it does not.
"""

from collections.abc import Iterable
from pathlib import Path

from instructedit.errors import InputError
from instructedit.tasks.base import SourceFile

DEFAULT_REPOSITORY = "zjunlp/KnowEdit"


def fetch(source: str, files: Iterable[tuple[SourceFile, ...]]) -> Path:
    """Download the files that exist in a data set repository into the Hub's cache.

    Args:
        source: ``"hub"`` or ``"hub:OWNER/NAME"``.
        files: the files wanted, under any of their names, at the top or in the folder ``benchmark``.

    Returns:
        The folder they lie in.

    Raises:
        InputError: the repository cannot be reached or does not exist.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    repository = source.removeprefix("hub").removeprefix(":") or DEFAULT_REPOSITORY
    try:
        folder = snapshot_download(repository, repo_type="dataset", allow_patterns=patterns(files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"The data set {repository} cannot be fetched from the Hub ({type(error).__name__}: {error}). "
            "Give a folder that has the files with --source."
        ) from error
    return Path(folder)


def patterns(files: Iterable[tuple[SourceFile, ...]]) -> list[str]:
    """Every path under which one of the files may lie, sorted."""
    candidates = {candidate for group in files for file in group for candidate in file.candidates}
    return sorted(prefix + candidate for candidate in candidates for prefix in ("", "benchmark/"))
