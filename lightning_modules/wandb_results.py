"""What a run has come to, in the forms Weights & Biases shows: numbers, a table of all rows, the editor as an artifact.

Ids and numbers only; no text of a record or of a model goes there.
"""

import re
from collections.abc import Sequence
from typing import Any

from instructedit.records import Outcome
from lightning_modules.report import Report


def means(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Average outcomes to ``test/<row of the table>/<task>/<metric>``, in the metrics' own units: shares are 0 to 1."""
    values: dict[str, list[float]] = {}
    for outcome in outcomes:
        values.setdefault(f"test/{outcome.method}/{outcome.task}/{outcome.metric}", []).append(outcome.value)
    return {name: sum(found) / len(found) for name, found in values.items()}


def results_table(outcomes: Sequence[Outcome]) -> Any:
    """Make a ``wandb.Table`` with a row for each record and method and a column for each metric."""
    import wandb

    metrics = list(dict.fromkeys(outcome.metric for outcome in outcomes))
    rows: dict[tuple[str, str, str], dict[str, float]] = {}
    for outcome in outcomes:
        rows.setdefault((outcome.task, outcome.method, outcome.id), {})[outcome.metric] = outcome.value
    data = [[*key, *(row.get(metric) for metric in metrics)] for key, row in rows.items()]
    return wandb.Table(columns=["task", "method", "id", *metrics], data=data, allow_mixed_types=True)


def editor_artifact(run_name: str, report: Report) -> Any:
    """Make the artifact of type ``editor``; its metadata tell what it was made from and with."""
    import wandb

    card = report.card
    made_with = {
        "base": card.base,
        "base_fingerprint": card.fingerprint,
        "method": card.method,
        "step": report.step,
        "tasks": card.tasks,
        "data_sha256": card.data,
        "commit": card.commit,
        "dirty": card.dirty,
        "versions": card.versions,
    }
    name = re.sub(r"[^\w.-]", "-", run_name, flags=re.ASCII)
    artifact = wandb.Artifact(f"{name}-editor", type="editor", metadata=made_with)
    for path in sorted(path for path in report.editor.rglob("*") if path.is_file()):
        # Written whole, once: no copies of it in wandb's own folders.
        inside = path.relative_to(report.editor).as_posix()
        artifact.add_file(str(path), name=inside, policy="immutable", skip_cache=True)
    return artifact
