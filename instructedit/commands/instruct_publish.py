"""What ``instruct --publish`` does: all pools, with what was measured of them, shown or sent as one data set."""

from pathlib import Path

from instructedit.errors import InputError
from instructedit.terminal import quoted


def publish_pools(
    instructions: str, card: str, runs: list[str], repo: str, private: bool, dry_run: bool, out: str
) -> None:
    """Collect the data set; show it or send it, and with --out write it into a folder."""
    from instructedit.commands.push import plan_lines
    from instructedit.export.upload import send
    from instructedit.instructions.cards import load_cards
    from instructedit.instructions.pools import load_pools
    from instructedit.instructions.publish import data_set, rows_of
    from instructedit.terminal import shown

    if repo.startswith("OWNER/") and not dry_run:
        raise InputError("--repo is missing. Say which data set to send to: --repo OWNER/NAME.")
    planned = data_set(rows_of(load_pools(instructions), load_cards(card), [Path(run) for run in runs]), repo, private)
    for note in planned.notes:
        print(f"note: {shown(note)}")
    if out:
        try:
            Path(out).mkdir(parents=True, exist_ok=True)
            for file in planned.files:
                assert isinstance(file.source, bytes)
                (Path(out) / file.name).write_bytes(file.source)
        except OSError as error:
            raise InputError(f"Cannot write to --out {out}: {error.strerror}. Choose another folder.") from error
        print(f"written {quoted(out)}")
    if dry_run:
        print("\n".join(plan_lines(planned)))
        return
    print(f"{len(planned.files)} files: {shown(send(planned))}")
