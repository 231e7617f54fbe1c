"""All our pools as an instruction data set: one JSON line a description, and a data card. Nothing of records.

Knows pools, cards and what the Hub wants of a data set; sends nothing itself.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from instructedit.errors import InputError
from instructedit.export.card import CARD_FILE
from instructedit.export.origin import check_repo
from instructedit.export.upload import Plan, Upload
from instructedit.instructions.cards import TaskCard
from instructedit.instructions.loop_result import START
from instructedit.instructions.pool_card import CARD, read_card
from instructedit.instructions.pools import InstructionPool
from instructedit.json_lines import as_lines

DATA = "descriptions.jsonl"

FIELDS: Mapping[str, str] = {
    "task": "the task's name in instructedit",
    "label": "the short name shown after `Task:`",
    "description": "the text shown after `Description:`; it may hold placeholders in brackets",
    "role": "seen: training draws from it; unseen: the tenth of its pool, only tested",
    "family": "the kind of edits",
    "definition": "what such an edit does and what it leaves alone",
    "input_template": "what an input of the task looks like",
    "target_template": "what a target of the task looks like",
    "placeholders": "what each placeholder stands for, by name",
    "source": "shipped: written for instructedit by its authors; loop: by a language model, and chosen by trials",
    "model": "the language model that wrote it; empty for shipped ones",
    "written": "the day, UTC; empty where it is not known",
    "base": "the base of the trial editors; empty where none was made",
    "score": "mean score on validation records by trial editors, 0 to 1; null where it was not measured",
    "score_low": "lower end of its 95 % bootstrap interval over records",
    "score_high": "upper end",
    "reliability": "mean, as the score's parts are",
    "generalization": "mean",
    "locality": "mean",
    "portability": "mean",
    "success": "mean",
    "records": "validation records behind the score",
    "seeds": "trial editors behind the score",
    "commit": "of instructedit, when it was measured",
}


def rows_of(
    pools: Mapping[str, InstructionPool], cards: Mapping[str, TaskCard], runs: Sequence[Path]
) -> list[dict[str, Any]]:
    """Collect every description: the shipped pools', then those of loops.

    A shipped description that a loop has measured stands there once more, with its score.

    Args:
        pools: the shipped ones, by task.
        cards: the tasks' cards; a pool of a task without one has empty metadata.
        runs: run directories of loops.

    Raises:
        InputError: a run directory has no card.
    """
    rows = [row for task in sorted(pools) for row in _shipped(pools[task], cards.get(task))]
    for run in runs:
        rows += _of_run(read_card(run / CARD))
    return rows


def data_set(rows: Sequence[Mapping[str, Any]], repo: str, private: bool = False) -> Plan:
    """Make the data set's files, ready to be shown or sent.

    Args:
        rows: as ``rows_of`` gives them.
        repo: the repository, ``OWNER/NAME``.
        private: whether only its owner is to see it.

    Raises:
        InputError: there is no description, or the name is none.
    """
    check_repo(repo, "--repo")
    if not rows:
        raise InputError("There is no description to publish. Name pools with --instructions, or run directories.")
    card = data_card(rows)
    files = tuple(_upload(name, content) for name, content in ((DATA, as_lines(rows)), (CARD_FILE, card.encode())))
    notes = []
    if models := sorted({row["model"] for row in rows if row["model"]}):
        notes.append(
            f"Descriptions written by {', '.join(models)} are among them: see whether its terms let you publish them."
        )
    return Plan("instructions", repo, private, files, (), card, tuple(notes))


def data_card(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return README.md: front matter as the Hub reads it, what is in the data set and how it was made."""
    tasks = sorted({row["task"] for row in rows})
    scored = sum(row["score"] is not None for row in rows)
    size = "n<1K" if len(rows) < 1000 else "1K<n<10K"
    lines = [
        "---",
        "license: apache-2.0",
        "language:",
        "- en",
        "pretty_name: Instructions for knowledge editing",
        "task_categories:",
        "- text-generation",
        "size_categories:",
        f"- {size}",
        "tags:",
        "- knowledge-editing",
        "- instructions",
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: train",
        f"    path: {DATA}",
        "---",
        "",
        "# Instructions for knowledge editing",
        "",
        f"{len(rows)} generic descriptions of {len(tasks)} knowledge editing tasks ({', '.join(tasks)}), {scored} of "
        "them with scores. One is put in front of an edit's input, as `Task: LABEL`, `Description: DESCRIPTION`, "
        "`Input: `, so that an editor trained on several tasks knows which kind of edit it is to make (Zhang et al. "
        "2024, InstructEdit).",
        "",
        "No record of any editing data set is in here: the descriptions fit every record of their task, and those that "
        "name a subject, a prompt or a target of one were left out.",
        "",
        "## Fields",
        "",
        *(f"- `{name}`: {meaning}" for name, meaning in FIELDS.items()),
        "",
        "## How they were made",
        "",
        "Shipped descriptions were written for instructedit. The others were asked of a language model from the task's "
        "card (family, definition, templates), screened (placeholders kept, length, one line, no examples, no near "
        "repeats) and measured: a trial editor is meta-trained shortly on all descriptions of a round, and each is put "
        "in front of the same validation records. The score of a record is the mean of what it has of reliability, "
        "generalization, locality, portability and success. Scores of different bases, tasks or rounds are not "
        "comparable, and flatter descriptions that were chosen by them.",
        "",
        "## Descriptions by source",
        "",
        "| task | source | model | descriptions | best score |",
        "|---|---|---|---:|---:|",
        *_counted(rows),
        "",
        "## Licence",
        "",
        "Apache-2.0. Descriptions written by a language model may be subject to that model's terms; `model` names it.",
    ]
    return "\n".join(lines) + "\n"


