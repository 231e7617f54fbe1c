"""A study of plausible made-up outcomes: values by rule, with noise by record and by seed."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np

from instructedit.study.plan import Study, StudyRun, read_study
from instructedit.study.results import Results

ROOT = Path(__file__).parents[2]
PLAN = ROOT / "configs/study/smollm2-135m.yaml"

METRICS = {
    "recent": ("reliability", "generalization", "locality", "portability"),
    "counterfact": ("reliability", "generalization", "locality", "portability"),
    "convsent": ("reliability", "locality", "success"),
    "zsre": ("reliability", "generalization", "locality", "portability"),
}

Rule = Callable[[StudyRun, str, str, str], float]
"""The true mean of a run's row on a task's metric."""


def plausible(run: StudyRun, row: str, task: str, metric: str) -> float:
    """Numbers that look like a study's."""
    trained = run.setting("data.tasks", ()) or ()
    worth = {"reliability": 0.93, "generalization": 0.88, "locality": 0.85, "portability": 0.34, "success": 0.5}[metric]
    if task == "convsent":
        worth -= 0.3 * (metric == "reliability")
    if metric != "locality" and task not in trained:
        worth -= (0.45, 0.3, 0.12, 0.05)[len(trained)] * (1 if metric != "portability" else 0.2)
    lost = {"unseen": 0.01, "wrong": 0.02, "shuffled": 0.03, "filler": 0.09, "empty": 0.16}
    worth -= next((loss for name, loss in lost.items() if f"({name})" in row), 0.0) * (metric != "locality")
    return worth + (0.02 if row.startswith("InstructEdit") else 0.0)


def noisy(name: str, mean: float, records: int, run: str, row: str) -> list[float]:
    """Values between 0 and 1 around a mean: the same records are easy or hard for every run."""
    shared = np.random.RandomState(_number(name)).normal(0, 0.15, records)
    own = np.random.RandomState(_number(name + run + row)).normal(0, 0.06, records)
    of_seed = np.random.RandomState(_number(run)).normal(0, 0.012)
    values: list[float] = np.clip(mean + of_seed + shared + own, 0, 1).round(4).tolist()
    return values


def outcomes(study: Study, run: StudyRun, rule: Rule, records: int = 60) -> list[dict[str, object]]:
    """Lines as a run's evaluation has them."""
    return [
        {"id": f"{task}-test-{n}", "task": task, "method": row, "metric": metric, "value": value}
        for row in study.rows(run)
        for task in study.tasks
        for metric in METRICS[task]
        for n, value in enumerate(noisy(f"{task} {metric}", rule(run, row, task, metric), records, run.name, row))
    ]


def make(
    folder: Path,
    runs: Iterable[str] | None = None,
    rule: Rule = plausible,
    study: Study | None = None,
    records: int = 60,
) -> Results:
    """Write a study's results, of some runs or of all."""
    study = study or read_study(PLAN)
    results = Results(study, folder)
    for name in [run.name for run in study.runs] if runs is None else runs:
        run = study.run(name)
        results.put(run, outcomes(study, run, rule, records), {}, "")
    return results


def without(study: Study, *names: str) -> Sequence[str]:
    """Every run but those."""
    return [run.name for run in study.runs if run.name not in names]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
