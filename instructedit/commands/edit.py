"""The command ``edit``: requests in, what the base says before and after, and the edit as a file.

Knows flags and what is told. How an edit is made, joined and reported on, `instructedit.editing` knows.
"""

import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from instructedit.cli import switched_on, underscored
from instructedit.commands.parser import command_parser
from instructedit.editing.flags import Asked, check_numbers, check_out, check_together, check_ways
from instructedit.editing.requests import read_requests, read_slots
from instructedit.errors import InputError
from instructedit.records import EditRequest, Probe
from instructedit.repeated import gathered
from instructedit.terminal import quoted, shown

if TYPE_CHECKING:
    from rich.console import Console

    from instructedit.editing.edit import Edit
    from instructedit.editing.editor import Editor
    from instructedit.editing.report import Report

SEVERAL = ("--rephrase", "--keep", "--slot", "--merge")
"""Flags that may be repeated, or be given several values."""

ABOUT = """Edit a base with a trained editor: what it says before and after, and the edit as a file.

  instructedit edit --editor runs/demo/editor --prompt "The capital of Spain is" --target Vienna --out edit.safetensors
  instructedit edit --editor runs/demo/editor --file requests.jsonl --how sequence --out edits.safetensors
  instructedit edit --editor runs/demo/editor --interactive
  instructedit edit --merge a.safetensors b.safetensors --out both.safetensors

The base stays as it is. --rephrase, --keep, --slot and --merge take several values, and may be repeated."""


def edit(argv: Sequence[str]) -> None:
    """Edit what the flags say.

    Args:
        argv: see ``instructedit edit --help``.

    Raises:
        InputError: a flag, a request, the editor, the base or the file to write is refused.
    """
    parser = command_parser(
        "edit",
        "instructedit edit --editor EDITOR (--prompt TEXT --target TEXT | --file FILE | --interactive) [flags]",
        ABOUT,
        "See docs/use.md.",
    )
    parser.add_function_arguments(_edit, as_group=False)
    flags = gathered(switched_on(_edit, underscored(argv)), SEVERAL, more_values=True)
    _edit(**parser.parse_args(flags).as_dict())


def _edit(
    editor: str = "",
    prompt: str = "",
    target: str = "",
    rephrase: list[str] = [],  # noqa: B006 - never changed; shown in --help
    keep: list[str] = [],  # noqa: B006
    instruction: str = "",
    task: str = "",
    slot: list[str] = [],  # noqa: B006
    file: str = "",
    how: Literal["together", "alone", "sequence"] = "together",
    after: str = "",
    merge: list[str] = [],  # noqa: B006
    out: str = "",
    max_drift: float | None = None,
    base: str = "",
    dtype: Literal["auto", "float32", "bfloat16"] = "auto",
    device: Literal["auto", "cpu", "cuda"] = "auto",
    revision: str = "",
    answer_tokens: int = 8,
    interactive: bool = False,
    json: bool = False,
) -> None:
    """Edit.

    Args:
        editor: the folder of a trained editor, such as runs/demo/editor, or its id on the Hub.
        prompt: the question, or the start of the sentence, whose answer is to change.
        target: the answer to edit in.
        rephrase: other ways to ask it; they are asked before and after, not edited in.
        keep: prompts whose answers must stay; without any, a few built-in questions are asked.
        instruction: the kind of edit in your own words, for an editor that takes instructions; else one of the task's.
        task: the task whose instructions are used; else the first of the editor's that fits any fact.
        slot: a value for a placeholder of the task's instructions, as NAME=VALUE.
        file: many requests, one JSON object a line: prompt, target and, where wanted, rephrases, locality,
            portability, task, instruction; see docs/use.md.
        how: requests of a file together in one edit; alone, each in an edit of its own; or in a sequence, each on the
            base as the earlier ones left it.
        after: a saved edit to go on from; what is saved then holds both.
        merge: saved edits to join into one; no editor is needed.
        out: the file to save the edit in; with --how alone a folder, a file for each request.
        max_drift: refuse an edit that moves the answers to be kept further than this, in nats of KL(base || edited).
        base: the base, where it is not found under the name that the editor's card has.
        dtype: the base's dtype; auto takes the one the editor was trained on.
        device: where the base is; auto takes a GPU where there is one.
        revision: a commit, branch or tag of an editor on the Hub.
        answer_tokens: the length of the answers to --keep.
        interactive: prompt after prompt, from the terminal or a pipe; keep, undo or save each edit.
        json: print one JSON object instead of tables.
    """
    asked = Asked(prompt, target, tuple(rephrase), instruction, task, read_slots(slot))
    given = {"--prompt": asked.given, "--file": file, "--interactive": interactive, "--merge": merge}
    check_ways(given, asked, editor)
    check_together(len(merge), editor, file, how, after, interactive, json)
    check_numbers(answer_tokens, max_drift)
    if out:
        check_out(Path(out), folder=how == "alone")
    wanted = [] if interactive or merge else read_requests(Path(file), task) if file else [asked.wanted()]
    if wanted and instruction:
        wanted = [each if each.description else replace(each, description=instruction) for each in wanted]
    place = _Place(base, dtype, device, revision)
    said = _Said(json)
    if merge:
        joined, *others = [each for each in place.edits(merge, said)]
        whole = joined.merge(*others)
        _conclude(said, [(whole, whole.report(keep=keep, answer_tokens=answer_tokens))], how, out, max_drift)
        return
    loaded = place.editor(editor, said)
    if interactive:
        _interact(loaded, asked, tuple(keep), max_drift, out, answer_tokens, said)
        return
    before = place.saved(after, loaded) if after else None
    with said.waiting(f"Editing {len(wanted)} requests" if len(wanted) > 1 else "Editing"):
        requests = [loaded.instructed(each.example.request, each.description) for each in wanted]
        probes = [list(each.example.probes) for each in wanted]
        made: list[tuple[Edit, Report]] = []
        if how == "alone":
            for one, own in zip(loaded.edit(requests).alone(), probes, strict=True):
                made.append((one, one.report(keep=keep, probes=[own], answer_tokens=answer_tokens)))
        else:
            whole = loaded.edit(requests, how, before)
            earlier: list[list[Probe]] = [[] for _ in (before.requests if before else ())]
            report = whole.report(keep=keep, probes=[*earlier, *probes], answer_tokens=answer_tokens)
            made.append((whole, report))
    _conclude(said, made, how, out, max_drift)


