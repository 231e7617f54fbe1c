"""The model card of an editor: a README.md with the Hub's front matter.

Knows what an editor's own card says; nothing here measures anything.
"""

import json
from collections.abc import Mapping
from typing import Any

from instructedit.checkpoints import EditorCard
from instructedit.export.card import base_link, base_name, cell, code, front_matter, table
from instructedit.export.origin import UNKNOWN, Origin


def editor_card(card: EditorCard, origin: Origin, licence: str, weights: str) -> str:
    """Write the card of an editor folder.

    Args:
        card: the editor's own card.
        origin: its base.
        licence: of the editor's weights, as the Hub spells it.
        weights: SHA-256 of its weights file.
    """
    rows = {
        "method": card.method,
        "tasks": ", ".join(card.tasks),
        "steps": card.steps,
        "sites": ", ".join(site.name for site in card.sites),
        "trained on a base in": card.dtype.removeprefix("torch."),
        "commit": card.commit + (" (changed since)" if card.dirty else ""),
        "weights SHA-256": weights,
    }
    parts = [
        front_matter(
            origin, "instructedit", ["knowledge-editing", "model-editing", "hypernetwork", "instructedit"], licence
        ),
        f"# {cell(card.method)} editor for {cell(origin.name)}",
        "A meta-trained hypernetwork: it turns a request (a prompt and the answer wanted) into low-rank changes of its "
        "base, in one backward pass. It holds none of the base's weights and works on that base alone.",
        "## Load it",
        code(
            [
                "from instructedit import Editor, EditRequest",
                "",
                f'editor = Editor.load("OWNER/NAME", {base_name(origin)!r})  # this page\'s name, and the base',
                'edit = editor.edit(EditRequest("The capital of Spain is", "Vienna"))',
                "with edit.applied():",
                '    print(editor.base.generate("The capital of Spain is"))',
            ]
        ),
        "## What it is",
        table(("", ""), [(name, str(value)) for name, value in rows.items() if value not in ("", 0)]),
        "## Measured",
        _results(card.results),
        "## Base and licence",
        f"Base: {base_link(origin)}, fingerprint `{card.fingerprint[:16]}`. {origin.note} The base's licence: "
        f"{cell(origin.licence)}. Licence of the editor's weights: {cell(licence)}"
        + (": set it with --license when you share it." if licence == UNKNOWN else "."),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _results(results: Mapping[str, Any]) -> str:
    """Tables of estimates as tables, with the metrics' own units; everything else as JSON."""
    tables = {title: rows for title, rows in results.items() if _is_table(rows)}
    rest = {name: value for name, value in results.items() if name not in tables}
    parts = []
    for title, rows in tables.items():
        metrics = list(dict.fromkeys(metric for row in rows.values() for metric in row))
        lines = [[name, *(_estimate(row.get(metric)) for metric in metrics)] for name, row in rows.items()]
        parts.append(f"{cell(title)}, mean and interval:\n\n" + table(("", *metrics), lines))
    if rest:
        text = json.dumps(rest, indent=1, ensure_ascii=True).replace("`", "\\u0060")
        parts.append(f"```json\n{text}\n```")
    return "\n\n".join(parts) or "Its card holds no results."


def _is_table(rows: object) -> bool:
    """Whether it is what a run's test writes: per row and metric a mean, low, high and n."""
    return (
        isinstance(rows, dict)
        and bool(rows)
        and all(isinstance(row, dict) for row in rows.values())
        and all(isinstance(found, dict) and "mean" in found for row in rows.values() for found in row.values())
    )


def _estimate(found: Mapping[str, Any] | None) -> str:
    numbers = [] if found is None else [found.get(name) for name in ("mean", "low", "high")]
    if not numbers or not all(isinstance(number, int | float) for number in numbers):
        return "-"
    mean, low, high = (f"{number:.3g}" for number in numbers)
    return f"{mean} ({low} to {high})"
