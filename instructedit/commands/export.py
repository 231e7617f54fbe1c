"""The command ``export``: a saved edit as a LoRA adapter, a whole model, or the change of the weights alone.

Knows what is asked for and what is told at the end; the formats, `instructedit.export` knows.
"""

from collections.abc import Sequence
from pathlib import Path

from instructedit.errors import InputError
from instructedit.export.card import EditFacts, told
from instructedit.export.changes import SiteReport, total_error
from instructedit.export.folder import check_free
from instructedit.export.origin import Origin, fetch_extras, origin_of
from instructedit.export.snippets import asking_lines, loading_lines
from instructedit.export.write import DTYPES, Settings, export_edit
from instructedit.methods.saved import load_edit, read_header
from instructedit.terminal import quoted, shown

MUCH = 0.01
"""A relative error that is pointed out."""


def export(
    edit: Path,
    as_: str,
    out: Path,
    base: str | None = None,
    rank: int | None = None,
    dtype: str | None = None,
    dense: bool = False,
    max_shard_size: str = "5GB",
    hub_base: str | None = None,
    license: str | None = None,
    check: bool = False,
) -> None:
    """Write a saved edit in a form that works without InstructEdit: all its requests, in one folder with a model card.

    Args:
        edit: the file of the edit, as `instructedit edit` saves it.
        as_: lora (an adapter for the package peft), model (a whole model for transformers) or delta (what is to be
            added to the weights, one safetensors file).
        out: the folder to write; it must not be there yet, or be empty.
        base: where the edit's base is, a Hub id, folder or alias; by default what the edit's file names.
        rank: the most ranks of each changed matrix, for a smaller lora or delta; the error is told. By default exact.
        dtype: float32, bfloat16 or float16; by default float32, and for a model what the base's own files have.
        dense: for a delta, whole matrices even where factors are smaller.
        max_shard_size: the largest file of a model's weights.
        hub_base: the base's id on the Hub, for the card and the adapter, where the base is a folder here.
        license: the licence for the card, as the Hub spells it; by default what the base's own card says.
        check: load what was written again, as others would, and hold it against the edit on the edit's own requests;
            takes a second copy of the model in memory.
    """
    Settings(as_, rank, dtype or "float32", dense, max_shard_size).check()  # type: ignore[arg-type]
    check_free(out)
    header = read_header(edit)
    name = base or header.base
    # Everything that needs no weights is refused before they are read.
    from instructedit.base.loading import load_base, stored_dtype

    try:
        fetch_extras(name)
        chosen = dtype or (stored_dtype(name) if as_ == "model" else "float32")
        found = load_base(name, DTYPES[chosen], placement="replicated" if as_ == "model" else "tail_only")
    except InputError as error:
        if base is not None:
            raise
        raise InputError(f"{error} The edit's file names this base; say where it is with --base.") from error
    origin = origin_of(name, hub_base, license)
    facts = EditFacts.of(header.kind, header.fingerprint, header.dtype, header.about)
    settings = Settings(as_, rank, chosen, dense, max_shard_size, check)  # type: ignore[arg-type]
    reports, checked = export_edit(load_edit(edit, found), found, out, settings, origin, facts)
    print("\n".join(_ended(out, settings, origin, facts, reports, checked)))


def _ended(
    out: Path, settings: Settings, origin: Origin, facts: EditFacts, reports: Sequence[SiteReport], checked: str
) -> list[str]:
    """What is told at the end."""
    width = max(len(report.site) for report in reports)
    total = total_error(reports)
    lines = [f"{'site':<{width}}   rank   change      error"]
    for report in reports:
        rank = "whole" if report.rank is None else str(report.rank)
        lines.append(f"{report.site:<{width}}  {rank:>5}  {report.norm:>7.3g}  {told(report.relative):>9}")
    lines.append(f"{'together':<{width}}  {'':>5}  {'':>7}  {told(total):>9}")
    if total > MUCH:
        lines += ["", _much(settings, total)]
    if checked:
        lines += ["", checked]
    first = facts.requests[0] if facts.requests else None
    question = asking_lines(str(first.get("instruction") or "") + first["prompt"]) if first else []
    code = loading_lines(settings.form, str(out), origin, facts.base_dtype, local=True) + question
    lines += ["", f"{shown(out)} is written, {settings.dtype}, with its card. Load it:", ""]
    lines += [f"    {line}".rstrip() for line in code]
    lines += ["", "Share it (this shows what would be sent, and sends nothing):", ""]
    lines.append(f"    instructedit push {quoted(out)} --repo OWNER/NAME --dry-run")
    return lines


def _much(settings: Settings, total: float) -> str:
    by = "a smaller rank" if settings.rank is not None else f"rounding to {settings.dtype}"
    advice = "a larger --rank" if settings.rank is not None else "--dtype float32"
    return f"note: {by} leaves an error of {total:.1%} of the change; {advice} makes it smaller."
