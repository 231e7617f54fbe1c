"""What of a folder goes to the Hub, and sending it: only files of its kind, all in one commit.

Knows the kinds of folders that InstructEdit writes; a folder's other files are never sent.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from instructedit.base.checkpoint_files import CONFIG, TOKENIZER, WEIGHTS, is_path, weight_files
from instructedit.checkpoints import CARD, read_card, weights_hash
from instructedit.checkpoints import WEIGHTS as EDITOR_WEIGHTS
from instructedit.errors import InputError
from instructedit.export.card import CARD_FILE
from instructedit.export.delta import DELTA
from instructedit.export.editor_card import editor_card
from instructedit.export.lora import ADAPTER, ADAPTER_CONFIG
from instructedit.export.origin import UNKNOWN, check_repo, origin_of
from instructedit.hub import hub_errors, no_token, refusal
from instructedit.terminal import quoted

KINDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "editor": ((EDITOR_WEIGHTS, CARD), (EDITOR_WEIGHTS, CARD)),
    "adapter": ((ADAPTER, ADAPTER_CONFIG), (ADAPTER, ADAPTER_CONFIG)),
    "delta": ((DELTA,), (DELTA,)),
    "model": ((CONFIG,), (*TOKENIZER, *WEIGHTS, "generation_config.json", "chat_template*")),
}
"""Kind -> the files a folder of it has, and those that are sent of it besides card and licence."""

ALWAYS = (CARD_FILE, "LICENSE*")


@dataclass(frozen=True)
class Upload:
    """One file to send.

    Args:
        name: its name in the repository.
        source: where it lies; or what is in it, for a card that is made for the occasion.
        size: bytes.
        sha256: 64 hex digits.
    """

    name: str
    source: Path | bytes
    size: int
    sha256: str


@dataclass(frozen=True)
class Plan:
    """Everything that would be sent.

    Args:
        kind: a key of ``KINDS``; or ``instructions``, a data set, whose files no folder holds.
        repo: the repository's name.
        private: whether only its owner is to see it.
        files: what is sent.
        left_out: names of the folder's other files.
        card: the text of README.md.
        notes: what its owner should know before, a sentence each.
    """

    kind: str
    repo: str
    private: bool
    files: tuple[Upload, ...]
    left_out: tuple[str, ...]
    card: str
    notes: tuple[str, ...]

    @property
    def repo_type(self) -> str:
        """What the Hub is to make of it: a model, or a data set."""
        return "dataset" if self.kind == "instructions" else "model"


def plan(
    folder: Path, repo: str, private: bool = False, licence: str | None = None, hub_base: str | None = None
) -> Plan:
    """Find out what of a folder would be sent; asks nothing of the network.

    Args:
        folder: an editor's folder, or one that ``export`` has written.
        repo: the repository, ``OWNER/NAME``, or ``NAME`` for one of your own.
        private: whether only its owner is to see it.
        licence: for the card of an editor that has none yet.
        hub_base: the id of an editor's base, for its card, where that was a folder.

    Raises:
        InputError: the folder is none of these, is damaged, or the name is none.
    """
    check_repo(repo, "--repo")
    kind = kind_of(folder)
    patterns = (*KINDS[kind][1], *ALWAYS)
    found = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    sent = [path for path in found if path.is_file() and any(fnmatch(path.name, pattern) for pattern in patterns)]
    try:
        files = [_of_file(path) for path in sent]
        card, made = _card(folder, kind, files, licence, hub_base)
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read {folder}: {error}. Mend it, or write it again.") from error
    if made:
        content = card.encode(errors="backslashreplace")
        files.append(Upload(CARD_FILE, content, len(content), hashlib.sha256(content).hexdigest()))
    left_out = tuple(path.name + "/" * path.is_dir() for path in found if path not in sent)
    return Plan(kind, repo, private, tuple(files), left_out, card, tuple(_notes(folder, kind, card)))


def send(planned: Plan) -> str:
    """Make the repository where it is not there, and send everything in one commit.

    Returns:
        The repository's page.

    Raises:
        InputError: there is no token, or the Hub refuses; a public repository that was to be private gets nothing.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token

    if get_token() is None:
        raise no_token()
    api, kind = HfApi(library_name="instructedit"), planned.repo_type
    try:
        made = api.create_repo(planned.repo, private=planned.private, exist_ok=True, repo_type=kind)
        if planned.private and not api.repo_info(made.repo_id, repo_type=kind).private:
            raise InputError(
                f"{made.repo_id!r} is on the Hub already and is public; nothing was sent. Make it private there, or "
                "choose another --repo."
            )
        operations = [CommitOperationAdd(file.name, file.source) for file in planned.files]
        told = f"{planned.kind.capitalize()} from InstructEdit"
        api.create_commit(made.repo_id, operations, commit_message=told, repo_type=kind)
    except InputError:
        raise
    except hub_errors() as error:
        raise refusal(error, f"to {planned.repo!r}", "push") from error
    return str(made)


