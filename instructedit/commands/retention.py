"""The command ``retention``: N edits in one base, what is left of them and what they cost, as a table and a picture.

Knows flags and what is told. What is measured, `instructedit.editing.retention` knows; the files, `editing.curve` does.
"""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from instructedit.cli import underscored
from instructedit.commands.parser import command_parser
from instructedit.errors import InputError
from instructedit.provenance import revision, versions
from instructedit.repeated import gathered
from instructedit.terminal import quoted

if TYPE_CHECKING:
    from instructedit.editing.editor import Editor
    from instructedit.editing.retention import Chosen, Point
    from instructedit.records import EditExample, EditRequest

SEVERAL = ("--counts", "--how")
"""Flags that take several values."""

ABOUT = """Edit N requests into one base, for growing N: how many are still answered, how far unrelated answers move.

  instructedit retention --editor runs/X/editor --data data/prepared --task counterfact --out results/retention
  instructedit retention --editor runs/X/editor --data requests.jsonl --counts 1 5 20 --how sequence --out curve

Writes a table, a line for each question and a picture. --counts and --how take several values."""


def retention(argv: Sequence[str]) -> None:
    """Measure the curve that the flags ask for.

    Args:
        argv: see ``instructedit retention --help``.

    Raises:
        InputError: a flag, the records, the editor or the folder to write is refused.
    """
    parser = command_parser(
        "retention",
        "instructedit retention --editor EDITOR --data FOLDER_OR_FILE --out FOLDER [flags]",
        ABOUT,
        "See docs/use.md.",
    )
    parser.add_function_arguments(_retention, as_group=False)
    _retention(**parser.parse_args(_with_lists(underscored(argv))).as_dict())


def _with_lists(argv: Sequence[str]) -> list[str]:
    """Write the values of a flag that takes several as one list.

    >>> _with_lists(["--counts", "1", "10"]), _with_lists(["--counts=1,10"]), _with_lists(["--counts=[1, 10]"])
    (['--counts=[1,10]'], ['--counts=[1,10]'], ['--counts=[1,10]'])
    """
    found = []
    for flag in gathered(argv, SEVERAL, more_values=True):
        name, _, value = flag.partition("=")
        if name in SEVERAL:
            words = ",".join(json.loads(value)).translate(str.maketrans("[]", "  ")).split(",")
            flag = f"{name}=[{','.join(word.strip() for word in words)}]"
        found.append(flag)
    return found


def _retention(
    editor: str = "",
    data: str = "",
    task: str = "",
    counts: list[int] = [1, 10, 50, 100],  # noqa: B006 - never changed; shown in --help
    how: list[Literal["together", "sequence"]] = ["together", "sequence"],  # noqa: B006
    unrelated: int = 100,
    max_probes: int = 2,
    seed: int = 0,
    out: str = "",
    base: str = "",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    revision: str = "",
) -> None:
    """Measure the curve.

    Args:
        editor: the folder of a trained editor, such as runs/demo/editor, or its id on the Hub.
        data: a folder of prepared tasks, whose test records are used, or a file of requests with locality probes, as
            for `instructedit edit --file`.
        task: which of the prepared tasks; of a file, the task of lines that name none.
        counts: the numbers of edits in one base. The first N of one list are edited in, for each N.
        how: all at once, each made on the base as it is; or one after another, each on the base as the others left it.
        unrelated: so many records that are not edited in are asked their locality probes, the same ones for every N.
        max_probes: the most locality probes of one record.
        seed: another one chooses other records.
        out: the folder to write.
        base: the base, where it is not found under the name that the editor's card has.
        dtype: the base's dtype; auto takes the one the editor was trained on.
        device: where the base is; auto takes a GPU where there is one.
        revision: a commit, branch or tag of an editor on the Hub.
    """
    _check(editor, data, task, out, how)
    from instructedit.editing.retention import check_counts, choose

    rising = check_counts(counts)
    examples, described = _records(data, task)
    chosen = choose(examples, rising[-1], unrelated, max_probes, seed)
    loaded = _loaded(editor, base, dtype, device, revision)
    requests = [loaded.instructed(one.request, described.get(one.request.id, "")) for one in chosen.edited]
    start = time.perf_counter()
    points = _measured(loaded, requests, chosen, rising, how)
    settings = {"counts": rising, "how": how, "unrelated": unrelated, "max_probes": max_probes, "seed": seed}
    about = {**settings, "task": task, "records": len(examples), "seconds": round(time.perf_counter() - start, 1)}
    _write(Path(out), loaded, points, about)
    _tell(Path(out), editor, points)


