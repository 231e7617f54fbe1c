"""The command ``push``: an editor, adapter, model or delta to the Hugging Face Hub.

Knows what is asked for and shown; what is sent, `instructedit.export.upload` knows.
"""

from collections.abc import Sequence
from pathlib import Path

from instructedit.errors import InputError
from instructedit.export.upload import Plan, plan, send
from instructedit.terminal import shown


def push(
    folder: Sequence[str] = (),
    repo: str = "",
    private: bool = False,
    dry_run: bool = False,
    license: str | None = None,
    hub_base: str | None = None,
) -> None:
    """Put a folder on the Hugging Face Hub, in one commit: an editor's, or one that `instructedit export` has written.

    Only files of its kind are sent. The token is huggingface-hub's own: HF_TOKEN, or `hf auth login`.

    Args:
        folder: the folder.
        repo: the repository, as OWNER/NAME; it is made where it is not there.
        private: only its owner is to see the repository.
        dry_run: show everything that would be sent, and send nothing; needs no network and no token.
        license: of an editor's weights, for its card, as the Hub spells it.
        hub_base: the Hub id of an editor's base, for its card, where it was trained on a base in a folder.
    """
    if len(folder) != 1:
        raise InputError(f"push takes one folder; found {len(folder)}. instructedit push FOLDER --repo OWNER/NAME")
    if not repo:
        raise InputError("No repository was given. Say which with --repo OWNER/NAME.")
    planned = plan(Path(folder[0]), repo, private, license, hub_base)
    for note in planned.notes:
        print(f"note: {shown(note)}")
    if dry_run:
        print("\n".join(plan_lines(planned)))
        return
    page = send(planned)
    print(f"{len(planned.files)} files, {told_size(sum(file.size for file in planned.files))}: {shown(page)}")
    if planned.kind == "editor":
        print(f"An editor by its name: instructedit edit --editor {planned.repo} --prompt TEXT --target TEXT")


def plan_lines(planned: Plan) -> list[str]:
    """Tell everything that would be sent."""
    width = max(len(shown(file.name)) for file in planned.files)
    seen = "private" if planned.private else "public"
    return [
        f"{planned.kind} to {planned.repo}, {seen} (a repository that is there already stays as it is)",
        "",
        *(f"  {shown(file.name):<{width}}  {told_size(file.size):>9}  sha256 {file.sha256}" for file in planned.files),
        "",
        *([f"Not sent: {', '.join(shown(name) for name in planned.left_out)}", ""] if planned.left_out else []),
        "README.md:",
        "",
        *(f"  {shown(line)}".rstrip() for line in planned.card.splitlines()),
        "",
        "Nothing was sent. The same command without --dry-run sends this.",
    ]


def told_size(size: float) -> str:
    """Bytes as people read them.

    >>> told_size(12), told_size(12_345), told_size(98_765_432)
    ('12 B', '12.3 kB', '98.8 MB')
    """
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
