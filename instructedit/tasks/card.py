"""The data card of a prepared task: what is in it, what was left out and why, and hashes to tell it by.

Knows examples and rejects; computes the same card for the same data, without dates or machine names.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from instructedit.records import EditExample
from instructedit.tasks.base import FileTask, Reject, SourceFile, SourceSplit, Task
from instructedit.tasks.knowedit import shown
from instructedit.tasks.prepared import SPLITS, as_row
from instructedit.tasks.separation import Separated


def make_card(
    task: Task,
    source: Path,
    rejects: Sequence[Reject],
    separated: Separated,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """Collect a task's card as plain data, ready for JSON.

    Args:
        task: the task.
        source: the folder its files were read from.
        rejects: what reading set aside.
        separated: the examples as they are written, and what keeping the splits apart left out.
        options: the choices that shaped the data.
    """
    return {
        "task": task.name,
        "family": task.family,
        "licence": task.licence,
        "files": source_files(task, source),
        "options": dict(options),
        "splits": {split: _split_card(separated.splits[split]) for split in SPLITS},
        "left_out": {
            "malformed records": _counted(reject.reason for reject in rejects if reject.fault == "malformed"),
            "unusable records": _counted(
                [reject.reason for reject in rejects if reject.fault == "unusable"]
                + [reason for _, reason in separated.records]
            ),
            "probes": _counted(
                [reject.reason for reject in rejects if reject.fault == "probe"]
                + [reason for _, reason in separated.probes]
            ),
        },
        "notes": list(getattr(task, "notes", ())),
    }


def content_hash(examples: Sequence[EditExample]) -> str:
    """Hash examples by their content and order, whatever the format they are stored in."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(json.dumps(as_row(example), sort_keys=True, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def source_files(task: Task, source: Path) -> list[dict[str, Any]]:
    """Name, size in bytes and sha256 of each file the task reads; none for a task made without files."""
    paths: dict[Path, list[SourceSplit]] = {}
    sources: Mapping[SourceSplit, tuple[SourceFile, ...]] = task.sources if isinstance(task, FileTask) else {}
    for split, files in sources.items():
        for path in (file.find(source) for file in files):
            if path is not None:
                paths.setdefault(path, []).append(split)
    return [
        {
            "file": shown(path, source),
            "splits": splits,
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path, splits in paths.items()
    ]


def card_text(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    kinds = sorted({kind for split in card["splits"].values() for kind in split["probes"]})
    lines = [
        f"# Data card: {card['task']}",
        "",
        f"Family: {card['family']}. Licence of the texts: {card['licence']}.",
        "",
        "| split | records | " + " | ".join(f"{kind} probes" for kind in kinds) + " | sha256 of the content |",
        "|---" * (len(kinds) + 3) + "|",
    ]
    for name, split in card["splits"].items():
        counts = " | ".join(str(split["probes"].get(kind, 0)) for kind in kinds)
        lines.append(f"| {name} | {split['records']} | {counts} | {split['sha256'][:16]} |")
    lines += ["", "## Source files", ""]
    lines += [
        f"- {file['file']} ({', '.join(file['splits'])}): {file['bytes']} bytes, sha256 {file['sha256']}"
        for file in card["files"]
    ]
    if not card["files"]:
        lines.append("None: the records are made by the package itself.")
    lines += ["", "## Options", "", *(f"- {name}: {value}" for name, value in card["options"].items())]
    lines += ["", "## Left out (each with file, index and reason in rejects.jsonl)", ""]
    for what, counts in card["left_out"].items():
        lines.append(f"- {what}: {sum(counts.values())}")
        lines += [f"  - {count} x {reason}" for reason, count in counts.items()]
    if card["notes"]:
        lines += ["", "## Notes", "", *(f"- {note}" for note in card["notes"])]
    return "\n".join(lines) + "\n"


def _split_card(examples: Sequence[EditExample]) -> dict[str, Any]:
    kinds = Counter(probe.kind for example in examples for probe in example.probes)
    return {
        "records": len(examples),
        "probes": dict(sorted(kinds.items())),
        "records_with": dict(
            sorted(Counter(kind for example in examples for kind in {probe.kind for probe in example.probes}).items())
        ),
        "sha256": content_hash(examples),
    }


def _counted(reasons: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(reasons).items(), key=lambda item: (-item[1], item[0])))