def _check(editor: str, data: str, task: str, out: str, how: Sequence[str]) -> None:
    """Refuse what needs no weights to be refused."""
    from instructedit.analysis.plot import check_installed
    from instructedit.editing.flags import check_out

    if not editor:
        raise InputError("--editor is missing. Name the folder that `instructedit fit` made, such as runs/demo/editor.")
    if not data:
        raise InputError("--data is missing. Name a folder of prepared tasks (with --task), or a file of requests.")
    if not out:
        raise InputError("--out is missing. Name the folder for the table and the picture, such as results/retention.")
    if not how:
        raise InputError("--how is empty. Give together, sequence, or both.")
    if Path(data).is_dir() and not task:
        raise InputError("--task is missing. Say whose test records of --data are edited in, such as counterfact.")
    check_out(Path(out), folder=True)
    check_installed()


def _records(data: str, task: str) -> "tuple[list[EditExample], dict[str, str]]":
    """Return the records, and by id the instructions that a file's lines have in their own words."""
    if Path(data).is_dir():
        from instructedit.tasks.prepared import read_prepared

        return read_prepared(data, task, "test"), {}
    if not Path(data).is_file():
        raise InputError(f"No file or folder {data}. Give --data a folder of prepared tasks, or a file of requests.")
    from instructedit.editing.requests import read_requests

    wanted = read_requests(Path(data), task)
    return [one.example for one in wanted], {one.example.request.id: one.description for one in wanted}


def _loaded(editor: str, base: str, dtype: str, device: str, revision: str) -> "Editor":
    import torch

    from instructedit.editing.editor import Editor, editor_folder

    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: there is no GPU here. Choose cpu or auto.")
    where = device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    chosen = None if dtype == "auto" else getattr(torch, dtype)
    return Editor.load(editor_folder(editor, revision or None), base or None, dtype=chosen, device=where)


def _measured(
    editor: "Editor", requests: "Sequence[EditRequest]", chosen: "Chosen", counts: Sequence[int], how: Sequence[Any]
) -> "list[Point]":
    """Measure every point, with a bar of the edits made."""
    from instructedit.editing.curve import LABELS
    from instructedit.editing.retention import retention
    from instructedit.evaluation.progress import EditProgress

    # Together's edits are those that were made alone.
    total = counts[-1] * (1 + ("sequence" in how))
    with EditProgress(total) as progress:
        found = retention(
            editor,
            requests,
            chosen.unrelated,
            counts,
            ("alone", *dict.fromkeys(how)),
            on_edits=lambda way, n: progress.advance("editing", LABELS[way], n),
        )
        return list(found)


def _write(out: Path, editor: "Editor", points: "Sequence[Point]", about: dict[str, Any]) -> None:
    import torch

    from instructedit.editing.about import told_of_editor
    from instructedit.editing.curve import LINES, TABLE, draw, lines, table

    code = revision()
    card = editor.card
    told = {**told_of_editor(card, editor.weights_sha256), "dtype": str(editor.base.dtype)}
    run = {**about, "editor": told, "commit": code.commit, "dirty": code.dirty, "versions": versions()}
    run |= {"device": str(editor.base.device), "threads": torch.get_num_threads()}
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / TABLE).write_text(table(points), encoding="utf-8")
        (out / LINES).write_text("".join(f"{line}\n" for line in lines(points)), encoding="utf-8")
        (out / "run.json").write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
        task = f", {about['task']}" if about["task"] else ""
        unrelated = max(len(point.unrelated) for point in points)
        asked = f"{unrelated} unrelated records; bands are 95 % intervals"
        draw(points, out, f"{card.method} on {Path(card.base).name}{task} ({asked})")
    except OSError as error:
        raise InputError(f"Cannot write to --out {out} ({error}). Choose another folder.") from error


def _tell(out: Path, editor: str, points: "Sequence[Point]") -> None:
    from rich.console import Console
    from rich.table import Table

    from instructedit.editing.curve import LABELS, PICTURES, TABLE

    shown_table = Table(title="N edits in one base, with 95 % intervals", title_justify="left")
    shown_table.add_column("edits")
    for name in (
        "N",
        "answered, %",
        "in full, %",
        "first tenth, %",
        "unrelated same, %",
        "drift, nats",
    ):
        shown_table.add_column(name, justify="right")
    for point in points:
        found = point.estimates()
        cells = [_cell(found.get(name), 100, ".1f") for name in ("retention", "exact", "first_tenth", "unchanged")]
        shown_table.add_row(LABELS[point.how], str(point.n), *cells, _cell(found.get("kl"), 1, ".3g"))
    console = Console()
    console = console if console.is_terminal else Console(width=140)
    console.print(shown_table)

    def tell(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    tell(f"table   {quoted(out / TABLE)}")
    tell(f"picture {quoted(out / PICTURES[0])} and {PICTURES[1].rpartition('.')[2]}")
    tell(
        f"next    instructedit edit --editor {quoted(editor)} --file requests.jsonl --how together --out "
        "edits.safetensors    (as many requests as the curve says are kept)"
    )


def _cell(found: Any, scale: float, form: str) -> str:
    if found is None:
        return "-"
    middle, low, high = (format(scale * value, form) for value in (found.mean, found.low, found.high))
    return f"{middle} [{low}, {high}]" if found.n > 1 else middle
