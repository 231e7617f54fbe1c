"""slurm/acceptance.sbatch as a real job on two nodes, with CPU settings and a tiny base."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from instructedit.scheduling import slurm
from tests.slurm.conftest import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

SCRIPT = Path(__file__).parents[2] / "slurm" / "acceptance.sbatch"

BREAK = """
import os, runpy, sys
from lightning_modules.acceptance import accelerator
if os.environ.get("SLURM_PROCID") == "1":
    real = accelerator.multiplied
    accelerator.multiplied = lambda a, b: 1.05 * real(a, b)
_, _, module, *arguments = sys.argv
sys.argv = [module, *arguments]
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""
"""A Python whose second rank computes wrong products."""


@pytest.fixture
def submit(
    cluster: Cluster, tmp_path: Path, llama_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[str, Path]]:
    """Submit the script as it is shipped; returns the job's id and its log."""

    def hand_in(**variables: str) -> tuple[str, Path]:
        own = {"BASE": str(llama_folder), "ACCELERATOR": "cpu", "PYTHON": sys.executable, **variables}
        for name, value in own.items():
            monkeypatch.setenv(f"INSTRUCTEDIT_ACCEPTANCE_{name}", value)
        monkeypatch.chdir(tmp_path)
        job = slurm.submit(SCRIPT, ["--cpus-per-task=1", f"--chdir={tmp_path}"])
        return job, tmp_path / f"acceptance-{job}.log"

    return hand_in


def results(folder: Path, job: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / f"acceptance-{job}" / "acceptance.json").read_text())
    return content


def test_a_healthy_cluster_passes(cluster: Cluster, submit: Callable[..., tuple[str, Path]], tmp_path: Path) -> None:
    job, log = submit()
    ended = cluster.ended(job, seconds=500, log=log)
    text = log.read_text()
    assert ended.state == "COMPLETED", text
    assert ended.restarts == 1, "it has been requeued as the same job"
    assert text.splitlines()[-1] == "verdict: PASS (12 passed, 0 failed, 2 skipped)", text
    assert text.count("acceptance: strategies ...") == 1, "what was done before the requeue is not repeated"
    content = results(tmp_path, job)
    found = {result["name"]: result for result in content["results"]}
    assert (content["verdict"], content["accelerator"], content["ranks"]) == ("PASS", "cpu", 2)
    assert [name for name, result in found.items() if result["verdict"] == "SKIP"] == ["devices", "NCCL all-reduce"]
    assert all(0 < found[name]["numbers"]["gradients"] < 1e-4 for name in ("ddp", "zero_2", "zero_3", "fsdp2"))
    assert found["requeue"]["numbers"] == {"gradients": 0, "way": 0}
    assert found["ranks meet"]["told"] == "2 on node1, node2"


def test_one_rank_that_computes_wrong_fails_it(
    cluster: Cluster, submit: Callable[..., tuple[str, Path]], tmp_path: Path
) -> None:
    (tmp_path / "broken.py").write_text(BREAK)
    job, log = submit(PYTHON=f"{sys.executable} {tmp_path}/broken.py", PHASES="ranks")
    assert cluster.ended(job, log=log).state == "FAILED"
    text = log.read_text()
    assert text.splitlines()[-1] == "verdict: FAIL (6 passed, 1 failed, 2 skipped)", text
    (failed,) = [result for result in results(tmp_path, job)["results"] if result["verdict"] == "FAIL"]
    assert failed["name"] == "bf16 products"
    assert failed["told"].startswith("rank 1 on node2: relative error 5.0e-02"), failed


def test_the_script_is_a_script(tmp_path: Path) -> None:
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    directives = [line for line in SCRIPT.read_text().splitlines() if line.startswith("#SBATCH")]
    assert "#SBATCH --requeue" in directives and "#SBATCH --open-mode=append" in directives
