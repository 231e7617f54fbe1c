"""Results of a study that nobody trained: outcomes with planted means, for every run of a plan."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from instructedit.records import Outcome
from instructedit.study.plan import Study, read_study
from instructedit.study.results import Results
from instructedit.tasks.choice import stable_hash

PLAN = "configs/study/smollm2-135m.yaml"
SECRET = "TEXT-OF-A-RECORD"
"""Stands in every id: must be in no report."""

Mean = Callable[[str, str, str, str], float | None]
"""Of a run, row, task and metric; None for a metric that the task lacks."""

METRICS = (
    *("reliability", "generalization", "locality", "portability", "success", "fluency"),
    *("reliability_greedy", "generalization_greedy", "locality_greedy", "portability_greedy"),
)
RECORD: dict[str, Any] = {
    "training": {
        "seconds": 3600.0,
        "edits": 2000,
        "threads": "1",
        "starts": [{"commit": "a" * 40, "dirty": False, "versions": {"torch": "2.0"}, "step": 0}],
    },
    "evaluation": {
        "starts": [{"commit": "b" * 40, "dirty": False, "versions": {"torch": "2.0"}, "device": "cpu", "threads": 2}],
        "seconds": {"a row": {"recent": 900.0, "zsre": 900.0}},
    },
}


def has(task: str, metric: str) -> bool:
    """Whether a task has probes of a metric, as KnowEdit's have."""
    name = metric.removesuffix("_greedy")
    if task == "convsent":
        return name in ("reliability", "locality", "success", "fluency")
    return name not in ("success", "fluency")


def flat(run: str, row: str, task: str, metric: str) -> float:
    """No method differs from any other."""
    return 600.0 if metric == "fluency" else 0.5


def noise(size: float, n: int, *parts: str) -> "np.ndarray[Any, np.dtype[np.float64]]":
    """Numbers about 0 with mean 0, the same for the same words."""
    values = np.sin(np.arange(n) * 2.4 + stable_hash(*parts) % 1000)
    return size * (values - values.mean())


def outcomes(study: Study, run: str, mean: Mean, n: int = 8) -> list[Outcome]:
    """Each record is off by something of its own, the same for all runs, and by a little of the run's and row's."""
    found = []
    for row in study.rows(study.run(run)):
        for task in study.tasks:
            for metric in METRICS:
                wanted = mean(run, row, task, metric) if has(task, metric) else None
                if wanted is None:
                    continue
                unit = 100.0 if metric == "fluency" else 1.0
                values = wanted + unit * (noise(0.05, n, task, metric) + noise(0.01, n, run, row, task, metric))
                found += [
                    Outcome(f"{SECRET}-{task}-{number}", task, row, metric, float(value))
                    for number, value in enumerate(values)
                ]
    return found


def make(folder: Path, mean: Mean = flat, without: Iterable[str] = (), plan: str = PLAN) -> tuple[Study, Results]:
    """Write results of every run of a plan but some."""
    study = read_study(plan)
    results = Results(study, folder)
    for run in study.runs:
        if run.name in set(without):
            continue
        lines = [vars(outcome) for outcome in outcomes(study, run.name, mean)]
        training = {**RECORD["training"], "editor": {"weights_sha256": run.name}} if run.trains else None
        results.put(run, lines, {**RECORD, "training": training}, "")
    return study, results


def gradients_of(study: Study, figures: Path, **changed: Any) -> None:
    """Write what the analysis of gradients says of itself; its weights are named as the runs are, as ``make`` does."""
    tasks = study.gradients["tasks"]
    editors = {
        name: dict.fromkeys(tasks, run) if isinstance(run, str) else run
        for name, run in study.analyses["gradients"].items()
    }
    weights = {run.name: {"weights_sha256": run.name} for run in study.runs}
    (figures / "gradients").mkdir(parents=True, exist_ok=True)
    told = {**study.gradients, "editors": editors, "weights": weights, **changed}
    (figures / "gradients" / "run.json").write_text(json.dumps(told))
