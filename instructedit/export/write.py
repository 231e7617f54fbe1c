"""One edit to one folder: what is in it, its card, all of it or nothing.

Knows the order of the work; the formats are told by ``lora``, ``model`` and ``delta``.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from instructedit.base.model import Base
from instructedit.errors import InputError, unknown
from instructedit.export.card import CARD_FILE, EditFacts, edit_card
from instructedit.export.changes import SiteReport, changes_of
from instructedit.export.delta import write_delta
from instructedit.export.folder import staged
from instructedit.export.lora import write_lora
from instructedit.export.model import write_model
from instructedit.export.origin import Origin
from instructedit.export.snippets import FORMS, Form
from instructedit.methods.base import Edit

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Settings:
    """How an edit is written.

    Args:
        form: as what.
        rank: the most ranks a site gets; None for an exact copy.
        dtype: dtype in the files, a key of ``DTYPES``; of a model it is the base's.
        dense: whether a delta holds whole matrices in any case.
        max_shard_size: the largest weights file of a model, such as ``"5GB"``.
        checked: whether it is loaded again and held against the edit before it is in its place.
    """

    form: Form
    rank: int | None = None
    dtype: str = "float32"
    dense: bool = False
    max_shard_size: str = "5GB"
    checked: bool = False

    def check(self) -> None:
        """Refuse settings that do not go together.

        Raises:
            InputError: says which.
        """
        if self.form not in FORMS:
            raise unknown("form", self.form, FORMS, "--as takes one of them.")
        if self.dtype not in DTYPES:
            raise unknown("dtype", self.dtype, DTYPES)
        if self.rank is not None and self.rank < 1:
            raise InputError(f"--rank is {self.rank}. Give 1 or more, or leave it out for an exact copy.")
        if self.rank is not None and self.form == "model":
            raise InputError("--rank is for --as lora and --as delta: a model gets the whole change. Leave it out.")
        if self.dense and (self.form != "delta" or self.rank is not None):
            raise InputError("--dense is for --as delta, without --rank. Leave one of them out.")


def export_edit(
    edit: Edit,
    base: Base,
    out: Path,
    settings: Settings,
    origin: Origin,
    facts: EditFacts,
) -> tuple[list[SiteReport], str]:
    """Write an edit as a folder that others can load, with its card.

    Args:
        edit: a change of weights: of KE, MEND, InstructEdit or FT-L.
        base: the base it belongs to; for a model all in memory, in the dtype to write.
        out: the folder; it must not be there, or be empty.
        settings: as what, and how.
        origin: what the base is called elsewhere.
        facts: what is told of the edit.

    Returns:
        What was kept of each site's change; and what checking it found, a sentence or nothing.

    Raises:
        InputError: the edit is no change of weights, the settings do not fit it, or the folder cannot be written.
    """
    settings.check()
    changes = changes_of(edit, base)
    dtype = DTYPES[settings.dtype]
    with staged(out) as folder:
        if settings.form == "lora":
            reports = write_lora(folder, changes, origin.hub_id or origin.name, settings.rank, dtype)
        elif settings.form == "model":
            reports = write_model(folder, changes, base, settings.max_shard_size)
        else:
            told = {"base": origin.hub_id or origin.name, "fingerprint": base.fingerprint, "about": facts.about()}
            reports = write_delta(folder, changes, told, settings.rank, dtype, settings.dense)
        checked = ""
        if settings.checked:
            from instructedit.export.check import check_written

            checked = check_written(folder, settings.form, edit, base, origin, facts).told()
        card = edit_card(settings.form, origin, facts, reports, settings.dtype, checked)
        (folder / CARD_FILE).write_text(card, encoding="utf-8", errors="backslashreplace")
    return reports, checked
