"""The interactive session: a prompt and a target, the table, and the edit is kept, undone or saved; again and again.

Knows lines of text and editors. Each edit is made on the base as the kept ones leave it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from instructedit.editing.edit import Edit
from instructedit.editing.editor import Editor
from instructedit.editing.report import Report
from instructedit.editing.shown import show
from instructedit.errors import InputError
from instructedit.records import EditRequest
from instructedit.terminal import quoted, shown

HELP = """\
Give a prompt and, when asked, the target to edit in. Then: k keeps the edit, u undoes it, s keeps it and saves all.
  :ask PROMPT    what the base and the edited base say
  :list          the edits that are kept
  :undo          undo the last one that was kept
  :save FILE     save all that are kept
  :quit          end (also the end of the input)"""


@dataclass
class Session:
    """One interactive session.

    Args:
        editor: the editor.
        console: where tables and words go.
        read: shows a text, returns the line given, and None at the end of the input.
        request: turns prompt and target into the request to edit in, and its description.
        keep: prompts whose answers must stay.
        max_drift: edits that move these further, in nats, are refused; None for any.
        out: where all is saved; empty where that is asked for.
        answer_tokens: length of the answers to ``keep``.
    """

    editor: Editor
    console: Console
    read: Callable[[str], str | None]
    request: Callable[[str, str], tuple[EditRequest, str]]
    keep: tuple[str, ...] = ()
    max_drift: float | None = None
    out: str = ""
    answer_tokens: int = 8
    kept: list[Edit] = field(default_factory=list)
    """What each kept edit came to, together with those before it; the last one has all."""
    saved: int = 0
    """How many edits the file holds that was saved last."""
    file: str = ""
    """The file that was saved last."""

    def run(self) -> None:
        """Go on until the input ends or says so; what is kept is saved where ``out`` says so."""
        self._say(HELP)
        while (prompt := self._line("prompt> ")) is not None:
            try:
                if prompt.startswith(":"):
                    if not self._obey(prompt):
                        break
                elif prompt:
                    self._edit(prompt)
            except InputError as error:
                self._say(f"error: {error}")
        if self.kept and self.out and self.saved != len(self.kept):
            self.save(self.out)
        if self.saved != len(self.kept):
            self._say(f"{_edits(len(self.kept))} kept and not saved. Next time: :save FILE, or --out FILE.")

    def save(self, path: str) -> None:
        """Save everything that is kept.

        Raises:
            InputError: nothing is, or the file cannot be written.
        """
        if not self.kept:
            raise InputError("No edit is kept. Make one and keep it, then save.")
        self.kept[-1].save(Path(path))
        self.saved, self.file = len(self.kept), path
        self._say(f"Saved {_edits(self.saved)}: {quoted(path)}")

    def _edit(self, prompt: str) -> None:
        target = self._line("target> ")
        if target is None:
            return
        request, description = self.request(prompt, target)
        edit = self.editor.edit(request, after=self.kept[-1] if self.kept else None, instruction=description)
        report = edit.report(keep=self.keep, answer_tokens=self.answer_tokens)
        show(report, self.console, len(edit.requests) - 1)
        self._check(report)
        while (word := self._line("keep, undo or save? [k/u/s] ")) is not None:
            choice = word.lower()
            if choice in ("k", "keep", "s", "save"):
                self.kept.append(edit)
                self._say(f"Kept: {len(self.kept)}.")
                if choice[0] == "s":
                    path = self.out or self._line("file> ")
                    if path:
                        self.save(path)
                return
            if choice in ("u", "undo"):
                self._say("Undone.")
                return
            self._say("Answer k, u or s.")

    def _check(self, report: Report) -> None:
        if self.max_drift is not None:
            report.check(self.max_drift)

    def _obey(self, line: str) -> bool:
        """Do what a line that begins with a colon says; False where it ends the session."""
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if word in (":quit", ":q", ":exit"):
            return False
        if word == ":undo":
            if not self.kept:
                raise InputError("No edit is kept, so there is none to undo.")
            request = self.kept.pop().requests[-1]
            self._say(f"Undone: {shown(request.prompt)} -> {shown(request.target)}")
        elif word == ":list":
            for number, edit in enumerate(self.kept, 1):
                self._say(f"{number}. {shown(edit.requests[-1].prompt)} -> {shown(edit.requests[-1].target)}")
            self._say(f"{len(self.kept)} kept.")
        elif word == ":save":
            if not (rest or self.out):
                raise InputError("Where to? Write :save FILE.")
            self.save(rest or self.out)
        elif word == ":ask":
            self._say(f"base:   {shown(self.editor.base.generate(rest).strip())}")
            if self.kept:
                with self.kept[-1].applied():
                    self._say(f"edited: {shown(self.editor.base.generate(rest).strip())}")
        else:
            self._say(HELP)
        return True

    def _line(self, told: str) -> str | None:
        line = self.read(told)
        return None if line is None else line.strip()

    def _say(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _edits(n: int) -> str:
    """A number of edits in words.

    >>> _edits(1), _edits(2)
    ('1 edit', '2 edits')
    """
    return f"{n} edit{'' if n == 1 else 's'}"
