"""Trainings that lose their job: told, preempted, killed, out of time; on two nodes, with the shipped template."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from instructedit.comparison.wandb_files import records
from instructedit.runs.jobs import read_jobs
from instructedit.runs.progress import read_progress
from tests.lightning_modules.conftest import Write
from tests.processes.jobs import Job
from tests.slurm.conftest import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(400)]

ROOT = Path(__file__).parents[2]
STEPS = 12


def instructedit(*argv: object, status: int = 0) -> str:
    """Run a command in a process of its own and return what it prints."""
    command = [sys.executable, "-m", "instructedit", *map(str, argv)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == status, (argv, done.stdout, done.stderr)
    return done.stdout if status == 0 else done.stderr


@dataclass
class Training:
    """A submitted training."""

    cluster: Cluster
    run: Path
    id: str
    steps: Path

    @property
    def log(self) -> Path:
        return self.run / read_jobs(self.run)[-1].log

    def until_step(self, step: int, start: int = 0, rank: int = 0, seconds: float = 120) -> None:
        path = self.steps / f"start{start}-rank{rank}-step{step}"
        end = time.monotonic() + seconds
        while not path.exists():
            told = self.log.read_text() if self.log.exists() else "no log"
            assert time.monotonic() < end, f"{path.name} is not there after {seconds} s\n{told[-4000:]}"
            time.sleep(0.1)

    def ended(self, state: str = "COMPLETED", seconds: float = 240) -> None:
        found = self.cluster.ended(self.id, seconds, self.log)
        assert found.state == state, (found, self.log.read_text()[-4000:])

    def status(self) -> dict[str, Any]:
        return dict(json.loads(instructedit("status", self.run, "--json"))[0])

    def weights(self) -> dict[str, torch.Tensor]:
        return weights(self.run)

    def going_on_at(self) -> list[int]:
        """The steps at which the starts after the first went on."""
        lines = self.log.read_text().splitlines()
        return [int(line.split()[4]) for line in lines if line.startswith("going on at step ")]


def weights(run: Path) -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return content


Submit = Callable[..., Training]


@pytest.fixture
def submit(cluster: Cluster, write_config: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Submit:
    """Submit a tiny training on two nodes; the keywords go to the slow callback, flags to `submit`."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the callback is a module of the tests

    def submitted(name: str, *flags: str, more: tuple[str, ...] = (), **slow: object) -> Training:
        config = training(write_config, tmp_path, name, **slow)
        argv = ["--nodes", "2", "--gpus-per-node", "0", "--time", "10", *flags]
        instructedit("submit", *argv, "--", "fit", "--config", config, *more)
        run = tmp_path / "runs" / name
        # A group's own folder has no jobs: its points have.
        jobs = read_jobs(run) or read_jobs(next(run.glob("*/run.json")).parent)
        return Training(cluster, run, jobs[-1].id.partition("_")[0], tmp_path / "steps" / name)

    return submitted


def training(write_config: Write, folder: Path, name: str, **slow: object) -> Path:
    """A small experiment of two ranks; saves seldom, so that what a signal saves is seen."""
    config = write_config(name, trainer__max_steps=STEPS, validation__every_n_steps=STEPS, checkpoint__every_n_steps=50)
    content = yaml.safe_load(config.read_text())
    steps = {"folder": str(folder / "steps" / name)}
    content["trainer"]["callbacks"] = [{"class_path": "tests.slurm.slow.Slow", "init_args": steps | slow}]
    content["run"]["wandb"] = "offline"
    config.write_text(yaml.safe_dump(content))
    return config