@dataclass(frozen=True)
class _Place:
    """Where the base comes from and goes."""

    base: str
    dtype: str
    device: str
    revision: str

    def _device(self) -> str:
        import torch

        if self.device == "cuda" and not torch.cuda.is_available():
            raise InputError("--device cuda: there is no GPU here. Choose cpu or auto.")
        return self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"

    def editor(self, name: str, said: "_Said") -> "Editor":
        from instructedit.editing.editor import Editor, editor_folder

        folder = editor_folder(name, self.revision or None)
        with said.waiting("Loading"):
            import torch

            dtype = None if self.dtype == "auto" else getattr(torch, self.dtype)
            found = Editor.load(folder, self.base or None, dtype=dtype, device=self._device())
        if found.limits is None:
            from instructedit.editing.limits import UNKNOWN

            print(f"note: {UNKNOWN}", file=sys.stderr)
        return found

    def saved(self, path: str, editor: "Editor") -> "Edit":
        from instructedit.editing.edit import Edit

        return Edit.load(path, editor.base)

    def edits(self, paths: Sequence[str], said: "_Said") -> "list[Edit]":
        from instructedit.editing.edit import Edit

        with said.waiting("Loading"):
            first = Edit.load(paths[0], self.base or None, self._device())
            return [first, *(Edit.load(path, first.base) for path in paths[1:])]


class _Said:
    """What is told, and where: tables on stdout, or JSON there and words on stderr."""

    def __init__(self, json: bool) -> None:
        from rich.console import Console

        self.json = json
        console = Console()
        # A pipe has no width of its own.
        self.console: Console = console if console.is_terminal else Console(width=120)
        self._side = Console(stderr=True)

    def waiting(self, what: str) -> AbstractContextManager[Any]:
        """Say on a terminal that something takes a moment."""
        return self._side.status(f"{what} ...") if self._side.is_terminal else nullcontext()


def _conclude(said: _Said, made: "Sequence[tuple[Edit, Report]]", how: str, out: str, max_drift: float | None) -> None:
    """Tell what the edits did, refuse or save them, and say what to do next."""
    from instructedit.editing.report import joined
    from instructedit.editing.shown import show

    if not said.json:
        show(joined([report for _, report in made]), said.console, title=_title(made))
    if max_drift is not None:
        for _, report in made:
            report.check(max_drift)
    files = _files(out, how, len(made))
    for path, (edit, _) in zip(files, made, strict=False):
        edit.save(path)
    if said.json:
        from json import dumps

        print(
            dumps(
                {
                    "how": how,
                    "edits": [
                        {**edit.about(), "file": str(files[n]) if files else None, "report": report.as_object()}
                        for n, (edit, report) in enumerate(made)
                    ],
                },
                ensure_ascii=False,
            )
        )
    else:
        _tell_next(said.console, files, out)


def _title(made: "Sequence[tuple[Edit, Report]]") -> str:
    """Say who edited, and with which task's instructions."""
    tasks = dict.fromkeys(request.task for edit, _ in made for request in edit.requests if request.instruction)
    with_task = f", task {', '.join(map(shown, tasks))}" if tasks else ""
    return f"Edited by {shown(made[0][0].editor.get('method', 'an editor'))}{with_task}"


def _files(out: str, how: str, n: int) -> list[Path]:
    if not out:
        return []
    if how != "alone":
        return [Path(out)]
    return [Path(out) / f"{number:0{max(3, len(str(n)))}}.safetensors" for number in range(1, n + 1)]


def _tell_next(console: "Console", files: Sequence[Path], out: str) -> None:
    def tell(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    if not files:
        tell("Not saved: --out FILE saves the edit.")
        return
    tell(f"saved   {quoted(files[0])}" if len(files) == 1 else f"saved   {len(files)} edits in {quoted(out)}")
    tell(f"export  instructedit export --edit {quoted(files[0])} --as lora --out DIR    (or: --as model, --as delta)")


def _interact(
    editor: "Editor",
    asked: Asked,
    keep: tuple[str, ...],
    max_drift: float | None,
    out: str,
    answer_tokens: int,
    said: _Said,
) -> None:
    from instructedit.editing.session import Session

    def request(prompt: str, target: str) -> tuple[EditRequest, str]:
        return asked.request(prompt, target), asked.instruction

    session = Session(editor, said.console, _reader(), request, keep, max_drift, out, answer_tokens)
    session.run()
    if session.saved:
        console = said.console
        console.print(
            f"export  instructedit export --edit {quoted(session.file)} --as lora --out DIR",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )


def _reader() -> Callable[[str], str | None]:
    """Return what reads the next line; from a pipe, lines are shown as if they had been typed."""

    def read(told: str) -> str | None:
        try:
            line = input(told)
        except EOFError:
            print()
            return None
        except UnicodeDecodeError as error:
            raise InputError("The input is not UTF-8 text. Give it as UTF-8.") from error
        if not sys.stdin.isatty():
            print(line)
        return line

    return read
