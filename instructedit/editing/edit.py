"""An edit as its user holds it: applied, joined with others, reported on, saved and loaded.

It has the requests that were edited in and where the editor comes from beside the low-rank updates. Knows nothing of
how the updates were made.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import LongTensor

from instructedit.base.model import Base
from instructedit.editing.about import request_from, told_of
from instructedit.errors import InputError, MismatchError
from instructedit.lowrank import LowRankUpdate, applied
from instructedit.methods.hyper import HyperEdit
from instructedit.methods.saved import load_edit, read_header, save_edit
from instructedit.records import EditRequest, Probe

if TYPE_CHECKING:
    from instructedit.editing.report import Report


@dataclass(frozen=True)
class Edit:
    """One edit of one base, of one request or of many.

    Args:
        base: the base it belongs to.
        updates: per site name its low-rank updates: an entry for each request where they were made side by side, else
            one entry that holds all of them.
        requests: what was edited in, with the instruction that was used; empty where a file does not say.
        norms: the Frobenius norm of each request's own update; as long as ``requests``.
        editor: where the editor comes from, JSON values.
    """

    base: Base
    updates: Mapping[str, LowRankUpdate]
    requests: tuple[EditRequest, ...] = ()
    norms: tuple[float, ...] = ()
    editor: Mapping[str, Any] = field(default_factory=dict)

    def applied(self, rows: LongTensor | None = None) -> AbstractContextManager[None]:
        """Let the base compute with the edit inside the block; outside it is itself again, to the bit.

        Args:
            rows: (n,), which request's edit sequence n of the coming batches sees, for an edit whose requests were
                made side by side; None: all of them at once.

        Raises:
            InputError: rows were given, and the requests are not apart any more.
        """
        if rows is not None and self.requests and len(self.requests) != self._entries:
            raise InputError("This edit holds all its requests in one state. Apply it without rows.")
        return applied(self.base.model, self.updates, rows)

    @property
    def norm(self) -> float:
        """The Frobenius norm of the whole change, all requests added up, over all sites."""
        return math.sqrt(sum(float(update.merged().norms()) ** 2 for update in self.updates.values()))

    def alone(self) -> list["Edit"]:
        """Take the requests apart: an edit for each.

        Raises:
            InputError: they were made one after another, or joined: then they have one state.
        """
        if len(self.requests) != self._entries:
            raise InputError(
                f"The {len(self.requests)} requests of this edit are in one state and cannot be taken apart. Edit them "
                "again, side by side."
            )
        return [
            Edit(
                self.base,
                {name: LowRankUpdate(u.u[n : n + 1], u.v[n : n + 1]) for name, u in self.updates.items()},
                (request,),
                (norm,),
                self.editor,
            )
            for n, (request, norm) in enumerate(zip(self.requests, self.norms, strict=True))
        ]

    def merge(self, *others: "Edit") -> "Edit":
        """Join this edit and others into one that has all their changes, added up without approximation.

        Raises:
            MismatchError: one belongs to another base.
        """
        for other in others:
            if other.base is not self.base and other.base.fingerprint != self.base.fingerprint:
                raise MismatchError(
                    f"An edit of base {other.base.name!r} cannot be joined with one of base {self.base.name!r}: their "
                    "weights differ. Make both on one base."
                )
        every = (self, *others)
        updates = {
            name: _together([edit.updates[name] for edit in every if name in edit.updates])
            for name in dict.fromkeys(name for edit in every for name in edit.updates)
        }
        editors = [dict(edit.editor) for edit in every if edit.editor]
        editor: dict[str, Any] = editors[0] if editors else {}
        more = [each for n, each in enumerate(editors) if each not in editors[:n]][1:]
        return Edit(
            self.base,
            updates,
            tuple(request for edit in every for request in edit.requests),
            tuple(norm for edit in every for norm in edit.norms),
            {**editor, "others": [*editor.get("others", ()), *more]} if more else editor,
        )

    def report(
        self,
        rephrases: Sequence[str] = (),
        keep: Sequence[str] = (),
        probes: Sequence[Sequence[Probe]] = (),
        answer_tokens: int = 8,
    ) -> "Report":
        """Ask the base before and after the edit, all of it applied, and hold the edit against its editor's validation.

        Every question is asked as a user would ask it, without an instruction; where a request was edited in with
        one, it is also asked with it.

        Args:
            rephrases: other ways to ask the only request.
            keep: prompts whose answers must stay; without any, and without locality probes, a few built-in questions.
            probes: per request, in order, what else to ask: rephrases, portability and locality probes.
            answer_tokens: length of the answers to ``keep``.

        Raises:
            InputError: there is nothing to ask, a text is empty or too long, or the lists do not fit the requests.
        """
        from instructedit.editing.report import make_report

        return make_report(self, rephrases, keep, probes, answer_tokens)

    def about(self) -> dict[str, Any]:
        """What a saved file says of the edit: ``requests`` and ``editor``, JSON values."""
        norms = self.norms or (math.nan,) * len(self.requests)
        requests = [told_of(request, norm) for request, norm in zip(self.requests, norms, strict=True)]
        return {"requests": requests, "editor": dict(self.editor)}

    def save(self, path: Path | str) -> None:
        """Write the edit to one file, whole or not at all: one state, with everything that was edited in.

        Raises:
            InputError: the file cannot be written.
        """
        compact = {name: update.compact() for name, update in self.updates.items()}
        save_edit(path, HyperEdit(self.base, compact), self.base, self.about())

    @classmethod
    def load(cls, path: Path | str, base: Base | str | None = None, device: str | torch.device = "cpu") -> Self:
        """Read an edit that ``save`` or ``instructedit edit`` wrote.

        Args:
            path: the file.
            base: the base it was made for: loaded, or its name; None loads the one that the file names.
            device: where a base that is loaded here goes.

        Raises:
            MismatchError: it was made for another base.
            InputError: the file is missing, malformed or of another method; the base cannot be loaded.
        """
        header = read_header(path)
        if header.kind != "HyperEdit":
            raise InputError(
                f"{path} holds a {header.kind}, no low-rank edit of a trained editor. Load it with "
                "instructedit.methods.saved.load_edit."
            )
        if not isinstance(base, Base):
            from instructedit.base.loading import load_base

            base = load_base(base or header.base, named_dtype(header.dtype), device)
        edit = load_edit(path, base)
        assert isinstance(edit, HyperEdit)
        try:
            told = header.about.get("requests", [])
            requests = tuple(request_from(each) for each in told)
            norms = tuple(float(each.get("update_norm", math.nan)) for each in told)
            editor = dict(header.about.get("editor", {}))
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            raise InputError(f"{path} is malformed: {error!r}. Make the edit again.") from error
        return cls(base, edit.updates, requests, norms, editor)

    @property
    def _entries(self) -> int:
        return next(iter(self.updates.values())).n_requests


def named_dtype(name: str) -> torch.dtype:
    """Return a dtype by its name in a card or a file, such as ``"torch.bfloat16"``; fp32 where it is none."""
    found = getattr(torch, name.removeprefix("torch."), None)
    return found if isinstance(found, torch.dtype) else torch.float32


def _together(updates: Sequence[LowRankUpdate]) -> LowRankUpdate:
    """Add up changes of one site: (1, k, ...)."""
    parts = [update.merged() for update in updates]
    return LowRankUpdate(torch.cat([p.u for p in parts], 1), torch.cat([p.v for p in parts], 1)).compact()
