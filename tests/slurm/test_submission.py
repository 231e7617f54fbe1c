"""Submission to a real SLURM: names and values of all kinds, arrays, chains, and going on after a failure."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from instructedit.runs.jobs import read_jobs
from instructedit.runs.progress import read_progress
from instructedit.scheduling import slurm
from tests.lightning_modules.conftest import Write
from tests.slurm.conftest import Cluster

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]

HOSTILE = [
    "x; touch pwned",
    "$(touch pwned)`touch pwned`",
    'it\'s "quoted" $HOME',
    "-dash",
    "100% %j %A_%a",
    "#naïve 日本 *?[a]!",
]

Instructedit = Callable[..., str]


@pytest.fixture
def instructedit(cluster: Cluster, tmp_path: Path) -> Instructedit:
    """Run a command in a process of its own and return what it prints."""

    def call(*argv: object, status: int = 0) -> str:
        command = [sys.executable, "-m", "instructedit", *map(str, argv)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == status, (argv, done.stdout, done.stderr)
        return done.stdout if status == 0 else done.stderr

    return call


# What was parsed reaches the program as it was; it fails at once then, as there are no such records.
SMALL = ("--gpus-per-node", "0", "--cpus-per-task", "1", "--time", "10", "--no-preflight")


def test_names_and_values_of_all_kinds(instructedit: Instructedit, cluster: Cluster, tmp_path: Path) -> None:
    jobs = {}
    for hostile in HOSTILE:
        base = f"./no base {hostile}"
        instructedit("submit", *SMALL, "--", "fit", f"--run.name={hostile}", f"--model.base={base}", "--data.tasks=[a]")
        jobs[hostile] = read_jobs(tmp_path / "runs" / hostile)[-1]
    for hostile, job in jobs.items():
        run = tmp_path / "runs" / hostile
        log = run / job.log
        assert cluster.ended(job.id, 120, log).state == "FAILED"
        assert log.exists() and "error: " in log.read_text(), (hostile, list(run.rglob("*")))
        frozen = yaml.safe_load((run / "slurm" / "fit.yaml").read_text())
        assert (frozen["run"]["name"], frozen["model"]["base"]) == (hostile, f"./no base {hostile}")
    assert {path.name for path in (tmp_path / "runs").iterdir()} == set(HOSTILE)
    assert not list(tmp_path.rglob("pwned")) and not list(Path.home().glob("pwned"))


def test_values_of_a_job_that_is_not_a_training(instructedit: Instructedit, cluster: Cluster, tmp_path: Path) -> None:
    source = "no folder; $(touch pwned) 'x' \"y\" %j"
    instructedit("submit", *SMALL, "--", "prepare", "--source", source, "--tasks", "zsre")
    (folder,) = (tmp_path / "runs" / "jobs").iterdir()
    (job,) = read_jobs(folder)
    log = folder / job.log
    ended = cluster.ended(job.id, 60, log)
    assert (ended.state, ended.exit_code) == ("FAILED", "2:0")
    assert "no folder; $(touch pwned) 'x' \"y\" %j" in log.read_text()
    assert not list(tmp_path.rglob("pwned"))


def test_an_array_of_four(instructedit: Instructedit, cluster: Cluster, write_config: Write, tmp_path: Path) -> None:
    config = write_config("group", trainer__max_steps=2, validation__every_n_steps=2)
    flags = ("--sweep", "model.lr=1e-3,2e-3", "--array", "seed=0..1", "--time", "10", "--cpus-per-task", "2")
    told = instructedit("submit", *flags, "--", "fit", "--config", config)
    group = tmp_path / "runs" / "group"
    names = [f"lr-{lr}_seed-{seed}" for lr in ("1e-3", "2e-3") for seed in (0, 1)]
    assert "4 runs" in told
    ids = set()
    for number, name in enumerate(names):
        run = group / name
        (job,) = read_jobs(run)
        assert job.id.endswith(f"_{number}")
        assert cluster.ended(job.id, 200, run / job.log).state == "COMPLETED", (run / job.log).read_text()
        resolved = yaml.safe_load((run / "config.yaml").read_text())
        assert (resolved["model"]["lr"], resolved["seed_everything"]) == (float(name[3:7]), number % 2)
        assert resolved["run"]["wandb_group"] == "group"
        progress = read_progress(run)
        assert progress is not None and (progress.state, progress.job) == ("done", job.id)
        ids.add(json.loads((run / "run.json").read_text())["wandb_id"])
    assert len(ids) == 4
    assert "All 4 runs" in instructedit("submit", *flags, "--", "fit", "--config", config, status=2)


def test_an_array_makes_the_runs_of_a_study(
    instructedit: Instructedit, cluster: Cluster, prepared: Path, llama_folder: Path, tmp_path: Path
) -> None:
    asked = {"base": str(llama_folder), "data": str(prepared), "tasks": ["recent", "zsre"], "held_out": ["zsre"]}
    runs = {name: {"method": "none", "batch": number} for number, name in enumerate(("one", "two", "three"), 1)}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump({"name": "small", "evaluate": asked, "runs": runs}))
    study = ("--", "reproduce", "--study", "study.yaml", "--allow_dirty", "true")
    instructedit("submit", *SMALL, "--array", "only=one,two", *study)
    (folder,) = (tmp_path / "runs" / "jobs").iterdir()
    (job,) = read_jobs(folder)
    for task in (f"{job.id}_0", f"{job.id}_1"):
        log = folder / "slurm" / f"{task}.log"
        assert cluster.ended(task, 150, log).state == "COMPLETED", log.read_text()
    made = tmp_path / "results" / "study" / "small"
    assert sorted(path.name for path in made.iterdir() if (path / "run.json").is_file()) == ["one", "two"]
    # What they left is made here, and then the report.
    instructedit("reproduce", "--study", "study.yaml", "--allow_dirty", "true")
    assert (made / "three" / "run.json").is_file() and "PARTIAL" not in (made / "REPORT.md").read_text()


def test_a_chain_ends_with_its_first_failure(instructedit: Instructedit, cluster: Cluster, tmp_path: Path) -> None:
    chain = ("prepare", "--source", "nowhere", "--tasks", "zsre", "--then", "prepare", "--source", "demo")
    instructedit("submit", *SMALL, "--", *chain)
    (folder,) = (tmp_path / "runs" / "jobs").iterdir()
    first, second = read_jobs(folder)
    assert second.after == (first.id,)
    assert cluster.ended(first.id, 60, folder / first.log).state == "FAILED"
    assert cluster.ended(second.id, 60).state == "CANCELLED"
    assert not (folder / second.log).exists()


def test_a_chain_whose_training_fails_is_completed_by_resume(
    instructedit: Instructedit,
    cluster: Cluster,
    write_config: Write,
    prepared: Path,
    llama_folder: Path,
    tmp_path: Path,
) -> None:
    data = tmp_path / "later"
    changes = {"trainer__max_steps": 2, "validation__every_n_steps": 2, "data__folder": str(data)}
    config = write_config("chained", **changes)
    evaluate = ("evaluate", "--base", llama_folder, "--data", data, "--tasks", "recent", "--records", "2")
    chain = (
        "fit",
        "--config",
        config,
        "--then",
        *evaluate,
        "--methods",
        "[{method: none}]",
        "--device",
        "cpu",
        "--allow-dirty",
    )
    instructedit("submit", *SMALL, "--", *chain)
    run = tmp_path / "runs" / "chained"
    first, second = read_jobs(run)
    assert second.after == (first.id,)
    assert cluster.ended(first.id, 60, run / first.log).state == "FAILED"
    assert cluster.ended(second.id, 60).state == "CANCELLED" and not (run / second.log).exists()
    told = json.loads(instructedit("status", run, "--json"))[0]
    assert told["state"] == "failed" and "later" in told["error"]
    told = instructedit("status", run)
    assert "evaluate" in told and "cancelled" in told
    shutil.copytree(prepared, data)
    instructedit("submit", "--resume", run)
    again, behind = read_jobs(run)[2:]
    assert (again.command, behind.command, behind.after) == ("fit", "evaluate", (again.id,))
    for job in (again, behind):
        assert cluster.ended(job.id, 120, run / job.log).state == "COMPLETED", (run / job.log).read_text()
    assert (run / "slurm" / f"{behind.id}.ended").exists() and (tmp_path / "evaluations").is_dir()
    assert "is done" in instructedit("submit", "--resume", run, status=2)


def test_a_run_in_the_queue_is_refused_and_a_cancelled_one_goes_on(
    instructedit: Instructedit, cluster: Cluster, write_config: Write, tmp_path: Path
) -> None:
    config = write_config("held", trainer__max_steps=2, validation__every_n_steps=2)
    words = ("--", "fit", "--config", config)
    held = cluster.call("sbatch", "--parsable", "--hold", "--output=/dev/null", "--wrap=true").strip()
    instructedit("submit", "--after", held, "--time", "10", *words)
    run = tmp_path / "runs" / "held"
    (job,) = read_jobs(run)
    assert job.id in instructedit("submit", *words, status=2)
    assert job.id in instructedit("submit", "--resume", run, status=2)
    slurm.cancel(job.id)
    slurm.cancel(held)
    assert cluster.ended(job.id, 30).state == "CANCELLED"
    # What is queued does not change with the file it was made from.
    config.write_text("nothing: of this")
    instructedit("submit", "--resume", run)
    again = read_jobs(run)[-1]
    assert cluster.ended(again.id, 120, run / again.log).state == "COMPLETED"
    assert "is done" in instructedit("submit", "--resume", run, status=2)


def test_what_slurm_refuses_leaves_nothing(instructedit: Instructedit, tmp_path: Path) -> None:
    told = instructedit(
        "submit", *SMALL, "--partition", "nosuch", "--", "fit", "--run.name=x", "--model.base=y", status=2
    )
    assert "partition" in told and told.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_the_profile_reaches_the_job(instructedit: Instructedit, cluster: Cluster, tmp_path: Path) -> None:
    profile = tmp_path / "site.yaml"
    scratch = tmp_path / "scratch"
    content = {
        "time": "0-00:10",
        "gpu_type": None,
        "environment": {"VALUE": "a 'b' $HOME"},
        "setup": ['echo "setup: $VALUE, $OMP_NUM_THREADS threads, $CUDA_VISIBLE_DEVICES"'],
        "scratch": f"{scratch}/$SLURM_JOB_ID",
        "sbatch_options": ["--exclusive"],
        "constraint": None,
    }
    profile.write_text(yaml.safe_dump(content))
    instructedit("submit", "--profile", profile, "--gpus-per-node", "1", "--nodes", "2", "--no-preflight", *FIT)
    run = tmp_path / "runs" / "x"
    (job,) = read_jobs(run)
    found = cluster.ended(job.id, 120, run / job.log)
    assert (found.fields["NumNodes"], found.fields["TimeLimit"]) == ("2", "00:10:00")
    assert "gres:gpu:1" in found.fields["TresPerNode"] and found.fields["NtasksPerN:B:S:C"].startswith("1:")
    log = (run / job.log).read_text()
    assert f"setup: a 'b' $HOME, {os.environ['OMP_NUM_THREADS']} threads" in log and log.startswith(
        "=== start 0 of job "
    )
    assert (scratch / job.id).is_dir()


def test_the_scripts_variables_reach_the_ranks_whatever_sbatch_exports(
    instructedit: Instructedit, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # In Python's place: what a rank was started with.
    recorder = tmp_path / "recorder"
    recorder.write_text('#!/bin/bash\nenv > "$(dirname "$0")/rank-$SLURM_PROCID"\n')
    recorder.chmod(0o755)
    profile = tmp_path / "site.yaml"
    content = {"python": str(recorder), "offline": True, "environment": {"OWN": "x y"}}
    profile.write_text(yaml.safe_dump(content))
    monkeypatch.setenv("OF_THE_SHELL", "1")
    flags = ("--profile", profile, *SMALL, "--nodes", "2", "--option=--export=NONE")
    for number, more in enumerate((("--option=--comment=x",), ())):
        if number:
            monkeypatch.setenv("SBATCH_EXPORT", "NONE")
            flags = flags[:-1]
        instructedit("submit", *flags, *more, "--max-requeues", number, *FIT)
        run = tmp_path / "runs" / "x"
        job = read_jobs(run)[-1]
        assert cluster.ended(job.id, 60, run / job.log).state == "COMPLETED", (run / job.log).read_text()
        for rank in (0, 1):
            found = (tmp_path / f"rank-{rank}").read_text().splitlines()
            wanted = {f"INSTRUCTEDIT_MAX_REQUEUES={number}", "MASTER_ADDR=node1", "HF_HUB_OFFLINE=1", "OWN=x y"}
            assert wanted <= set(found) and "OF_THE_SHELL=1" not in found
            (tmp_path / f"rank-{rank}").unlink()


FIT = ("--", "fit", "--run.name=x", "--model.base=./y", "--data.tasks=[a]")
