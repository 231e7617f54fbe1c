"""Run directories and runs made for the tests of the comparison."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from instructedit.evaluation.report import numbers, write_tables
from instructedit.evaluation.tables import to_jsonl
from instructedit.records import Outcome


def outcomes(values: Sequence[float], task: str = "zsre", method: str = "MEND") -> list[Outcome]:
    """Rows of Base, which gets nothing right, and of an editor."""
    rows = []
    for place, value in enumerate(values):
        for row, found in (("Base", 0.0), (method, value)):
            for metric in ("reliability", "reliability_exact", "locality"):
                rows.append(Outcome(f"{task}-{place}", task, row, metric, 1.0 if metric == "locality" else found))
    return rows


def make_run(
    path: Path,
    config: Mapping[str, object] | None = None,
    scores: Sequence[float] = (50.0, 60.0),
    rows: Sequence[Outcome] = (),
    commit: str = "a" * 40,
) -> Path:
    """A run directory as a training leaves it: a validation every ten steps, a loss at each step."""
    path.mkdir(parents=True)
    (path / "config.yaml").write_text(yaml.safe_dump(config or {"model": {"lr": 0.001}, "seed_everything": 0}))
    start = {"commit": commit, "dirty": False, "versions": {"torch": "2.13"}, "step": 0}
    hashes = {"zsre/test": "1" * 64}
    record = {"wandb_id": "abc", "fingerprint": "f" * 64, "data_sha256": hashes, "starts": [start]}
    (path / "run.json").write_text(json.dumps(record))
    lines = ["step,train/loss,val/score"]
    for step in range(1, 10 * len(scores) + 1):
        lines.append(f"{step},{1 / step},{scores[step // 10 - 1] if step % 10 == 0 else ''}")
    (path / "metrics.csv").write_text("\n".join(lines) + "\n")
    if rows:
        to_jsonl(path / "results" / "test.jsonl", rows, {"run": path.name, "step": 10})
        tables = write_tables(path / "results", rows)
        (path / "results" / "test.json").write_text(json.dumps({"run": path.name, **numbers(tables)}))
    return path
