"""What Weights & Biases shows as a run's configuration: the resolved settings, and ``provenance``: what made it."""

import os
from collections.abc import Mapping
from typing import Any

import yaml

from instructedit.runs.directory import DATA
from instructedit.scheduling.requeue import job_id

SLURM = {
    "partition": "SLURM_JOB_PARTITION",
    "nodes": "SLURM_JOB_NODELIST",
    "node_count": "SLURM_JOB_NUM_NODES",
    "restarts": "SLURM_RESTART_COUNT",
}
"""Named one by one: an environment as a whole may hold keys."""


def shown_config(resolved: str, record: Mapping[str, Any], ranks: int) -> dict[str, Any]:
    """Build it.

    Args:
        resolved: the whole configuration as YAML.
        record: what run.json holds.
        ranks: how many processes train.
    """
    starts = record["starts"]
    latest = starts[-1]
    job = {name: os.environ[variable] for name, variable in SLURM.items() if os.environ.get(variable)}
    provenance = {
        "commit": latest["commit"],
        "dirty": latest["dirty"],
        "versions": latest["versions"],
        "starts": [{"step": start["step"], "commit": start["commit"]} for start in starts],
        "base_fingerprint": record["fingerprint"],
        "data_sha256": record[DATA],
        "ranks": ranks,
        "slurm": {"job": job_id(), **job} if job_id() else None,
    }
    return {**yaml.safe_load(resolved), "provenance": provenance}
