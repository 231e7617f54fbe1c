"""What a loop leaves: a pool that ``fit`` takes, and a card with every score and where it all comes from.

Knows pools, scores and files; nothing of how a loop goes.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from instructedit.errors import InputError
from instructedit.instructions.cards import TaskCard
from instructedit.instructions.loop_result import START, Result
from instructedit.instructions.pools import POOL_SIZE, InstructionPool
from instructedit.instructions.scores import intervals, told_gain
from instructedit.json_lines import replace
from instructedit.tasks.choice import stable_sample

POOL, CARD, CARD_PAGE = "pool.yaml", "card.json", "card.md"

ORDER_NOTE = (
    "The order, and with it the tenth, which training never shows, is a hash of the texts: not the worst by score, "
    "which would make unseen descriptions look bad, nor the best, which would make them look good."
)


def ordered(task: str, texts: Sequence[str]) -> list[str]:
    """Put descriptions in the order of the pool: by a hash of task and text, whatever their scores.

    The tenth is only tested. Were it chosen by its score, the difference of seen and unseen descriptions would hold
    that choice; a hash knows nothing of it, and the same ten always have the same tenth.
    """
    return list(stable_sample(texts, len(texts), "pool order", task))


def make_pool(card: TaskCard, result: Result) -> InstructionPool | None:
    """Return the best ten as a pool; None where there are not ten. The ten it began with stay in their order."""
    if len(result.best) < POOL_SIZE:
        return None
    start = [text for text, origin in result.origin.items() if origin == START]
    if set(result.best) == set(start):
        return InstructionPool(card.task, card.label, tuple(start))
    return InstructionPool(card.task, card.label, tuple(ordered(card.task, result.best)))


def write_pool(path: Path, pool: InstructionPool, others: Mapping[str, InstructionPool], note: str) -> None:
    """Write a pool, and behind it those of other tasks as they are, so that ``fit`` on several tasks takes the file.

    Args:
        path: the YAML file.
        pool: the new one.
        others: by task; one of the same task is left out.
        note: a line for the top.
    """
    parts = [f"# {note}\n# The last description is never trained on.\n" + _document(pool)]
    parts += [_document(each) for task, each in sorted(others.items()) if task != pool.task]
    replace(path, "---\n".join(parts).encode())


def card_of(card: TaskCard, result: Result, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Collect a loop's card as plain data: the task's metadata, the descriptions with scores, the rounds, provenance.

    Args:
        card: the task's.
        result: where the loop is, or ended.
        provenance: what else there is to say of how it was made; no key and no path is among it.
    """
    pool = make_pool(card, result)
    texts = list(pool.descriptions) if pool else list(result.best)
    descriptions = []
    for place, text in enumerate(texts, 1):
        found = intervals(result.trials, text) if result.trials else {}
        scores = {
            name: {"mean": round(e.mean, 4), "low": round(e.low, 4), "high": round(e.high, 4), "records": e.n}
            for name, e in found.items()
        }
        role = "unseen" if place == POOL_SIZE else "seen"
        descriptions.append({"text": text, "role": role, "origin": result.origin.get(text, ""), "scores": scores})
    rounds = {
        str(round): {
            "gain": round_(found.mean),
            "noise": round_(found.noise) if math.isfinite(found.noise) else None,
            "beyond_noise": found.told,
        }
        for round, found in result.gains.items()
    }
    return {
        "task": card.as_dict(),
        "order": ORDER_NOTE,
        "descriptions": descriptions,
        "rounds": rounds,
        "ended": {"by": result.ended, "why": result.why},
        "cost": {"asks": result.asks, "tokens": result.tokens, "seconds": round(result.seconds, 1)},
        "provenance": dict(provenance),
    }


def write_card(folder: Path, made: Mapping[str, Any], result: Result) -> None:
    """Write card.json and card.md."""
    replace(folder / CARD, (json.dumps(made, indent=2, ensure_ascii=False) + "\n").encode())
    replace(folder / CARD_PAGE, _page(made, result).encode())


def read_card(path: Path) -> dict[str, Any]:
    """Read a card.json.

    Raises:
        InputError: it is missing or malformed.
    """
    try:
        made: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        made["task"]["task"], made["descriptions"], made["provenance"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path} is no card of `instructedit instruct` ({error}). Name a run directory of it, such as "
            "runs/instruct-counterfact."
        ) from error
    return made


def round_(value: float) -> float:
    """Round a share to what is worth reading."""
    return round(value, 5)


def _document(pool: InstructionPool) -> str:
    content = {"task": pool.task, "label": pool.label, "descriptions": list(pool.descriptions)}
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=10_000)


def _page(made: Mapping[str, Any], result: Result) -> str:
    task, provenance = made["task"], made["provenance"]
    lines = [
        f"# Descriptions of {task['task']}",
        "",
        f"Family: {task['family']}. {task['definition']}",
        "",
        f"Input: {task['input_template']}. Target: {task['target_template']}.",
        *(f"Placeholder [{name}]: {meaning}." for name, meaning in task["placeholders"].items()),
        "",
        f"Ended: {made['ended']['why'] or 'not yet'}. {made['cost']['asks']} answers, {made['cost']['tokens']} tokens, "
        f"{made['cost']['seconds']:.0f} s of answers and trials.",
        "",
        "## Descriptions",
        "",
        "Score: mean over records of the mean of what a record has of reliability, generalization, locality, "
        "portability and success, in percent, with a bootstrap interval over records; measured on validation records "
        "by trial editors that were trained shortly, so no measure of a trained editor. New descriptions were chosen "
        "by these scores, which therefore flatter them; the gain of a round below does not (it is cross-fitted). "
        + made["order"],
        "",
        "| | description | from | score | reliability | generalization | locality |",
        "|---:|---|---|---:|---:|---:|---:|",
    ]
    for place, each in enumerate(made["descriptions"], 1):
        cells = [_cell(each["scores"].get(name)) for name in ("score", "reliability", "generalization", "locality")]
        role = f"{place} (unseen)" if each["role"] == "unseen" else str(place)
        text = each["text"].replace("|", "\\|")
        lines.append(f"| {role} | {text} | {each['origin']} | {' | '.join(cells)} |")
    lines += ["", "## Rounds", ""]
    lines += [f"- round {number}: {told_gain(found)}" for number, found in result.gains.items()] or [
        "None was measured."
    ]
    lines += ["", "## Provenance", "", *(f"- {name}: {_told(value)}" for name, value in provenance.items())]
    return "\n".join(lines) + "\n"


def _cell(found: Mapping[str, float] | None) -> str:
    if found is None:
        return "-"
    return f"{100 * found['mean']:.1f} [{100 * found['low']:.1f}, {100 * found['high']:.1f}]"


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