def _shipped(pool: InstructionPool, card: TaskCard | None) -> Iterator[dict[str, Any]]:
    metadata = _metadata(card.as_dict() if card else {})
    for text in pool.descriptions:
        yield _row(
            task=pool.task,
            label=pool.label,
            description=text,
            role="seen" if text in pool.seen else "unseen",
            source="shipped",
            **metadata,
        )


def _of_run(made: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    task, provenance = made["task"], made["provenance"]
    for each in made["descriptions"]:
        own = each["origin"] == START
        scores = each["scores"]
        score = scores.get("score")
        yield _row(
            task=task["task"],
            label=task["label"],
            description=each["text"],
            role=each["role"],
            source="shipped" if own else "loop",
            model="" if own else provenance.get("model", ""),
            written="" if own else str(provenance.get("begun", ""))[:10],
            base=provenance.get("base", ""),
            score=score["mean"] if score else None,
            score_low=score["low"] if score else None,
            score_high=score["high"] if score else None,
            records=score["records"] if score else None,
            seeds=len(provenance.get("seeds", [])) if score else None,
            commit=provenance.get("commit", ""),
            **{name: found["mean"] for name, found in scores.items() if name in FIELDS and name != "score"},
            **_metadata(task),
        )


def _metadata(card: Mapping[str, Any]) -> dict[str, Any]:
    texts = {name: card.get(name, "") for name in ("family", "definition", "input_template", "target_template")}
    # As text: a column of objects with different keys has no type of its own.
    return texts | {"placeholders": json.dumps(card.get("placeholders", {}), ensure_ascii=False)}


def _row(**values: Any) -> dict[str, Any]:
    empty = {"model": "", "written": "", "base": "", "commit": ""}
    return {name: values.get(name, empty.get(name)) for name in FIELDS}


def _counted(rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["task"], row["source"], row["model"]), []).append(row)
    for (task, source, model), own in sorted(groups.items()):
        scores = [row["score"] for row in own if row["score"] is not None]
        best = f"{100 * max(scores):.1f}" if scores else "-"
        yield f"| {task} | {source} | {model or '-'} | {len(own)} | {best} |"


def _upload(name: str, content: bytes) -> Upload:
    return Upload(name, content, len(content), hashlib.sha256(content).hexdigest())