def kind_of(folder: Path) -> str:
    """Tell what a folder is.

    Raises:
        InputError: it is not there, or nothing that can be pushed.
    """
    if folder.is_file():
        raise InputError(
            f"{folder} is a file, and a folder is pushed. Of an edit, write one first: "
            f"instructedit export --edit {quoted(folder)} --as lora --out FOLDER"
        )
    if not folder.is_dir():
        raise InputError(
            f"There is no folder {folder}. Name an editor's folder, or one that `instructedit export` wrote."
        )
    for kind, (needed, _) in KINDS.items():
        if all((folder / name).is_file() for name in needed):
            return kind
    inside = folder / "editor"
    more = f" Its editor is in {inside}: push that." if (inside / CARD).is_file() else ""
    raise InputError(
        f"{folder} is no editor, adapter, model or delta: it has neither {CARD} and {EDITOR_WEIGHTS}, nor "
        f"{ADAPTER_CONFIG}, {CONFIG} or {DELTA}.{more}"
    )


def _of_file(path: Path) -> Upload:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Upload(path.name, path, path.stat().st_size, digest)


def _card(folder: Path, kind: str, files: list[Upload], licence: str | None, hub_base: str | None) -> tuple[str, bool]:
    """Return the card, and whether it was made now; what a folder holds is checked on the way."""
    readme = folder / CARD_FILE
    if kind == "editor":
        card = read_card(folder)
        (weights,) = (file.sha256 for file in files if file.name == EDITOR_WEIGHTS)
        if weights_hash(folder) != weights:
            raise InputError(
                f"{folder / EDITOR_WEIGHTS} is not the file its {CARD} describes. Export the editor again."
            )
        if not readme.is_file():
            origin = origin_of(card.base, hub_base, here=False)
            return editor_card(card, origin, licence or UNKNOWN, weights), True
    if kind == "model":
        weight_files(str(folder), folder)
    if not readme.is_file():
        raise InputError(f"{folder} has no {CARD_FILE}, which a repository's page is. Export the edit again.")
    return readme.read_text(encoding="utf-8"), False


def _notes(folder: Path, kind: str, card: str) -> Iterator[str]:
    """What the owner should know before."""
    if "\nlicense: unknown\n" in card:
        advice = "say it with --license" if kind == "editor" else f"write it into {CARD_FILE}, or export with --license"
        yield f"The card's licence is unknown: {advice}."
    base = None
    if kind == "editor":
        base, file = read_card(folder).base, CARD
    elif kind == "adapter":
        file = ADAPTER_CONFIG
        try:
            base = json.loads((folder / file).read_text(encoding="utf-8")).get("base_model_name_or_path")
        except (ValueError, AttributeError) as error:
            raise InputError(f"{folder / file} is malformed: {error}. Export the edit again.") from error
    if isinstance(base, str) and (is_path(base) or Path(base).is_dir()):
        yield f"{file} names the base by a path of this machine, {base!r}, which everybody will read."