@pytest.fixture(scope="session")
def alone(tmp_path_factory: pytest.TempPathFactory, prepared: Path, llama_folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the same training on two ranks that nobody has stopped."""
    from functools import partial

    from tests.lightning_modules.conftest import write_experiment

    folder = tmp_path_factory.mktemp("alone")
    config = training(partial(write_experiment, folder, prepared, llama_folder), folder, "alone")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INSTRUCTEDIT_CACHE", str(folder / "cache"))
        for name in [name for name in os.environ if name.startswith("SLURM_")]:
            patch.delenv(name)
        Job(["--config", str(config), "--run.wandb", "disabled"], 2, folder / "logs").succeeds()
    return weights(folder / "runs" / "alone")


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def steps_logged(run: Path) -> list[int]:
    with (run / "metrics.csv").open(newline="") as file:
        return [int(row["step"]) for row in csv.DictReader(file)]


def wandb_steps(run: Path) -> list[int]:
    """The steps in W&B's files, start by start; all of them are of the one run."""
    files = sorted(run.glob("wandb/offline-run-*/*.wandb"))
    wanted = json.loads((run / "run.json").read_text())["wandb_id"]
    assert len(files) > 1 and {path.stem for path in files} == {f"run-{wanted}"}
    return [record.history.step.num for path in files for _, record in records(path) if record.history.item]


def test_a_signal_with_one_rank_slower(submit: Submit, cluster: Cluster, alone: dict[str, torch.Tensor]) -> None:
    job = submit("told", seconds=1.5, rank=1)
    job.until_step(3)
    cluster.call("scancel", "--signal=USR1", job.id)
    job.ended()
    found = cluster.job(job.id)
    assert found.restarts == 1
    (step,) = job.going_on_at()
    assert 3 <= step < STEPS and f"stopped at step {step} by SIGUSR1" in job.log.read_text()
    # The second start has done each step after it once, the first none of them.
    done = {path.name for path in job.steps.iterdir()}
    assert {f"start1-rank{rank}-step{n}" for rank in (0, 1) for n in range(step + 1, STEPS + 1)} <= done
    assert not {f"start0-rank0-step{n}" for n in range(step + 1, STEPS + 1)} & done
    assert same(job.weights(), alone)
    assert steps_logged(job.run) == list(range(1, STEPS + 1))
    told = job.status()
    assert (told["state"], told["requeues"]) == ("done", 1)
    assert wandb_steps(job.run) == list(range(1, STEPS + 1))


def test_preempted_by_a_partition_of_higher_priority(
    submit: Submit, cluster: Cluster, alone: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    job = submit("preempted", "--partition", "low", seconds=1.0)
    job.until_step(2)
    script = tmp_path / "first.sbatch"
    script.write_text("#!/bin/bash\nsleep 3\n")
    flags = ("-p", "main", "-N2", "--exclusive", f"--output={tmp_path}/first.log")
    first = cluster.call("sbatch", "--parsable", *flags, str(script)).strip()
    job.ended()
    assert cluster.job(first).state == "COMPLETED"
    (step,) = job.going_on_at()
    assert f"stopped at step {step} by SIGTERM" in job.log.read_text()
    assert same(job.weights(), alone)
    # The signal goes to all processes of the job; wandb's own ends at once. What it had not written is made up for.
    assert wandb_steps(job.run) == list(range(1, STEPS + 1))


def test_a_node_goes_down(submit: Submit, cluster: Cluster, alone: dict[str, torch.Tensor]) -> None:
    job = submit("node-down", more=("--checkpoint.every_n_steps", "2"), seconds=1.0)
    job.until_step(5)
    try:
        cluster.call("scontrol", "update", "nodename=node2", "state=down", "reason=test")
        cluster.until(job.id, lambda found: found.state == "PENDING" or found.restarts > 0, 30, job.log)
    finally:
        cluster.bring_back("node2")
    job.ended()
    (step,) = job.going_on_at()
    assert step in (4, 6) and cluster.job(job.id).restarts == 1
    assert same(job.weights(), alone)


def test_out_of_time(submit: Submit, cluster: Cluster, alone: dict[str, torch.Tensor], tmp_path: Path) -> None:
    # SLURM may send the signal up to a minute early: 30 to 90 s after a start. The first start takes longer, and a
    # later one only where the machine is slow; then it is told once more.
    profile = tmp_path / "short.yaml"
    profile.write_text("{time: 2, signal_seconds: 30}\n")
    job = submit("out-of-time", "--profile", str(profile), "--time", "2", seconds=9.0)
    job.ended()
    assert cluster.job(job.id).restarts >= 1 and "by SIGUSR1" in job.log.read_text()
    assert job.going_on_at() == sorted(job.going_on_at())
    assert same(job.weights(), alone) and steps_logged(job.run) == list(range(1, STEPS + 1))


def test_a_killed_rank_fails_the_job_at_once_and_resume_completes_it(
    submit: Submit, cluster: Cluster, alone: dict[str, torch.Tensor]
) -> None:
    job = submit("killed", more=("--checkpoint.every_n_steps", "2"), seconds=1.0)
    job.until_step(5)
    cluster.signal_rank(job.id, 1, signal.SIGKILL)
    began = time.monotonic()
    job.ended("FAILED")
    assert time.monotonic() - began < 15
    told = job.status()
    assert told["state"] == "failed" and "task 1" in told["error"] and "Killed" in told["error"]
    assert "instructedit submit --resume" in instructedit("status", job.run)
    instructedit("submit", "--resume", job.run)
    again = Training(cluster, job.run, read_jobs(job.run)[-1].id, job.steps)
    assert again.id != job.id
    again.ended()
    assert same(again.weights(), alone) and again.status()["state"] == "done"


@pytest.mark.parametrize("handled", [False, True])
def test_a_signal_while_the_program_loads(
    submit: Submit, cluster: Cluster, alone: dict[str, torch.Tensor], handled: bool
) -> None:
    job = submit("early")
    for rank in (0, 1):
        cluster.until_rank_is_there(job.id, rank, signal.SIGUSR1 if handled else None)
    cluster.call("scancel", "--signal=USR1", job.id)
    job.ended()
    if handled:  # Python is up, torch is not
        assert cluster.job(job.id).restarts == 1 and "stopped at step 0 by SIGUSR1" in job.log.read_text()
    # Before Python has its handlers the signal is ignored, and the training goes on.
    assert same(job.weights(), alone)


def test_one_task_of_an_array_is_requeued_and_the_other_left_alone(submit: Submit, cluster: Cluster) -> None:
    group = submit("array", "--nodes", "1", "--array", "seed=0,1", seconds=0.5)
    first, second = (Training(cluster, group.run / f"seed-{n}", f"{group.id}_{n}", group.steps) for n in (0, 1))
    end = time.monotonic() + 60
    while (told := read_progress(second.run)) is None or told.state != "running" or not told.metrics:
        assert time.monotonic() < end
        time.sleep(0.1)
    cluster.call("scancel", "--signal=USR1", second.id)
    for task, restarts in ((first, 0), (second, 1)):
        task.ended()
        assert cluster.job(task.id).restarts == restarts and len(task.going_on_at()) == restarts
        assert task.status()["state"] == "done" and steps_logged(task.run) == list(range(1, STEPS + 1))


def test_out_of_requeues(submit: Submit, cluster: Cluster) -> None:
    # Rank one is still ending when srun, told by rank zero's status, ends the step: the job's status stays rank zero's.
    job = submit("capped", "--max-requeues", "0", seconds=1.0, leaving=2.5)
    job.until_step(2)
    cluster.call("scancel", "--signal=USR1", job.id)
    job.ended("FAILED", 60)
    found = cluster.job(job.id)
    assert (found.restarts, found.exit_code) == (0, "3:0")
    told, progress = job.status(), read_progress(job.run)
    assert told["state"] == "stopped" and "out of requeues: 0 of 0" in told["why"]
    assert progress is not None and progress.saved_step == progress.step >= 2
    assert (job.run / "checkpoints" / "last.ckpt").exists()
    assert f"instructedit submit --resume {job.run}" in job.log.read_text()


def test_a_cancelled_training_stays_cancelled(submit: Submit, cluster: Cluster) -> None:
    job = submit("cancelled", seconds=1.0)
    job.until_step(2)
    cluster.call("scancel", job.id)
    job.ended("CANCELLED", 60)
    time.sleep(2)
    assert cluster.job(job.id).state == "CANCELLED" and job.status()["state"] == "cancelled"
