"""The Hugging Face Hub: an editor by its id, and what the Hub answers in one line.

Tokens are huggingface-hub's own business, from the environment or its login; none is read or shown here. What is
fetched is data: safetensors, JSON and text.
"""

from pathlib import Path

from instructedit.checkpoints import CARD, WEIGHTS
from instructedit.errors import InputError

EDITOR_FILES = (WEIGHTS, CARD, "README.md")
"""What is fetched of an editor; a README may be missing."""


MOST_SIGNS = 400
"""So much of a message of huggingface-hub is shown: some hold a whole page."""


def editor_folder(name: str, revision: str | None = None) -> Path:
    """Fetch an editor from the Hub, into its cache; a second call fetches what has changed.

    Args:
        name: the id on the Hub, ``"OWNER/NAME"``.
        revision: a branch, tag or commit there; None for the newest of the main branch.

    Returns:
        The folder, for ``load_editor`` or ``HyperMethod.load``.

    Raises:
        InputError: there is no such repository or revision, the Hub cannot be reached, or it is no editor.
    """
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=list(EDITOR_FILES)))
    except hub_errors() as error:
        raise refusal(error, f"editor {name!r}", "fetch") from error
    missing = [file for file in (WEIGHTS, CARD) if not (folder / file).is_file()]
    if missing:
        raise InputError(
            f"{name!r} on the Hub is no editor: it has no {' and no '.join(missing)}. Name a repository that "
            "`instructedit push` made of an editor folder."
        )
    return folder


def hub_errors() -> tuple[type[Exception], ...]:
    """What huggingface-hub raises: errors of the connection, of files and names, of its uploader."""
    from huggingface_hub.errors import HTTPError

    return (HTTPError, OSError, ValueError, RuntimeError)


def refusal(error: Exception, what: str, verb: str) -> InputError:
    """Turn an error of huggingface-hub into one line.

    Args:
        error: what it raised.
        what: what was asked for, such as ``"editor 'me/mine'"``.
        verb: what was to be done with it: fetch, push.
    """
    from huggingface_hub.errors import (
        BadRequestError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        LocalTokenNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    start = f"Cannot {verb} {what}"
    if isinstance(error, HFValidationError):
        return InputError(f"{start}: that is no name of a Hub repository ({folded(error)}). Write OWNER/NAME.")
    if isinstance(error, LocalTokenNotFoundError):
        return no_token()
    if isinstance(error, GatedRepoError):
        return InputError(f"{start}: it is gated. Ask for access on its page, then log in with `hf auth login`.")
    if isinstance(error, RevisionNotFoundError):
        return InputError(f"{start}: the Hub has no such revision of it. Name a branch, tag or commit it has.")
    if isinstance(error, RepositoryNotFoundError):
        return InputError(
            f"{start}: the Hub knows no such repository, or it is private and your token (HF_TOKEN, or "
            "`hf auth login`) may not see it. Correct the name or log in."
        )
    if isinstance(error, LocalEntryNotFoundError):
        return InputError(f"{start}: it is not in the Hub's cache here, and the Hub cannot be reached. Go online once.")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, HfHubHTTPError) and status in (401, 403):
        why = "the token is not valid" if status == 401 else "the token may not do this"
        return InputError(
            f"{start}: the Hub refuses it ({status}: {why}). Make a token that may write there, and set HF_TOKEN or "
            "use `hf auth login`."
        )
    if isinstance(error, BadRequestError | HfHubHTTPError):
        server = getattr(error, "server_message", None)
        said = " ".join(str(server).split()) if server else folded(error)
        return InputError(f"{start}: the Hub answers {status}: {said}")
    return InputError(f"{start}: {type(error).__name__}: {folded(error)}")


def no_token() -> InputError:
    """Build the error for a Hub nobody has logged into."""
    return InputError(
        "There is no token for the Hub. Log in with `hf auth login`, or set HF_TOKEN to a token that may write; "
        "--dry-run needs none."
    )


def folded(error: BaseException) -> str:
    """An error's message in one line, not too long; its name where it has none."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= MOST_SIGNS else text[:MOST_SIGNS] + "..."
